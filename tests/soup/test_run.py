"""Soups of tiny runs: what is kept, what is refused, and that it is a run like any other."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finevote.added import add_classes
from finevote.build import build_model, build_preprocessing
from finevote.bundle.manifest import WEIGHTS_NAME, read_manifest
from finevote.bundle.read import load_bundle
from finevote.bundle.write import save_bundle
from finevote.config import dump_config
from finevote.errors import ArgumentError, BundleError, DataError, RunError
from finevote.evaluation.paired import paired_test
from finevote.measure.evaluate import evaluate
from finevote.measure.opening import open_split
from finevote.predictor import Predictor
from finevote.run_folder import RunFolder
from finevote.soup.run import make_soup
from tests.tiny import CLASSES, make_config, write_photographs, write_run
from tests.training.helpers import changed, make_photographs


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory) -> Path:
    """Three runs on one division, of other weights each."""
    root = tmp_path_factory.mktemp("kitchen")
    data = write_photographs(root / "data", num_test=2)
    write_run(root / "run-0", data=data)
    for seed in (1, 2):
        shutil.copytree(root / "run-0", root / f"run-{seed}")
        rebuild(root / f"run-{seed}", seed=seed)
    return root


@pytest.fixture
def runs(kitchen, tmp_path) -> list[Path]:
    return [shutil.copytree(kitchen / f"run-{seed}", tmp_path / f"run-{seed}") for seed in range(3)]


def rebuild(run: Path, *, seed: int, class_names=CLASSES, change: Callable = lambda config: config) -> None:
    """Give a run another classifier, drawn from a seed."""
    config = change(changed(make_config(), "training", seed=seed))
    model = build_model(config, num_classes=len(class_names)).eval()
    picks = np.roll([8, 1, 1], seed).tolist()
    for _ in range(20):
        if model.head.votes:
            model.update_budget(torch.tensor(picks))
    save_bundle(
        run / "bundle",
        model,
        config=config,
        class_names=class_names,
        preprocessing=build_preprocessing(config.data, model.backbone),
        details={"data": "colours", "protocol": None, "seed": seed, "weights": {"source": "random"}},
    )
    (run / "config.yaml").write_text(dump_config(config))


def right_of(run: Path) -> np.ndarray:
    predictor = Predictor.load(run)
    source = open_split(RunFolder(run), predictor.bundle, split="val", data=None)
    found = predictor.predict_records(source, "val")
    return found.logits.argmax(1) == found.labels


def state_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "bundle" / WEIGHTS_NAME)


def test_a_uniform_soup_holds_the_plain_mean_of_all_runs(runs, tmp_path):
    soup, path = make_soup(runs, kind="uniform", out=tmp_path / "soup")
    states, found = [state_of(run) for run in runs], state_of(path)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, torch.stack([state[name].double() for state in states]).mean(0).float())
    assert set(soup.kept.runs) == {str(run) for run in runs}


def test_a_greedy_soup_is_never_worse_than_the_best_run_on_validation(runs, tmp_path):
    soup, path = make_soup(runs, out=tmp_path / "soup")
    assert right_of(path).mean() == pytest.approx(soup.greedy.accuracy.value)
    assert soup.greedy.accuracy.value >= max(right_of(run).mean() for run in runs)
    states = [state_of(run) for run in runs if str(run) in soup.greedy.runs]
    for name, tensor in state_of(path).items():
        torch.testing.assert_close(tensor, torch.stack([state[name].double() for state in states]).mean(0).float())


def test_a_soup_of_one_is_that_run_to_the_bit(runs, tmp_path, monkeypatch):
    monkeypatch.setattr("finevote.soup.run.choose_greedily", lambda accuracies, _: (int(np.argmax(accuracies)),))
    soup, path = make_soup(runs, out=tmp_path / "soup")
    best = Path(soup.members[0].run)
    assert soup.greedy.runs == (str(best),)
    assert all(torch.equal(tensor, state_of(path)[name]) for name, tensor in state_of(best).items())
    assert any("alone" in note for note in soup.notes())


def test_every_run_and_both_soups_stand_with_their_tests_beside_the_best(runs, tmp_path):
    soup, _ = make_soup(runs, out=tmp_path / "soup")
    accuracies = {str(run): right_of(run).mean() for run in runs}
    assert {row.run: row.accuracy.value for row in soup.members} == pytest.approx(accuracies)
    assert [row.accuracy.value for row in soup.members] == sorted(accuracies.values(), reverse=True)
    uniform = make_soup(runs, kind="uniform", out=tmp_path / "uniform")[1]
    expected = paired_test(right_of(Path(soup.members[0].run)), right_of(uniform))
    assert (soup.uniform.only_run, soup.uniform.only_soup, soup.uniform.p_value) == tuple(expected)
    assert soup.uniform.difference.low <= soup.uniform.difference.value <= soup.uniform.difference.high


def test_a_soup_is_a_run_that_is_calibrated_and_can_be_measured_and_used(runs, tmp_path):
    soup, path = make_soup(runs, kind="uniform", out=tmp_path / "soup")
    bundle = load_bundle(path / "bundle")
    assert bundle.calibration is not None
    assert len(bundle.calibration.labels) == soup.num_images
    assert evaluate(path).top_1.value == pytest.approx(soup.uniform.accuracy.value)
    report = evaluate(path, split="test")
    assert report.num_test_openings == 1
    assert report.setting.startswith("uniform average of 3 of 3 runs; each trained on")


def test_the_bundle_tells_its_ingredients_with_their_hashes_and_no_place(runs, tmp_path):
    _, path = make_soup(runs, out=tmp_path / "soup")
    details = read_manifest(path / "bundle").details
    hashes = {run.name: read_manifest(run / "bundle").files[WEIGHTS_NAME].sha256 for run in runs}
    assert {row["run"]: row["weights_sha256"] for row in details["soup"]["ingredients"]} == hashes
    assert str(tmp_path) not in json.dumps(details["soup"])
    saved = json.loads((path / "soup.json").read_text())
    assert saved["greedy"]["kind"] == "greedy"
    assert len(saved["members"]) == 3


def test_the_test_split_is_not_opened_and_earlier_openings_are_told(runs, tmp_path):
    evaluate(runs[1], split="test")
    soup, path = make_soup(runs, out=tmp_path / "soup")
    assert [RunFolder(run).test_ledger_jsonl.is_file() for run in (*runs, path)] == [False, True, False, False]
    assert any(f"{runs[1]} 1" in note for note in soup.notes())


def test_a_bundle_without_votes_is_averaged_too(runs, tmp_path):
    def plain(config):
        voting = config.model.voting.model_copy(update={"enabled": False})
        return changed(config, "model", voting=voting)

    for seed, run in enumerate(runs):
        rebuild(run, seed=seed, change=plain)
    _, path = make_soup(runs, kind="uniform", out=tmp_path / "soup")
    assert load_bundle(path / "bundle").model.budget is None


def voting(**values):
    return lambda config: changed(config, "model", voting=config.model.voting.model_copy(update=values))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (voting(num_votes_per_head=5), "model.voting.num_votes_per_head is 4 and 5"),
        (voting(keep_rate=0.5), r"model.voting.keep_rate is 1.0 and 0.5"),
        (lambda config: changed(config, "data", image_size=40, resize=48), r"preprocessing.image_size is \(32, 32\)"),
        (lambda config: changed(config, "data", resize=64), r"preprocessing.resize is .* and \(64, 64\)"),
    ],
)
def test_runs_of_another_architecture_are_refused(runs, tmp_path, change, named):
    rebuild(runs[1], seed=1, change=change)
    with pytest.raises(ArgumentError, match=rf"run-0 and .*run-1 are not of one architecture \(.*{named}"):
        make_soup(runs, out=tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_runs_that_differ_in_how_they_were_trained_are_averaged(runs, tmp_path):
    rebuild(runs[1], seed=1, change=lambda config: changed(config, "model", dropout=0.3, drop_path=0.0))
    assert make_soup(runs, out=tmp_path / "soup")[1].is_dir()


@pytest.mark.parametrize(
    ("names", "what"), [(("blue", "green", "rot"), "only one has .*red.*rot"), (CLASSES[::-1], "in another order")]
)
def test_runs_of_other_classes_are_refused(runs, names, what):
    rebuild(runs[1], seed=1, class_names=names)
    with pytest.raises(ArgumentError, match=rf"different classes \(3 and 3; {what}"):
        make_soup(runs)


@pytest.mark.parametrize("split", ["train", "val"])
def test_runs_that_were_divided_differently_are_refused(runs, split):
    path = runs[2] / "split.json"
    divided = json.loads(path.read_text())
    moved = divided["splits"][split].pop()
    path.write_text(json.dumps(divided))
    with pytest.raises(DataError, match=f"different {split} splits .*only one has .*{moved}.*data.validation_seed"):
        make_soup(runs)


def test_a_run_without_validation_is_refused(runs):
    path = runs[0] / "split.json"
    divided = json.loads(path.read_text())
    del divided["splits"]["val"]
    path.write_text(json.dumps(divided))
    with pytest.raises(DataError, match="was trained without validation, by which a soup is chosen"):
        make_soup(runs)


def test_one_run_is_no_soup(runs):
    with pytest.raises(ArgumentError, match="give at least two"):
        make_soup(runs[:1])


def test_a_run_or_its_copy_counts_once(runs, tmp_path):
    copy = shutil.copytree(runs[0], tmp_path / "copy")
    for again in (runs[0], copy):
        with pytest.raises(ArgumentError, match="has the very weights of"):
            make_soup([runs[0], again])


def test_a_changed_weight_is_noticed(runs):
    path = runs[1] / "bundle" / WEIGHTS_NAME
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="was changed"):
        make_soup(runs)


def test_a_place_that_is_taken_is_refused_before_anything_is_read(runs):
    with pytest.raises(RunError, match="already holds a run"):
        make_soup(runs, out=runs[0])


def test_a_soup_cannot_be_trained_on(runs, tmp_path):
    from finevote.training.fit import resume

    _, path = make_soup(runs, out=tmp_path / "soup")
    with pytest.raises(RunError, match="is finished"):
        resume(path)


def test_the_command_prints_all_and_what_to_do_next(run, runs, tmp_path):
    code, out, _ = run("soup", *runs, "--out", tmp_path / "soup")
    assert code == 0
    for text in ("95% interval", "uniform soup of 3", "greedy soup", "chosen on them too", "--split test"):
        assert text in " ".join(out.split())


def test_a_soup_of_soups_can_be_made(runs, tmp_path):
    _, first = make_soup(runs[:2], kind="uniform", out=tmp_path / "first")
    assert make_soup([first, runs[2]], kind="uniform", out=tmp_path / "second")[1].is_dir()


def test_added_classes_are_left_out_and_said_to_be(runs, tmp_path, caplog):
    make_photographs(tmp_path / "new", num_train=3, num_val=1)
    (tmp_path / "new" / "train" / "red").rename(tmp_path / "teal")
    add_classes(runs[0], tmp_path / "teal")
    soup, path = make_soup(runs, kind="uniform", out=tmp_path / "soup")
    assert "the classes added to" in caplog.text
    assert load_bundle(path / "bundle").all_class_names == CLASSES
    assert right_of(path).mean() == pytest.approx(soup.uniform.accuracy.value)


def test_another_kind_is_refused(runs):
    with pytest.raises(ArgumentError, match="there is no soup of kind 'fish'"):
        make_soup(runs, kind="fish")
