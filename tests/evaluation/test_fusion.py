import io
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rich.console import Console
from scipy.stats import bootstrap

from finevote.errors import ArgumentError
from finevote.evaluation.fusion import METHODS, fuse, measure_fusion
from finevote.evaluation.metrics import softmax
from finevote.types import Predictions

photographs = st.integers(1, 6).flatmap(
    lambda number: arrays(np.float32, (number, 4), elements=st.floats(-20, 20, width=32))
)


def photograph_subjects(num_subjects=300, *, shared, num_each=4, num_classes=6, seed=0):
    """Return predictions of subjects; `shared` is the weight of what misleads in all photographs of one alike."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=num_subjects)
    own = rng.normal(0, 2, (num_subjects, num_each, num_classes))
    common = rng.normal(0, 2, (num_subjects, 1, num_classes))
    logits = np.sqrt(1 - shared) * own + np.sqrt(shared) * common + 2 * np.eye(num_classes)[labels][:, None]
    return of_subjects(labels, logits)


def of_subjects(labels, logits):
    """Return predictions of photographs (subjects, m, C) with one label a subject, out of order."""
    num_subjects, num_each, num_classes = np.shape(logits)
    order = np.random.default_rng(1).permutation(num_subjects * num_each)
    return Predictions(
        tuple(f"{row}.jpg" for row in order),
        np.repeat(labels, num_each)[order],
        np.reshape(logits, (-1, num_classes)).astype(np.float32)[order],
        groups=np.repeat([f"group {number}" for number in range(num_subjects)], num_each)[order],
    )


def printed(section):
    console = Console(width=120, file=io.StringIO(), color_system=None)
    console.print(section.table())
    return console.file.getvalue()


@given(photographs, st.floats(0.2, 5))
def test_the_product_multiplies_probabilities_and_takes_the_root(logits, temperature):
    product = np.prod(
        [softmax(row[None].astype(np.float64) / temperature)[0] ** (1 / len(logits)) for row in logits], axis=0
    )
    np.testing.assert_allclose(fuse(logits, temperature=temperature), product / product.sum(), rtol=1e-6, atol=1e-12)


@given(photographs, st.floats(0.2, 5))
def test_the_mean_is_that_of_probabilities(logits, temperature):
    expected = np.mean([softmax(row[None].astype(np.float64) / temperature)[0] for row in logits], axis=0)
    np.testing.assert_allclose(fuse(logits, temperature=temperature, method="mean"), expected, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@given(logits=photographs)
def test_nothing_depends_on_the_order_of_photographs(method, logits):
    np.testing.assert_allclose(fuse(logits[::-1], method=method), fuse(logits, method=method), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_one_photograph_alone_and_many_alike_say_what_it_says(method):
    logits = np.random.default_rng(0).normal(0, 3, (1, 5)).astype(np.float32)
    for number in (1, 3):
        fused = fuse(np.repeat(logits, number, axis=0), temperature=1.7, method=method)
        np.testing.assert_allclose(fused, softmax(logits / 1.7)[0], rtol=1e-6)


def test_subjects_of_a_batch_are_put_together_each_by_itself():
    logits = np.random.default_rng(0).normal(0, 3, (7, 3, 5)).astype(np.float32)
    np.testing.assert_array_equal(fuse(logits), [fuse(subject) for subject in logits])


def test_the_class_named_by_the_product_does_not_depend_on_the_temperature():
    logits = np.random.default_rng(0).normal(0, 3, (500, 3, 5)).astype(np.float32)
    assert (fuse(logits, temperature=9).argmax(axis=1) == fuse(logits, temperature=0.2).argmax(axis=1)).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_tie_goes_to_the_lower_class_in_any_order(method):
    logits = np.array([[0.1, 3.3, -1.7], [3.3, 0.1, -1.7]], np.float32)
    assert fuse(logits, method=method).argmax() == fuse(logits[::-1], method=method).argmax() == 0


def test_the_product_wins_where_photographs_are_noisy_and_the_mean_where_one_misleads():
    noisy = measure_fusion(photograph_subjects(4000, shared=0.0))
    by_method = {pool.method: pool.accuracy.value for pool in noisy.pools}
    assert by_method["product"] > by_method["mean"] + 0.01
    misled = np.array([[2.0, 0, 0], [2.0, 0, 0], [-20, 9, 0]])  # two mild voices, and one that is sure and wrong
    assert fuse(misled).argmax() == 1
    assert fuse(misled, method="mean").argmax() == 0


def test_a_temperature_moves_the_mean_alone():
    found = photograph_subjects(shared=0.3)
    cold, warm = (measure_fusion(found, temperature=temperature).pools for temperature in (0.05, 5.0))
    assert cold[0] == warm[0]
    assert cold[1] != warm[1]


def test_figures_are_those_of_a_loop_over_subjects():
    found = photograph_subjects(60, shared=0.5)
    fusion = measure_fusion(found, temperature=2.0)
    singles, rights = [], {method: [] for method in METHODS}
    for name in sorted(set(found.groups)):
        mine = found.groups == name
        label = found.labels[mine][0]
        singles.append(np.mean(found.logits[mine].argmax(axis=1) == label))
        for method, right in rights.items():
            right.append(fuse(found.logits[mine], temperature=2.0, method=method).argmax() == label)
    assert (fusion.num_subjects, fusion.photographs_per_subject) == (60, 4)
    assert fusion.single.value == pytest.approx(np.mean(singles))
    for pool in fusion.pools:
        assert pool.accuracy.value == np.mean(rights[pool.method])
        assert pool.gain.value == pytest.approx(np.mean(rights[pool.method]) - np.mean(singles))


def test_the_interval_of_the_gain_is_a_bootstrap_of_paired_subjects():
    found = photograph_subjects(1500, shared=0.3)
    gain = measure_fusion(found).pools[0].gain
    differences = []
    for name in sorted(set(found.groups)):
        mine = found.groups == name
        label = found.labels[mine][0]
        right = found.logits[mine].argmax(axis=1) == label
        differences.append(float(fuse(found.logits[mine]).argmax() == label) - right.mean())
    oracle = bootstrap((differences,), np.mean, n_resamples=4000, batch=500, rng=np.random.default_rng(0))
    assert gain[1:3] == pytest.approx(tuple(oracle.confidence_interval), abs=2e-3)
    assert gain.num_units == 1500


def test_more_photographs_of_the_same_mislead_alike_gain_nothing():
    fusion = measure_fusion(photograph_subjects(shared=1.0))
    for pool in fusion.pools:
        assert pool.gain.value == pytest.approx(0)
        assert pool.gain.low < 0 < pool.gain.high


def test_subjects_of_one_photograph_and_of_mixed_labels_are_counted_and_left_out():
    whole = photograph_subjects(20, shared=0.3)
    logits = np.zeros((3, 6), np.float32)
    added = Predictions(
        (*whole.image_ids, "x", "y", "z"),
        np.append(whole.labels, [0, 1, 2]),
        np.concatenate([whole.logits, logits]),
        groups=np.append(whole.groups, ["group mixed", "group mixed", "image z"]),
    )
    fusion, alone = measure_fusion(added), measure_fusion(whole)
    assert (fusion.num_alone, fusion.num_mixed) == (1, 1)
    assert (fusion.num_subjects, fusion.single, fusion.pools) == (alone.num_subjects, alone.single, alone.pools)
    assert fusion.notes()[1:] == [
        "subjects with one photograph, left out of that: 1",
        "subjects whose photographs have different labels, left out of that: 1",
    ]


def test_without_subjects_of_several_photographs_there_is_nothing_to_say():
    found = photograph_subjects(20, shared=0.3, num_each=1)
    assert measure_fusion(found) is None
    assert measure_fusion(Predictions(found.image_ids, found.labels, found.logits)) is None


def test_the_table_sets_one_photograph_beside_all():
    fusion = measure_fusion(photograph_subjects(shared=0.3))
    text = printed(fusion)
    assert re.search(rf"one photograph alone +{fusion.single.value:.1%}", text)
    for pool in fusion.pools:
        assert f"all together ({pool.method})" in text
        assert f"{pool.gain.value * 100:+.1f}" in text


def test_json_keeps_every_figure():
    fusion = measure_fusion(photograph_subjects(shared=0.3))
    values = json.loads(json.dumps(fusion.to_dict()))
    assert values["num_subjects"] == 300
    assert values["single"] == dict(zip(("value", "low", "high"), fusion.single[:3], strict=True))
    assert [pool["method"] for pool in values["pools"]] == ["product", "mean"]
    assert values["pools"][0]["gain"].keys() == {"value", "low", "high"}


def test_an_unknown_method_is_refused():
    with pytest.raises(ArgumentError, match="photographs cannot be put together by 'produkt'; did you mean 'product'"):
        fuse(np.zeros((2, 3)), method="produkt")


def test_no_photograph_is_refused():
    with pytest.raises(ArgumentError, match=r"got logits \(0, 3\): give \(\.\.\., m, C\)"):
        fuse(np.zeros((0, 3)))
