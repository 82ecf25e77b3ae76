import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from finevote.data.images import read_record
from finevote.errors import DataError
from finevote.probe.cache import FeatureCache, name_images
from finevote.types import Record

FEATURES = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture
def photograph(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photograph.png")
    return tmp_path / "photograph.png"


def name_of(record, *, read=read_record):
    return name_images([record], read=read)[0]


def test_what_was_kept_is_found_again(tmp_path):
    FeatureCache("space", dim=4, folder=tmp_path).save("name", FEATURES)
    assert np.array_equal(FeatureCache("space", dim=4, folder=tmp_path).load("name"), FEATURES)


def test_by_default_it_lies_in_the_user_s_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    FeatureCache("space", dim=4).save("name", FEATURES)
    assert [path.name for path in (tmp_path / "finevote" / "features" / "space").rglob("*.npz")] == ["name.npz"]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other shape", "pickle"])
def test_a_damaged_entry_counts_as_none(tmp_path, damage):
    cache = FeatureCache("space", dim=4, folder=tmp_path)
    cache.save("name", FEATURES)
    (entry,) = tmp_path.rglob("*.npz")
    content = entry.read_bytes()
    place = content.index(FEATURES.tobytes()) + 5
    if damage == "other shape":
        np.savez(entry, features=FEATURES[:1])
    elif damage == "pickle":
        np.savez(entry, features=np.array([{"a": 1}], object))
    else:
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        entry.write_bytes({"cut": content[: len(content) // 2], "changed": changed, "empty": b""}[damage])
    assert cache.load("name") is None


def test_spaces_do_not_share_features(tmp_path):
    FeatureCache("one", dim=4, folder=tmp_path).save("name", FEATURES)
    assert FeatureCache("other", dim=4, folder=tmp_path).load("name") is None


def test_a_place_that_cannot_be_written_is_told_once_and_stops_nothing(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    cache = FeatureCache("space", dim=4, folder=tmp_path / "file")
    with caplog.at_level(logging.WARNING, logger="finevote"):
        cache.save("name", FEATURES)
        cache.save("other", FEATURES)
    assert [record.message.startswith("features are not kept: cannot write") for record in caplog.records] == [True]


def test_an_image_is_named_by_its_content_and_nothing_else(photograph):
    copy = shutil.copy(photograph, photograph.with_name("copy.png"))
    name = name_of(Record("one", 0, photograph))
    assert name == name_of(Record("two", 1, copy, group="g"))
    copy.write_bytes(copy.read_bytes() + b"\0")
    assert name != name_of(Record("two", 1, copy))


def test_an_image_whose_banner_is_cut_off_is_another(photograph):
    assert name_of(Record("one", 0, photograph)) != name_of(Record("one", 0, photograph, banner_px=2))


def test_an_image_that_is_no_file_is_named_by_its_pixels():
    images = {"one": Image.new("RGB", (9, 9), "red"), "two": Image.new("RGB", (9, 9), "blue")}
    names = [name_of(Record(image_id, 0), read=lambda record: images[record.image_id]) for image_id in images]
    images["two"] = images["one"].copy()
    assert names[0] != names[1]
    assert name_of(Record("two", 0), read=lambda record: images[record.image_id]) == names[0]


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(DataError, match=r"cannot read the image .*gone.png: No such file"):
        name_of(Record("one", 0, tmp_path / "gone.png"))
