import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from finevote.data.flowers102 import FLOWERS102
from finevote.data.registry import open_source
from finevote.errors import DataError


@pytest.fixture
def flowers(tmp_path, paint):
    """Write eight images in the official layout: numbers and classes count from 1."""

    def write(labels=(1, 1, 2, 2, 102, 102, 1, 2), **changes):
        splits = {"trnid": [5, 1, 3], "valid": [2, 4], "tstid": [6, 7, 8]} | changes
        savemat(tmp_path / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
        savemat(tmp_path / "setid.mat", {key: np.array([value], np.uint16) for key, value in splits.items() if value})
        for number in range(1, 9):
            paint(tmp_path / "jpg" / f"image_{number:05d}.jpg")
        return tmp_path

    return write


def test_numbers_and_labels_count_from_one_in_the_files_and_from_zero_here(flowers):
    source = open_source(flowers(), splits=("train", "val", "test"))
    assert [(record.image_id, record.label) for record in source.splits["train"]] == [
        ("jpg/image_00001.jpg", 0),
        ("jpg/image_00003.jpg", 1),
        ("jpg/image_00005.jpg", 101),
    ]
    assert [record.label for record in source.splits["val"]] == [0, 1]
    assert [record.label for record in source.splits["test"]] == [101, 0, 1]
    assert (source.class_names[0], source.class_names[101], len(source.class_names)) == (
        "pink primrose",
        "blackberry lily",
        102,
    )


def test_fit_looks_at_no_test_image(flowers):
    root = flowers()
    for number in (6, 7, 8):
        (root / "jpg" / f"image_{number:05d}.jpg").unlink()
    assert set(open_source(root, splits=("train", "val")).splits) == {"train", "val"}
    with pytest.raises(DataError, match=r"lacks 3 images: jpg/image_00006\.jpg, .*unpack its archive again"):
        open_source(root, splits=("test",))


def test_a_cut_mat_file_is_told(flowers):
    root = flowers()
    path = root / "setid.mat"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"cannot read .*setid\.mat: .*fetch the file again"):
        open_source(root, splits=("train",))


def test_a_mat_file_without_the_split_is_told(flowers):
    with pytest.raises(DataError, match=r"setid\.mat has no array 'valid'"):
        open_source(flowers(valid=None), splits=("train", "val"))


def test_an_image_number_without_label_is_told(flowers):
    with pytest.raises(DataError, match="names image 9, but there are 8 labels"):
        open_source(flowers(trnid=[1, 9]), splits=("train",))


def test_labels_outside_the_classes_are_told(flowers):
    with pytest.raises(DataError, match="labels outside 1 to 102"):
        open_source(flowers(labels=(0, 1, 2, 2, 2, 2, 1, 2)), splits=("train",))


def test_the_real_photographs_are_read_by_the_reader_of_the_archive():
    root = Path(os.environ.get("FINEVOTE_FLOWERS102", Path(__file__).parents[3] / "shared" / "flowers102"))
    if FLOWERS102.find(root) is None:
        pytest.skip(
            "Flowers-102 is not in ../shared/flowers102: put it there, or set FINEVOTE_FLOWERS102 to its folder"
        )
    source = open_source(f"flowers102@{root}", splits=("train", "val"))
    assert (source.name, source.protocol) == ("flowers102", "official")
    assert source.notes == ("photographs 7309 and 8067 of test are the same as 7307 of train and 8077 of val",)
    for split in ("train", "val"):
        counts = Counter(record.label for record in source.splits[split])
        assert counts == dict.fromkeys(range(102), 10)
    assert source.read(source.splits["train"][0]).mode == "RGB"
