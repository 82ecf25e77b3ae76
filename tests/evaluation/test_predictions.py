import numpy as np
import pytest

from finevote.errors import RunError
from finevote.evaluation.predictions import load_predictions, save_predictions
from finevote.types import Predictions

CLASSES = ("été", "snow bunting")


def table(**changes):
    fields = {
        "image_ids": ("a/1.jpg", "ü/2.jpg", "3"),
        "labels": np.array([0, 1, -1]),
        "logits": np.arange(6, dtype=np.float32).reshape(3, 2) / 7,
        "final_votes": np.ones((3, 6), np.float32),
        "grid": (2, 3),
        "embeddings": np.full((3, 4), 0.1, np.float32),
        "most_voted": np.array([5, 0, 2]),
    }
    return Predictions(**fields | changes)


def assert_same(got, expected):
    assert got.image_ids == expected.image_ids
    assert got.grid == expected.grid
    for name in ("labels", "logits", "final_votes", "embeddings", "most_voted"):
        mine, theirs = getattr(got, name), getattr(expected, name)
        if theirs is None:
            assert mine is None
        else:
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype


@pytest.mark.parametrize(
    "changes", [{}, {"final_votes": None, "grid": None, "most_voted": None}, {"embeddings": None, "most_voted": None}]
)
def test_what_is_saved_is_loaded_again(tmp_path, changes):
    save_predictions(tmp_path / "val.npz", table(**changes), CLASSES)
    got, class_names = load_predictions(tmp_path / "val.npz")
    assert_same(got, table(**changes))
    assert class_names == CLASSES


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(
        RunError, match=r"no predictions at .*val.npz: measure the split again with `finevote evaluate`"
    ):
        load_predictions(tmp_path / "val.npz")
    with pytest.raises(RunError, match=r"no predictions at .*val.npz: do it again$"):
        load_predictions(tmp_path / "val.npz", advice="do it again")


def test_a_file_cut_in_half_is_refused(tmp_path):
    path = tmp_path / "val.npz"
    save_predictions(path, table(), CLASSES)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(RunError, match=r"cannot read the predictions .*val.npz"):
        load_predictions(path)


def test_a_damaged_byte_is_noticed(tmp_path):
    path = tmp_path / "val.npz"
    save_predictions(path, table(), CLASSES)
    content = bytearray(path.read_bytes())
    content[content.find(b"logits.npy") + 60] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(RunError, match="cannot read the predictions"):
        load_predictions(path)


def test_pickled_objects_are_refused(tmp_path):
    path = tmp_path / "val.npz"
    np.savez(path, image_ids=np.array([{"run": "code"}], dtype=object))
    with pytest.raises(RunError, match="allow_pickle=False"):
        load_predictions(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": np.array(2)}, "format_version is 2, but this finevote reads 1"),
        ({"labels": np.zeros(2, np.int64)}, r"labels is \(2,\), not \(3,\)"),
        ({"class_names": np.array(["one"])}, r"logits is \(3, 2\), not \(3, 1\)"),
        ({"grid": np.array([2, 2])}, r"final_votes is \(3, 6\), not \(3, 4\)"),
        ({"extra": np.zeros(1)}, "unknown extra"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, change, message):
    path = tmp_path / "val.npz"
    save_predictions(path, table(), CLASSES)
    with np.load(path) as file:
        np.savez(tmp_path / "changed.npz", **dict(file) | change)
    with pytest.raises(RunError, match=message):
        load_predictions(tmp_path / "changed.npz")


def test_an_array_that_is_missing_is_named(tmp_path):
    np.savez(tmp_path / "val.npz", format_version=1, labels=np.zeros(1))
    with pytest.raises(RunError, match="no class_names, image_ids, logits"):
        load_predictions(tmp_path / "val.npz")


def test_nobody_is_advised_to_run_what_a_file_holds(tmp_path):
    (tmp_path / "val.npz").write_bytes(b"junk")
    with pytest.raises(RunError, match=r"it is no whole \.npz of plain arrays") as caught:
        load_predictions(tmp_path / "val.npz")
    assert "pickle" not in str(caught.value)
