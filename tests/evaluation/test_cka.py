"""CKA against formulas written another way: explicit centring matrices, and the U-statistic over all quadruples."""

import itertools

import numpy as np
import pytest

from finevote.errors import ArgumentError
from finevote.evaluation.cka import cka_map, hsic, minibatch_cka_map, unbiased_hsic


def features(*shape, seed=0, offset=0.0):
    return np.random.default_rng(seed).normal(offset, 1, shape)


def kernel(n, width, seed):
    x = features(n, width, seed=seed)
    return x @ x.T


def rotation(width, seed=5):
    return np.linalg.qr(features(width, width, seed=seed))[0]


def explicit_cka(x, y):
    """The centred Gram matrices with H written out."""
    n = len(x)
    h = np.eye(n) - np.ones((n, n)) / n
    k, other = x @ x.T, y @ y.T

    def score(a, b):
        return np.trace(a @ h @ b @ h)

    return score(k, other) / np.sqrt(score(k, k) * score(other, other))


def u_statistic(k, other):
    """HSIC as the mean over all ordered quadruples of different images (Song et al. 2012, theorem 3)."""
    quadruples = list(itertools.permutations(range(len(k)), 4))
    total = sum(k[i, j] * (other[i, j] + other[q, r] - 2 * other[i, q]) for i, j, q, r in quadruples)
    return total / len(quadruples)


def test_the_map_is_that_of_explicit_centring_matrices():
    layers = [features(30, width, seed=width, offset=3.0) for width in (4, 7, 50)]
    layers.append(layers[0] @ features(4, 9, seed=9) + 0.3 * features(30, 9, seed=10))
    expected = [[explicit_cka(x, y) for y in layers] for x in layers]
    np.testing.assert_allclose(cka_map(layers), expected, rtol=1e-9)


def test_the_map_is_the_ratio_of_norms_over_centred_columns():
    x, y = features(40, 6), features(40, 3, seed=1)
    x, y = x - x.mean(0), y - y.mean(0)
    norms = np.linalg.norm(y.T @ x) ** 2 / (np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    assert cka_map([x, y])[0, 1] == pytest.approx(norms, rel=1e-9)


def test_the_standard_estimate_is_the_trace_over_explicit_matrices():
    k, other = kernel(9, 4, seed=0), kernel(9, 5, seed=1)
    h = np.eye(9) - 1 / 9
    assert hsic(k, other) == pytest.approx(np.trace(k @ h @ other @ h) / 64, rel=1e-12)


@pytest.mark.parametrize("num_images", [4, 5, 7])
def test_the_unbiased_estimate_is_the_u_statistic_over_quadruples(num_images):
    k, other = kernel(num_images, 3, seed=0), kernel(num_images, 4, seed=1)
    assert unbiased_hsic(k, other) == pytest.approx(u_statistic(k, other), rel=1e-9)
    assert unbiased_hsic(k, k) == pytest.approx(u_statistic(k, k), rel=1e-9)


def test_minibatches_are_averaged_before_they_are_divided():
    x, y = features(12, 3), features(12, 5, seed=1)
    order = np.random.default_rng(7).permutation(12)
    sums = np.zeros(3)
    for rows in (order[:6], order[6:]):
        k, other = x[rows] @ x[rows].T, y[rows] @ y[rows].T
        sums += [u_statistic(k, other), u_statistic(k, k), u_statistic(other, other)]
    found = minibatch_cka_map([x, y], batch_size=6, seed=7)
    assert found[0, 1] == pytest.approx(sums[0] / np.sqrt(sums[1] * sums[2]), rel=1e-9)


@pytest.fixture(params=["standard", "unbiased"])
def either_map(request):
    if request.param == "standard":
        return cka_map
    return lambda layers: minibatch_cka_map(layers, batch_size=32, seed=0)


def test_a_layer_is_wholly_like_itself(either_map):
    layers = [features(64, 5), features(64, 80, seed=1)]
    np.testing.assert_allclose(either_map(layers).diagonal(), 1, rtol=1e-12)
    np.testing.assert_allclose(either_map([layers[0], layers[0]]), 1, rtol=1e-12)


def test_rotation_scale_and_offset_change_nothing(either_map):
    x, y = features(64, 8), features(64, 6, seed=1)
    y = y + x[:, :6]
    changed = 1e4 * x @ rotation(8) + 1e3
    np.testing.assert_allclose(either_map([changed, y]), either_map([x, y]), rtol=1e-6)


def test_random_layers_are_hardly_alike():
    layers = [features(2000, 10, seed=seed) for seed in range(2)]
    assert cka_map(layers)[0, 1] < 0.02
    assert abs(minibatch_cka_map(layers, batch_size=100, seed=0)[0, 1]) < 0.02


def test_only_the_unbiased_estimate_stays_near_zero_for_wide_layers_and_few_images():
    values = [
        minibatch_cka_map([features(64, 300, seed=s), features(64, 300, seed=-s - 1 + 900)], batch_size=16, seed=0)
        for s in range(20)
    ]
    assert abs(np.mean(values, axis=0)[0, 1]) < 0.05
    assert cka_map([features(64, 300), features(64, 300, seed=1)])[0, 1] > 0.5


def test_a_layer_that_is_the_same_for_every_image_is_like_nothing(either_map):
    found = either_map([features(64, 5), np.full((64, 3), 7.0, np.float32)])
    assert found[0, 0] == pytest.approx(1)
    assert np.isnan(found[1]).all()
    assert np.isnan(found[:, 1]).all()


def test_the_rest_of_the_images_is_shared_among_minibatches():
    layers = [features(9, 3), features(9, 3, seed=1)]  # 9 in batches of 4 would leave a batch of one
    assert np.isfinite(minibatch_cka_map(layers, batch_size=4, seed=0)).all()


def test_too_few_images_are_refused():
    with pytest.raises(ArgumentError, match="3 images in minibatches of 16: the unbiased CKA takes 4 or more"):
        minibatch_cka_map([features(3, 2)], batch_size=16, seed=0)


@pytest.mark.parametrize(
    "layers",
    [[], [features(5, 2), features(6, 2)], [features(5)], [features(5, 0)]],
    ids=["none", "n", "flat", "empty"],
)
def test_layers_that_do_not_fit_together_are_refused(layers):
    with pytest.raises(ArgumentError, match="must be one or more of \\(images, width\\), of the same images"):
        cka_map(layers)


def test_features_that_are_not_finite_are_refused():
    bad = features(5, 2)
    bad[3, 1] = np.nan
    with pytest.raises(ArgumentError, match="layer 1 of 2 has features that are not finite"):
        cka_map([features(5, 2), bad])
