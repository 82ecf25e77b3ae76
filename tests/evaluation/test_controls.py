import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from finevote.errors import ArgumentError
from finevote.evaluation.controls import color_histogram, color_histogram_accuracy


@given(seed=st.integers(0, 1000), bins=st.sampled_from([2, 3, 8, 16]))
def test_histogram_agrees_with_numpy(seed, bins):
    image = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    edges = [np.linspace(0, 256, bins + 1)] * 3
    expected, _ = np.histogramdd(image.reshape(-1, 3), bins=edges)
    np.testing.assert_allclose(color_histogram(image, bins=bins), expected.ravel() / 35)


def test_histogram_forgets_where_a_colour_stands():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    shuffled = np.random.default_rng(1).permutation(image.reshape(-1, 3)).reshape(8, 8, 3)
    np.testing.assert_array_equal(color_histogram(image), color_histogram(shuffled))


def test_histogram_reads_pil_images():
    image = Image.new("RGB", (4, 3), (255, 0, 0))
    assert color_histogram(image, bins=2).tolist() == [0, 0, 0, 0, 1, 0, 0, 0]


def test_classes_of_different_colour_are_told_apart():
    generator = np.random.default_rng(0)
    labels = [0, 1] * 10
    images = [generator.integers(128 * label, 128 * label + 128, (6, 6, 3), dtype=np.uint8) for label in labels]
    assert color_histogram_accuracy(images[:10], labels[:10], images[10:], labels[10:]) == 1.0


def test_classes_that_differ_in_shape_alone_are_not_told_apart():
    stripes = np.zeros((8, 8, 3), dtype=np.uint8)
    stripes[::2] = 255
    images, labels = [stripes, stripes.transpose(1, 0, 2)] * 6, [0, 1] * 6
    assert color_histogram_accuracy(images[:6], labels[:6], images[6:], labels[6:]) == 0.5


def test_grey_images_are_refused():
    with pytest.raises(ArgumentError, match=r"expected a uint8 RGB image \(h, w, 3\), but got uint8 \(4, 4\)"):
        color_histogram(np.zeros((4, 4), dtype=np.uint8))
