"""Classes added to a finished run by photographs, in use and taken back."""

import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from finevote.added import add_classes, measure_extended, open_photographs, take_back
from finevote.build import build_model, build_preprocessing
from finevote.bundle.read import load_bundle
from finevote.bundle.record import record_keep_rate
from finevote.bundle.write import save_bundle
from finevote.cli import app
from finevote.errors import ArgumentError, BundleError, DataError, FinevoteError
from finevote.evaluation.answers import AnswerRule
from finevote.evaluation.calibrator import SetRule
from finevote.measure.calibrate import calibrate_run
from finevote.measure.evaluate import evaluate
from finevote.measure.gallery import collect
from finevote.predictor import Predictor
from finevote.training.prepare import prepare_run
from tests.tiny import CLASSES, make_config, make_model, write_photographs, write_run
from tests.training.helpers import changed

COLORS = {"violet": (150, 50, 200), "white": (230, 230, 230)}


def write_new(root, *, num_each=5, names=tuple(COLORS)):
    for name in names:
        rng = np.random.default_rng(len(name))
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(num_each):
            pixels = np.clip(COLORS[name] + rng.normal(0, 40, (24, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    run = write_run(root / "run", data=write_photographs(root / "data", num_test=4))
    calibrate_run(run)
    evaluate(run)  # once for all tests
    write_new(root / "new")
    return root


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made / "run", tmp_path / "run")


@pytest.fixture
def new(made):
    return made / "new"


@pytest.fixture
def photographs(made):
    return sorted((made / "data" / "test").rglob("*.png")) + sorted((made / "new").rglob("*.png"))


def bundle_bytes(run):
    return {path.name: path.read_bytes() for path in (run / "bundle").iterdir()}


def answers(run, paths):
    return Predictor.load(run).predict_all(paths, top=9)


def test_added_classes_are_named_and_the_trained_model_stays_as_it_is(run, new):
    before = bundle_bytes(run)
    added = add_classes(run, new)
    after = bundle_bytes(run)
    assert {name: after[name] for name in before if name != "bundle.json"} == {
        name: content for name, content in before.items() if name != "bundle.json"
    }
    assert added.addition.class_names == ("violet", "white")
    predictor = Predictor.load(run)
    assert predictor.class_names == (*CLASSES, "violet", "white")
    (answer,) = predictor.predict_all([new / "white" / "0.png"], top=9)
    assert set(answer.class_names) == {*CLASSES, "violet", "white"}
    assert sum(answer.probabilities) == pytest.approx(1)


def test_taking_back_restores_files_and_answers_bit_by_bit(run, new, photographs):
    before, said = bundle_bytes(run), answers(run, photographs)
    add_classes(run, new)
    assert answers(run, photographs) != said
    assert take_back(run) == (("violet", "white"), ())
    assert bundle_bytes(run) == before
    assert answers(run, photographs) == said


def test_additions_are_taken_back_one_after_the_other(run, tmp_path, photographs):
    first = add_classes(run, write_new(tmp_path / "one", names=("white",)))
    between, said = bundle_bytes(run), answers(run, photographs)
    add_classes(run, write_new(tmp_path / "two", names=("violet",)))
    assert load_bundle(run / "bundle").added_names == ("white", "violet")
    assert take_back(run) == (("violet",), ("white",))
    assert bundle_bytes(run) == between
    assert answers(run, photographs) == said
    assert take_back(run) == (("white",), ())
    with pytest.raises(ArgumentError, match="nothing to take back"):
        take_back(run)
    assert first.addition.keep_rate == 1


def test_an_addition_is_read_as_it_was_made(run, new):
    made = add_classes(run, new).addition
    (read,) = load_bundle(run / "bundle").additions
    assert (read.class_names, read.image_ids, read.paths) == (made.class_names, made.image_ids, made.paths)
    assert (read.slope, read.bias, read.details["folder"]) == (made.slope, made.bias, str(new))
    for name in ("weights", "offsets", "labels", "embeddings", "logits", "own_logits"):
        assert np.array_equal(getattr(read, name), getattr(made, name)), name


def test_figures_are_of_validation_and_of_photographs_left_out(run, new):
    figures = add_classes(run, new).figures
    assert (figures.split, figures.num_images) == ("val", 9)
    assert [(row.class_name, row.num_images) for row in figures.rows] == [("violet", 5), ("white", 5)]
    assert figures.change.value == pytest.approx(figures.after.value - figures.before.value)
    assert figures.change.low <= figures.change.value <= figures.change.high
    assert any("each left out of its prototype" in note for note in figures.notes())
    json.dumps(figures.to_dict(), allow_nan=False)


def test_the_test_split_stays_closed(run, new):
    add_classes(run, new)
    assert not (run / "test_ledger.jsonl").exists()


def test_promises_are_refused_with_added_classes(run, new):
    add_classes(run, new)
    predictor, image = Predictor.load(run), new / "white" / "0.png"
    for asked in ({"sets": SetRule(0.7)}, {"rule": AnswerRule(false_alarms=0.3)}, {"rule": AnswerRule(max_error=0.5)}):
        with pytest.raises(ArgumentError, match=r"2 classes were added to the bundle .*--undo"):
            predictor.predict(image, **asked)
    take_back(run)
    Predictor.load(run).predict(image, sets=SetRule(0.7))


def test_explanations_know_the_added_classes(run, new):
    add_classes(run, new)
    predictor = Predictor.load(run)
    explained = predictor.explain(new / "white" / "0.png", top=9)
    assert explained.ranked.class_names == predictor.predict(new / "white" / "0.png", top=9).class_names
    assert (explained.prediction_set, explained.verdict) == (None, None)
    assert not explained.is_calibrated
    assert any("were added to the bundle" in note for note in explained.notes)
    with pytest.raises(ArgumentError, match="'white' was added by its photographs, and no votes tell it"):
        predictor.explain(new / "white" / "0.png", contrast=("white", "red"))
    assert predictor.explain(new / "white" / "0.png", contrast=()).contrast is not None


def test_photographs_of_added_classes_are_evidence_beside_the_gallery(run, new):
    collect(run, thumbnail_px=16)
    before = bundle_bytes(run)
    add_classes(run, new)
    image = new / "white" / "0.png"
    predictor = Predictor.load(run)
    gallery = predictor.torch.gallery
    assert gallery.path(len(gallery.image_ids) - 1) == new / "white" / "4.png"
    explained = predictor.explain(image, num_neighbours=2)
    found = {one.class_name: one.neighbours for one in explained.evidence}
    assert set(found) == set(explained.ranked.class_names[:2])
    shown = [neighbour for one in explained.evidence for neighbour in one.neighbours]
    assert all(neighbour.image_id != "added/white/0.png" for neighbour in shown)  # it is no evidence for itself
    assert all(neighbour.picture is not None for neighbour in shown)
    assert set(gallery.labels.tolist()) == set(range(5))
    take_back(run)
    assert bundle_bytes(run) == before


def test_several_views_and_photographs_together_know_them(run, new):
    add_classes(run, new)
    predictor = Predictor.load(run, views="flip")
    together = predictor.predict_together(sorted((new / "white").iterdir()), top=9)
    assert set(together.class_names) == {*CLASSES, "violet", "white"}


def test_evaluate_measures_the_trained_classes_and_says_that_others_were_added(run, new):
    before = evaluate(run).to_dict()
    add_classes(run, new)
    report = evaluate(run)
    assert report.to_dict()["top_1"] == before["top_1"]
    assert report.to_dict()["added"] == {"class_names": ["violet", "white"]}
    assert "without the classes added later (violet, white)" in printed(report.table())


def printed(renderable):
    console = Console(width=200, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


def test_a_folder_of_images_is_one_class_of_its_name(new):
    source = open_photographs(new / "white")
    assert source.class_names == ("white",)
    assert len(source.splits["added"]) == 5


def test_images_lie_at_any_depth_of_a_class(tmp_path):
    write_new(tmp_path / "new" / "white" / "2025", names=("white",))
    assert open_photographs(tmp_path / "new").splits["added"][0].image_id == "white/2025/white/0.png"


def test_a_folder_that_is_a_class_and_holds_classes_is_refused(tmp_path):
    folder = write_new(tmp_path / "new")
    shutil.copy(folder / "white" / "0.png", folder / "loose.png")
    with pytest.raises(DataError, match=r"has images of its own \(1 image: loose.png\) and folders of images"):
        open_photographs(folder)


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere", "is not there"), ("empty", "has no images"), ("file", "is not a folder")]
)
def test_a_folder_without_photographs_is_refused(tmp_path, name, message):
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=message):
        open_photographs(tmp_path / name)


def test_names_that_are_taken_are_refused(run, new, tmp_path):
    shutil.copytree(new / "white", tmp_path / "red")
    with pytest.raises(ArgumentError, match="the model was trained on the class 'red' already"):
        add_classes(run, tmp_path / "red")
    add_classes(run, new)
    before = bundle_bytes(run)
    with pytest.raises(ArgumentError, match="the class 'violet' was added already"):
        add_classes(run, new)
    assert bundle_bytes(run) == before


def test_photographs_that_cannot_be_read_are_all_told_and_left_out_on_request(run, tmp_path):
    folder = write_new(tmp_path / "new")
    for path in (folder / "white" / "0.png", folder / "violet" / "3.png"):
        path.write_bytes(b"no image")
    before = bundle_bytes(run)
    with pytest.raises(DataError, match=r"2 of 10 photographs cannot be read:\n.*3\.png.*\n.*0\.png.*\n.*--skip-bad"):
        add_classes(run, folder)
    assert bundle_bytes(run) == before
    added = add_classes(run, folder, skip_bad=True)
    assert len(added.unreadable) == 2
    assert np.bincount(added.addition.labels).tolist() == [4, 4]


def test_a_class_of_broken_photographs_alone_is_left_out(run, tmp_path):
    folder = write_new(tmp_path / "new")
    for path in (folder / "violet").iterdir():
        path.write_bytes(b"no image")
    assert add_classes(run, folder, skip_bad=True).addition.class_names == ("white",)
    take_back(run)
    for path in (folder / "white").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 10 photographs"):
        add_classes(run, folder, skip_bad=True)


def test_a_single_photograph_is_allowed_with_a_warning(run, tmp_path):
    folder = write_new(tmp_path / "new", num_each=1, names=("white",))
    done = CliRunner().invoke(app, ["add-class", str(run), str(folder)])
    assert done.exit_code == 0, done.output
    assert "WARNING: a single photograph of white" in done.output
    assert "not measured" in done.output
    assert "white" in Predictor.load(run).class_names


def test_a_plain_run_takes_classes_too(run, new):
    config = make_config()
    config = changed(config, "model", voting=config.model.voting.model_copy(update={"enabled": False}))
    model = build_model(config, num_classes=len(CLASSES)).eval()
    preprocessing = build_preprocessing(config.data, model.backbone)
    save_bundle(run / "bundle", model, config=config, class_names=CLASSES, preprocessing=preprocessing, details={})
    assert add_classes(run, new).addition.class_names == ("violet", "white")  # and without a calibration
    assert len(Predictor.load(run).predict(new / "white" / "0.png", top=9).class_names) == 5


def test_a_run_without_validation_is_refused(run, new):
    values = json.loads((run / "split.json").read_text())
    del values["splits"]["val"]
    (run / "split.json").write_text(json.dumps(values))
    with pytest.raises(DataError, match="was trained without validation: nothing tells what its classes would lose"):
        add_classes(run, new)


def test_a_file_that_was_changed_is_told_and_can_be_taken_back(run, new, photographs):
    before, said = bundle_bytes(run), answers(run, photographs)
    add_classes(run, new)
    path = run / "bundle" / "added-1.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BundleError, match=r"added-1\.safetensors was changed .*: take the classes back with .*--undo"):
        load_bundle(run / "bundle")
    take_back(run)
    assert bundle_bytes(run) == before
    assert answers(run, photographs) == said


def test_what_a_killed_process_left_does_no_harm(run, new, photographs):
    said = answers(run, photographs)
    (run / "bundle" / "added-1.safetensors").write_bytes(b"half")
    (run / "bundle" / f".bundle.json.{'0' * 32}.tmp").write_bytes(b"half")
    assert answers(run, photographs) == said
    add_classes(run, new)
    assert load_bundle(run / "bundle").added_names == ("violet", "white")


KILLED = """
import os, signal, sys
import finevote.bundle.additions as additions
write, left = additions.atomic_write, int(sys.argv[3])
def stop(*args, **options):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    write(*args, **options)
additions.atomic_write = stop
from finevote.added import add_classes
add_classes(sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_written", [0, 1])
def test_a_process_that_is_killed_leaves_the_bundle_as_it_was(run, new, photographs, num_written):
    said, manifest = answers(run, photographs), bundle_bytes(run)["bundle.json"]
    done = subprocess.run([sys.executable, "-c", KILLED, str(run), str(new), str(num_written)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert bundle_bytes(run)["bundle.json"] == manifest
    assert answers(run, photographs) == said


def test_a_recalibration_keeps_added_classes(run, new):
    add_classes(run, new)
    calibrate_run(run)
    assert load_bundle(run / "bundle").added_names == ("violet", "white")


def test_another_keep_rate_than_that_of_the_classes_is_warned_of(run, new, caplog):
    add_classes(run, new)
    record_keep_rate(run / "bundle", 0.5, details={})
    Predictor.load(run)
    assert "classes were added at keep rate 1, and are asked at 0.5" in caplog.text


@pytest.fixture
def held(made, tmp_path):
    """Return a run of two classes, with the third held out."""
    config = changed(changed(make_config(), "data", hold_out_classes=("red",)), "training", batch_size=4)
    run = prepare_run(config, str(made / "data"), out=tmp_path / "held", skip_bad=True, console=Console(quiet=True))
    model = build_model(config, num_classes=2).eval()
    _, preprocessing = make_model(make_config())
    save_bundle(run.bundle, model, config=config, class_names=CLASSES[:2], preprocessing=preprocessing, details={})
    return run.path


def test_held_out_classes_that_are_added_are_measured_on_the_test_split(held, made):
    add_classes(held, made / "data" / "train" / "red")
    found = measure_extended(held, split="test")
    assert (found.num_images, found.rows[0][:2]) == (8, ("red", 4))
    values = json.loads((held / "evaluation" / "test" / "added.json").read_text())
    assert values["rows"][0]["class_name"] == "red"
    images = sorted((made / "data" / "test" / "red").iterdir())
    named = [answer.class_names[0] for answer in Predictor.load(held).predict_all(images, top=1)]
    assert found.new.value == pytest.approx(np.mean([name == "red" for name in named]))
    assert len((held / "test_ledger.jsonl").read_text().splitlines()) == 1
    measure_extended(held, split="test")  # by what is saved: no further look
    assert len((held / "test_ledger.jsonl").read_text().splitlines()) == 1


def test_measuring_with_added_classes_takes_some(run):
    with pytest.raises(ArgumentError, match="no classes were added to"):
        measure_extended(run)


class TestCommand:
    def ask(self, *words):
        return CliRunner().invoke(app, [str(word) for word in words])

    def test_adding_measuring_and_taking_back(self, run, new):
        done = self.ask("add-class", run, new)
        assert done.exit_code == 0, done.output
        assert "change in points" in done.output
        assert "does not hold with added classes" in done.output
        values = json.loads(self.ask("evaluate", run, "--with-added", "--json").stdout)
        assert values["new"] is None
        assert self.ask("add-class", run, "--undo").output.splitlines() == [
            "taken back: violet, white",
            "the bundle is as it was before any class was added",
        ]

    @pytest.mark.parametrize("words", [("--undo", "--skip-bad"), (), ("FOLDER", "--undo")])
    def test_words_that_do_not_go_together_are_refused(self, run, words):
        done = self.ask("add-class", run, *words)
        assert isinstance(done.exception, ArgumentError)

    def test_what_is_measured_with_added_classes_is_the_plain_view(self, run):
        done = self.ask("evaluate", run, "--with-added", "--saved")
        assert isinstance(done.exception, FinevoteError)
        assert "--with-added measures the plain view" in str(done.exception)


def test_the_bundle_alone_is_refused_for_want_of_validation(run, new):
    with pytest.raises(FinevoteError, match="is not a run of finevote"):
        add_classes(Path(run) / "bundle", new)
