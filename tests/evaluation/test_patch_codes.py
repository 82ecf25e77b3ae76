import numpy as np
import pytest
import torch

from finevote.evaluation import patch_codes
from finevote.evaluation.patch_codes import learn_codebook, patch_features


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(patch_codes, "NUM_CODES", 24)
    monkeypatch.setattr(patch_codes, "_NUM_SAMPLED", 600)


@pytest.fixture
def thumbnails():
    return np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)


def test_one_patch_is_coded_as_a_loop_codes_it(thumbnails):
    images = torch.from_numpy(thumbnails).permute(0, 3, 1, 2)
    book = learn_codebook(images, seed=0)
    expected = np.zeros((24, 27, 27))
    for row in range(27):
        for column in range(27):
            patch = images[0, :, 2 * row : 2 * row + 12, 2 * column : 2 * column + 12].numpy().ravel() / 255.0
            patch = (patch - patch.mean()) / np.sqrt(patch.var() + 1e-3)
            whitened = book.whitening.numpy() @ (patch - book.mean.numpy())
            cosines = book.centres.numpy() @ (whitened / np.linalg.norm(whitened))
            expected[:, row, column] = np.maximum(cosines - 0.25, 0)
    codes = book.encode(images[:1]).reshape(24, 3, 3)
    thirds = (slice(0, 9), slice(9, 18), slice(18, 27))
    for i, rows in enumerate(thirds):
        for j, columns in enumerate(thirds):
            np.testing.assert_allclose(codes[:, i, j], expected[:, rows, columns].max(axis=(1, 2)), atol=2e-4)


def test_the_second_view_is_the_mirror_images(thumbnails):
    views = patch_features(thumbnails)
    mirrored = np.concatenate([thumbnails, thumbnails[:, :, ::-1]])
    again = patch_features(mirrored)
    assert views.shape == (2, 10, 9)
    np.testing.assert_allclose(again[1, :10], again[0, 10:], atol=1e-4)


def test_features_depend_on_the_seed_only(thumbnails):
    first, second, other = (patch_features(thumbnails, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)


def test_no_more_features_than_asked_for_are_kept_and_progress_is_told(thumbnails):
    done = []
    assert patch_features(thumbnails, num_features=4, advance=done.append).shape == (2, 10, 4)
    assert sum(done) == 10


@pytest.mark.parametrize("num_pictures", [2, 30])
def test_pictures_of_one_colour_are_coded_without_a_warning(num_pictures):
    thumbnails = np.full((num_pictures, 64, 64, 3), 120, np.uint8)
    assert np.isfinite(patch_features(thumbnails)).all()
