import hashlib

import numpy as np
import pytest
from PIL import Image

from finevote.data.fingerprints import hash_pixels, perceptual_hash, take_fingerprints
from finevote.data.images import read_record
from finevote.data.synthetic import synthetic_source
from finevote.types import Record


@pytest.fixture(scope="module")
def bird():
    source = synthetic_source(splits=["val"])
    return source.read(source.splits["val"][0])


def take(paths):
    return take_fingerprints([Record(path.name, 0, path) for path in paths], read=read_record)


def test_the_file_hash_is_of_its_bytes(paint, tmp_path):
    path = paint(tmp_path / "a.png")
    (found,) = take([path]).prints
    assert found.file_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_pixels_in_another_format_have_the_same_pixel_hash(bird, tmp_path):
    for name in ("a.png", "b.bmp"):
        bird.save(tmp_path / name)
    first, second = take([tmp_path / "a.png", tmp_path / "b.bmp"]).prints
    assert first.pixels_hash == second.pixels_hash
    assert first.file_sha256 != second.file_sha256


def test_pixels_in_another_shape_have_another_hash():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    first, second = Image.fromarray(pixels), Image.fromarray(pixels.reshape(6, 4, 3))
    assert hash_pixels(first) != hash_pixels(second)


def test_the_perceptual_hash_survives_resizing(bird):
    hashes = [perceptual_hash(bird.resize((side, side))) for side in (64, 128, 256)]
    assert all((one ^ hashes[1]).bit_count() <= 6 for one in hashes)


def test_a_picture_in_which_nothing_is_seen_has_no_perceptual_hash(tmp_path):
    Image.new("RGB", (90, 90), "white").save(tmp_path / "white.png")
    (found,) = take([tmp_path / "white.png"]).prints
    assert found.perceptual_hash is None
    assert [oddity.kind for oddity in found.oddities] == ["constant"]


def test_unreadable_images_are_told_and_the_others_keep_their_rows(paint, tmp_path):
    (tmp_path / "broken.png").write_bytes(paint(tmp_path / "whole.png").read_bytes()[:60])
    paths = [tmp_path / "missing.png", paint(tmp_path / "a.png"), tmp_path / "broken.png", paint(tmp_path / "b.png")]
    found = take(paths)
    assert found.rows == (1, 3)
    assert set(found.unreadable) == {0, 2}
    assert "missing.png" in found.unreadable[0]


def test_an_oddity_that_file_and_picture_tell_is_told_once(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "grey.png")
    (found,) = take([tmp_path / "grey.png"]).prints
    assert [oddity.kind for oddity in found.oddities] == ["grey"]


def test_images_that_are_drawn_have_no_file_hash_and_progress_is_told():
    source = synthetic_source(splits=["val"], images_per_class={"val": 1})
    done = []
    found = take_fingerprints(source.splits["val"], read=source.read, advance=done.append)
    assert sum(done) == len(found.prints) == 12
    assert {one.file_sha256 for one in found.prints} == {None}
    assert found.prints[0].thumbnail.shape == (64, 64, 3)
