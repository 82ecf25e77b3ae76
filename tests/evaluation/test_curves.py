import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from finevote.errors import ArgumentError
from finevote.evaluation.curves import blur, delete_and_insert, num_passes, patch_counts

GRID, IMAGE_SIZE = (2, 3), (8, 9)  # patches of 4 x 3 px


@given(st.integers(1, 300), st.integers(1, 40))
def test_steps_are_even_and_reach_every_patch(num_patches, num_steps):
    counts = patch_counts(num_patches, num_steps=num_steps)
    assert (counts[0], counts[-1]) == (0, num_patches)
    assert len(counts) == min(num_steps, num_patches) + 1
    sizes = np.diff(counts)
    assert sizes.min() >= 1
    assert sizes.max() - sizes.min() <= 1


def test_there_is_at_least_one_step():
    with pytest.raises(ArgumentError, match="num_steps=0 must be 1 or more"):
        patch_counts(9, num_steps=0)


def colour_score(images):
    """Return three probabilities that depend on every pixel."""
    weights = torch.linspace(-1, 1, images[0].numel() * 3).reshape(3, -1).sin()
    return (images.flatten(1) @ weights.T).softmax(-1)


def naive_curves(image, order, *, steps):
    """Paint patch by patch with loops, on one image."""
    named = int(colour_score(image[None])[0].argmax())
    blurred = image.double().numpy()
    for axis, sigma in ((1, 4), (2, 3)):
        blurred = gaussian_filter1d(blurred, sigma, axis=axis, mode="nearest", truncate=3.0)
    blurred = torch.from_numpy(blurred).float()
    deletion, insertion = [], []
    for count in patch_counts(6, num_steps=steps):
        removed, brought = image.clone(), blurred.clone()
        for patch in order[:count]:
            row, column = divmod(patch, 3)
            place = (slice(None), slice(4 * row, 4 * row + 4), slice(3 * column, 3 * column + 3))
            removed[place] = 0
            brought[place] = image[place]
        deletion.append(float(colour_score(removed[None])[0, named]))
        insertion.append(float(colour_score(brought[None])[0, named]))
    return deletion, insertion


@pytest.mark.parametrize("steps", [1, 4, 6, 16])
def test_curves_are_those_of_painting_patch_by_patch(steps):
    images = torch.randn(3, 3, *IMAGE_SIZE)
    orders = [torch.stack([torch.randperm(6) for _ in images]) for _ in range(2)]
    found = delete_and_insert(images, orders, grid=GRID, score=colour_score, num_steps=steps)
    assert found.deletion.shape == (3, 2, min(steps, 6) + 1)
    for row, image in enumerate(images):
        for number, order in enumerate(orders):
            deletion, insertion = naive_curves(image, order[row].tolist(), steps=steps)
            np.testing.assert_allclose(found.deletion[row, number], deletion, atol=1e-5)
            np.testing.assert_allclose(found.insertion[row, number], insertion, atol=1e-5)


def test_never_more_views_at_once_than_images_and_as_many_as_were_told():
    asked, told = [], []

    def score(images):
        asked.append(len(images))
        return colour_score(images)

    orders = [torch.arange(6).expand(5, -1)] * 3
    images = torch.randn(5, 3, *IMAGE_SIZE)
    delete_and_insert(images, orders, grid=GRID, score=score, num_steps=4, advance=told.append)
    assert max(asked) == 5
    assert asked == told
    assert sum(told) == 5 * num_passes(3, 6, num_steps=4) + 1  # the blank view is the same for all


def test_the_class_is_that_of_the_whole_view():
    images = torch.randn(2, 3, *IMAGE_SIZE)
    found = delete_and_insert(images, [torch.arange(6).expand(2, -1)], grid=GRID, score=colour_score, num_steps=3)
    whole = colour_score(images).amax(1)
    torch.testing.assert_close(found.deletion[:, 0, 0], whole)
    torch.testing.assert_close(found.insertion[:, 0, -1], whole)
    blank = colour_score(torch.zeros_like(images)).gather(1, colour_score(images).argmax(1, keepdim=True))[:, 0]
    torch.testing.assert_close(found.deletion[:, 0, -1], blank)


def test_images_stay_as_they_are():
    images = torch.randn(1, 3, *IMAGE_SIZE)
    before = images.clone()
    delete_and_insert(images, [torch.arange(6)[None]], grid=GRID, score=colour_score, num_steps=3)
    assert torch.equal(images, before)


def test_a_flat_view_is_left_by_the_blur_and_a_border_is_repeated():
    images = torch.full((1, 3, 8, 12), 0.7)
    torch.testing.assert_close(blur(images, grid=(2, 3)), images)


def test_images_that_are_no_whole_patches_are_refused():
    with pytest.raises(ArgumentError, match="images of 8x10 px are no whole patches on a grid of 2x3"):
        delete_and_insert(torch.randn(1, 3, 8, 10), [], grid=GRID, score=colour_score, num_steps=3)


@pytest.mark.parametrize("order", [torch.zeros(1, 6, dtype=torch.int64), torch.arange(5)[None], torch.arange(6)])
def test_an_order_that_lacks_a_patch_is_refused(order):
    with pytest.raises(ArgumentError, match="must hold each of 6 patches once for each of 1 images"):
        delete_and_insert(torch.randn(1, 3, *IMAGE_SIZE), [order], grid=GRID, score=colour_score, num_steps=3)
