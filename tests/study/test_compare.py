"""Comparing runs: real predictions of tiny untrained runs, whose logits are then set to what a test needs."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finevote.bundle.record import record_keep_rate
from finevote.errors import ArgumentError, DataError, RunError
from finevote.evaluation.paired import paired_test
from finevote.evaluation.predictions import load_predictions, save_predictions
from finevote.measure.evaluate import evaluate
from finevote.study.compare import compare, compare_contestants
from finevote.study.comparison import verdict
from finevote.study.contestants import Album, Contestant, Measured
from finevote.types import DataSource, Predictions, Record
from tests.tiny import write_photographs, write_run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    data = write_photographs(root / "data", num_test=4)
    write_run(root / "one", data=data)
    evaluate(root / "one")
    return root / "one"


@pytest.fixture
def copy(made, tmp_path):
    """Return a function that makes a run: seed, merging, and which of the nine validation images it names right."""

    def make(name, *, right=None, seed=0, merge=False):
        run = shutil.copytree(made, tmp_path / name)
        text = (run / "config.yaml").read_text()
        text = text.replace("  seed: 0\n", f"  seed: {seed}\n").replace("merge: false", f"merge: {str(merge).lower()}")
        (run / "config.yaml").write_text(text)
        if right is not None:
            answer(run, right)
        return run

    return make


def answer(run, right, order=None):
    path = run / "evaluation" / "val" / "predictions.npz"
    saved, names = load_predictions(path)
    rows = np.arange(len(saved.labels)) if order is None else order
    told = np.where(np.asarray(right, bool), saved.labels, (saved.labels + 1) % 3)
    logits = np.eye(3, dtype=np.float32)[told][rows]
    ids = tuple(saved.image_ids[row] for row in rows)
    save_predictions(path, Predictions(ids, saved.labels[rows], logits), names)


def ledger(run):
    path = run / "test_ledger.jsonl"
    return path.read_text().splitlines() if path.exists() else []


FIRST, SECOND = [1, 1, 1, 1, 0, 0, 0, 0, 1], [1, 1, 1, 0, 1, 1, 1, 1, 1]


@pytest.fixture
def pair(copy):
    return copy("a", right=FIRST), copy("b", right=SECOND, merge=True)


def test_two_runs_are_paired_image_by_image(pair, tmp_path):
    found, folder = compare(pair, out=tmp_path / "out")
    duel = found.duels[0]
    assert (duel.only_first, duel.only_other) == (1, 4)
    assert duel.difference == pytest.approx(3 / 9)
    assert duel.p_value == pytest.approx(2 * (1 + 5) / 2**5)
    assert duel.low < 3 / 9 < duel.high
    assert duel.macro == pytest.approx((3 / 9, duel.low, duel.high))  # three images of each class
    assert [row.accuracy for row in found.standings] == pytest.approx([5 / 9, 8 / 9])
    assert json.loads((folder / "comparison.json").read_text()) == json.loads(json.dumps(found.to_dict()))


def test_the_order_of_saved_images_does_not_matter(copy, tmp_path):
    one, two = copy("a", right=FIRST), copy("b", merge=True)
    answer(two, SECOND, order=np.arange(9)[::-1])
    assert (compare([one, two], out=tmp_path / "out")[0].duels[0][7:10]) == ("McNemar, exact", 1, 4)


def test_classes_tell_what_they_gain_and_lose(pair, tmp_path):
    _, folder = compare(pair, out=tmp_path / "out")
    with (folder / "classes.csv").open() as file:
        rows = [(row["class_name"], row["num_images"], row["gained"], row["lost"]) for row in csv.DictReader(file)]
    assert rows == [("blue", "3", "0", "0"), ("green", "3", "2", "1"), ("red", "3", "2", "0")]


def test_images_that_flipped_are_drawn(pair, tmp_path):
    _, folder = compare(pair, out=tmp_path / "out")
    with Image.open(folder / "flipped_1.png") as picture:
        assert picture.width > picture.height > 500


def test_runs_that_answer_alike_differ_by_nothing_and_flip_nothing(copy, tmp_path):
    found, folder = compare([copy("a"), copy("b", merge=True)], out=tmp_path / "out")
    assert (found.duels[0].difference, found.duels[0].p_value) == (0, 1)
    assert not list(folder.glob("*.png"))


def test_seeds_of_one_recipe_are_taken_together(copy, tmp_path):
    plain = [copy(f"plain{seed}", right=FIRST, seed=seed) for seed in range(2)]
    merging = [copy(f"merge{seed}", right=SECOND, seed=seed, merge=True) for seed in range(3)]
    found, _ = compare([*plain, *merging], out=tmp_path / "out")
    assert [row.name for row in found.standings] == ["model.voting.merge=false", "model.voting.merge=true"]
    assert [row.seeds for row in found.standings] == [(0, 1), (0, 1, 2)]
    assert found.duels[0].difference == pytest.approx(3 / 9)
    assert found.duels[0].only_first is None


def test_seeds_alone_are_compared_and_summarised(copy, tmp_path):
    runs = [copy("a", right=FIRST), copy("b", right=SECOND, seed=1)]
    found, _ = compare(runs, out=tmp_path / "out")
    assert [row.seeds for row in found.standings] == [(0,), (1,), (0, 1)]
    assert found.standings[2].sd == pytest.approx(np.std([5 / 9, 8 / 9], ddof=1))
    assert len(found.duels) == 1


def test_a_seed_that_comes_twice_is_told(copy, tmp_path):
    found, _ = compare([copy("a", right=FIRST), copy("b", right=SECOND)], out=tmp_path / "out")
    assert "a seed comes twice among its runs, so their spread is not that between seeds" in found.notes[-1]
    found, _ = compare([copy("c", right=FIRST, seed=2), copy("d", right=SECOND, seed=3)], out=tmp_path / "other")
    assert not any("comes twice" in note for note in found.notes)


def test_runs_at_another_keep_rate_are_no_seeds_of_one_recipe(copy, tmp_path):
    runs = [copy("a", right=FIRST), copy("b", seed=1)]
    record_keep_rate(runs[1] / "bundle", 0.5, details={})
    found, _ = compare(runs, out=tmp_path / "out")
    assert [row.seeds for row in found.standings] == [(0,), (1,)]


def test_p_values_are_adjusted_for_the_number_of_comparisons(copy, tmp_path):
    runs = [copy("a", right=FIRST), copy("b", right=SECOND, merge=True), copy("c", right=SECOND, seed=1, merge=True)]
    settings = (runs[2] / "config.yaml").read_text().replace("num_selected: 12", "num_selected: 13")
    (runs[2] / "config.yaml").write_text(settings)
    found, _ = compare(runs, out=tmp_path / "out")
    assert [duel.p_adjusted for duel in found.duels] == pytest.approx([0.75, 0.75])


def test_runs_on_different_validation_splits_are_refused(copy, tmp_path):
    one, two = copy("a"), copy("b")
    divided = json.loads((two / "split.json").read_text())
    divided["splits"]["train"].append(divided["splits"]["val"].pop())
    (two / "split.json").write_text(json.dumps(divided))
    with pytest.raises(
        DataError, match=r"different val splits \(9 and 8 images; only one has 1 image: .*validation_seed"
    ):
        compare([one, two], out=tmp_path / "out")


def test_predictions_of_other_images_are_refused(copy, tmp_path):
    one, two = copy("a"), copy("b")
    saved, names = load_predictions(two / "evaluation" / "val" / "predictions.npz")
    few = Predictions(saved.image_ids[:-1], saved.labels[:-1], saved.logits[:-1])
    save_predictions(two / "evaluation" / "val" / "predictions.npz", few, names)
    with pytest.raises(DataError, match="different val splits"):
        compare([one, two], out=tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("protocol", "other", "the protocol None, .*b other"),
        ("class_names", ["x", "y"], "3 classes that are not the 2"),
        ("data", "elsewhere", "b to elsewhere: their figures cannot be compared, unless"),
    ],
)
def test_runs_on_other_data_are_refused_before_the_test_split_is_opened(copy, tmp_path, name, value, message):
    one, two = copy("a"), copy("b")
    saved = json.loads((two / "data.json").read_text())
    (two / "data.json").write_text(json.dumps({**saved, name: value}))
    with pytest.raises(DataError, match=message):
        compare([one, two], split="test", out=tmp_path / "out")
    assert ledger(one) == ledger(two) == []


def test_comparing_on_test_is_entered_in_both_ledgers_once(copy, tmp_path):
    runs = copy("a"), copy("b", merge=True)
    found, _ = compare(runs, split="test", out=tmp_path / "first")
    assert set(found.num_test_openings.values()) == {1}
    compare(runs, split="test", out=tmp_path / "second")  # from the predictions that are there
    assert [len(ledger(run)) for run in runs] == [1, 1]
    assert "test split opened once with each of the 2 runs" in found.all_notes()
    counts = dict(zip(found.num_test_openings, (1, 3), strict=True))
    first, second = counts
    assert (
        f"test split opened once with {first}, 3 times with {second}"
        in replace(found, num_test_openings=counts).all_notes()
    )


def test_lines_of_a_ledger_that_cannot_be_read_are_told_with_their_run(copy, tmp_path):
    runs = copy("a"), copy("b", merge=True)
    (runs[1] / "test_ledger.jsonl").write_text("junk\n")
    found, _ = compare(runs, split="test", out=tmp_path / "out")
    assert found.num_test_openings == {str(runs[0]): 1, str(runs[1]): 2}
    notes = [note for note in found.notes if "ledger" in note]
    assert notes == [f"{runs[1]}: 1 line of the ledger could not be read and counts as an opening"]


def test_without_the_images_there_is_no_picture_and_it_is_said(pair, tmp_path):
    for run in pair:
        saved = json.loads((run / "data.json").read_text())
        (run / "data.json").write_text(json.dumps({**saved, "data": str(tmp_path / "gone")}))
    found, folder = compare(pair, out=tmp_path / "out")
    assert "no pictures, and images drawn one by one" in found.notes[0]
    assert not list(folder.glob("*.png"))


def test_one_run_cannot_be_compared(copy, tmp_path):
    run = copy("a")
    with pytest.raises(ArgumentError, match="at least two runs"):
        compare([run])
    with pytest.raises(ArgumentError, match="is given twice"):
        compare([run, run], out=tmp_path / "out")


def test_an_unfinished_run_is_refused(copy, tmp_path):
    one, two = copy("a"), copy("b")
    shutil.rmtree(two / "bundle")
    with pytest.raises(RunError, match=r"b is not finished: go on with `finevote fit --resume"):
        compare([one, two], out=tmp_path / "out")


def test_the_command_prints_the_difference_and_where_it_lies(pair, tmp_path, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, printed, _ = run("compare", *pair, "--out", tmp_path / "out")
    assert code == 0
    assert "+33.33" in printed
    assert "no difference shown" in printed
    assert printed.rstrip().endswith(str(tmp_path / "out"))


def test_data_that_has_moved_can_be_named(copy, tmp_path):
    one, two = copy("a", right=FIRST), copy("b", right=SECOND, merge=True)
    saved = json.loads((two / "data.json").read_text())
    (two / "data.json").write_text(json.dumps({**saved, "data": "elsewhere"}))
    found, _ = compare([one, two], data=saved["data"], out=tmp_path / "out")
    assert found.duels[0].only_other == 4


def contestant(name, right):
    predictions = Predictions(tuple(map(str, range(len(right)))), np.arange(len(right)) % 4, np.zeros((len(right), 4)))
    run = Measured(Path(name), {"training.seed": 0}, predictions, tuple("abcd"), "", right)
    return Contestant(name, (run,))


def compared(first, second):
    (duel,) = compare_contestants(
        [contestant("one", first), contestant("two", second)], split="val", album="no data"
    ).duels
    return verdict(duel)


def test_images_of_one_subject_count_as_one():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 60)) < [[0.6], [0.8]]
    of_images = [contestant(name, right) for name, right in (("one", first), ("two", second))]
    of_subjects = [contestant(name, np.repeat(right, 4)) for name, right in (("one", first), ("two", second))]
    records = {str(row): Record(str(row), 0, group=f"bird {row // 4}") for row in range(240)}
    album = Album(DataSource("birds", tuple("abcd"), {}, read=None), records, view=None)
    (alone,) = compare_contestants(of_images, split="val", album="no data").duels
    found = compare_contestants(of_subjects, split="val", album=album)
    (together,) = found.duels
    assert found.num_groups == 60
    assert together.p_value == pytest.approx(alone.p_value)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    assert (alone.test, together.test) == ("McNemar, exact", "signs of subjects, exact")
    assert together.only_other == 4 * alone.only_other


def test_two_identical_models_show_no_difference():
    rng = np.random.default_rng(0)
    for _ in range(20):
        right = rng.random(200) < rng.random()
        assert compared(right, right.copy()) == "no difference shown"


@pytest.mark.slow
def test_two_equally_good_models_show_no_difference_in_at_least_95_of_100():
    rng = np.random.default_rng(0)
    different = 0
    for _ in range(4000):
        ease = rng.beta(4, 1, 300)  # each image is as easy for the one as for the other
        first, second = rng.random((2, 300)) < ease
        # Without a p-value below 5% no difference is shown, so that only these comparisons need be made in full.
        different += paired_test(first, second).p_value < 0.05 and compared(first, second) != "no difference shown"
    assert different <= 200
