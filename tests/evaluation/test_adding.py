"""Added classes against formulas written another way, and what must hold of them whatever the images."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from finevote.errors import ArgumentError
from finevote.evaluation.added_figures import measure_added
from finevote.evaluation.adding import Old, fit_addition, old_logits_across
from finevote.evaluation.addition import (
    check_nothing_added,
    closeness,
    discriminants,
    extended_logits,
    own_extended_logits,
)
from finevote.evaluation.unknown import class_means
from finevote.types import Predictions

NUM_TRAINED, WIDTH = 4, 6
CENTRES = np.random.default_rng(1).normal(size=(NUM_TRAINED + 3, WIDTH)) * 3


def images(labels, *, seed, spread=0.6, prefix="image"):
    """Embeddings around each class's centre, with logits of a classifier that knows the first four classes."""
    rng = np.random.default_rng(seed)
    embeddings = CENTRES[labels] + rng.normal(0, spread, (len(labels), WIDTH))
    logits = -((embeddings[:, None] - CENTRES[:NUM_TRAINED]) ** 2).sum(-1) / 4
    ids = tuple(f"{prefix} {number}" for number in range(len(labels)))
    return Predictions(ids, labels, logits.astype(np.float32), embeddings=embeddings.astype(np.float32))


def some_old(**changes):
    trained = images(np.repeat(np.arange(NUM_TRAINED), 30), seed=2)
    means = class_means(trained.embeddings, trained.labels, num_classes=NUM_TRAINED)
    return Old(images(np.repeat(np.arange(NUM_TRAINED), 20), seed=3), means)._replace(**changes)


def new_images(num_each=12, first=NUM_TRAINED, num_classes=2, seed=4):
    found = images(np.repeat(np.arange(first, first + num_classes), num_each), seed=seed, prefix=f"new {first}")
    return replace(found, labels=found.labels - first)


def add(new=None, old=None, names=("crow", "gull")):
    new = new_images() if new is None else new
    return fit_addition(names, new, [None] * len(new.labels), old or some_old())


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_differences_of_closeness_are_those_of_squared_mahalanobis_distances():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    precision, prototypes, embedding = root @ root.T, unit(rng.normal(size=(3, 5))), rng.normal(size=(1, 5))
    found = closeness(embedding, *discriminants(prototypes, precision))[0]
    squares = [mahalanobis(unit(embedding)[0], prototype, precision) ** 2 for prototype in prototypes]
    np.testing.assert_allclose(found - found[0], -(np.array(squares) - squares[0]) / 2, rtol=1e-9)


def test_a_new_logit_lies_above_or_below_that_of_the_named_class_by_the_difference_of_closeness():
    addition, image = add(), images(np.array([1]), seed=9)
    (logit,) = addition.logits_of(image.logits, image.embeddings)
    close = closeness(image.embeddings, addition.weights, addition.offsets)[0]
    named = int(image.logits[0].argmax())
    expected = image.logits[0, named] + addition.slope * (close[NUM_TRAINED:] - close[named]) + addition.bias
    np.testing.assert_allclose(logit, expected)


def test_prototypes_are_the_mean_directions_of_the_photographs():
    new, addition = new_images(), add()
    expected = unit(unit(new.embeddings[new.labels == 1].astype(np.float64)).sum(0))
    ratio = addition.weights[NUM_TRAINED + 1] / np.linalg.norm(addition.weights[NUM_TRAINED + 1])
    residuals = unit(some_old().images.embeddings) - some_old().means[some_old().images.labels]
    from sklearn.covariance import LedoitWolf

    weights = np.linalg.inv(LedoitWolf(assume_centered=True).fit(residuals).covariance_) @ expected
    np.testing.assert_allclose(ratio, unit(weights), atol=1e-4)


def test_each_photograph_is_judged_by_a_prototype_without_it():
    new = new_images(num_each=5)
    addition = add(new)
    for row in range(len(new.labels)):
        others = np.delete(np.arange(len(new.labels)), row)
        part = Predictions(
            tuple(new.image_ids[other] for other in others),
            new.labels[others],
            new.logits[others],
            embeddings=new.embeddings[others],
        )
        without = replace(add(part), slope=addition.slope, bias=addition.bias)
        expected = without.logits_of(new.logits[[row]], new.embeddings[[row]])[0, new.labels[row]]
        assert addition.own_logits[row] == pytest.approx(expected, rel=1e-4)


def test_trained_logits_stay_the_same_bits():
    old, addition = some_old().images, add()
    extended = extended_logits(old.logits, old.embeddings, [addition])
    assert extended.dtype == old.logits.dtype
    assert extended.shape == (80, NUM_TRAINED + 2)
    assert np.array_equal(extended[:, :NUM_TRAINED], old.logits)
    assert extended_logits(old.logits, old.embeddings, []) is old.logits


def test_views_are_extended_one_by_one():
    old, addition = some_old().images, add()
    logits, embeddings = old.logits.reshape(8, 10, -1), old.embeddings.reshape(8, 10, -1)
    found = extended_logits(logits, embeddings, [addition])
    assert np.array_equal(found.reshape(80, -1), extended_logits(old.logits, old.embeddings, [addition]))


def test_new_images_are_named_and_old_ones_stay_where_classes_lie_apart():
    addition, test = add(), new_images(seed=40)
    extended = extended_logits(test.logits, test.embeddings, [addition])
    assert (extended.argmax(1) == NUM_TRAINED + test.labels).mean() > 0.9
    old = images(np.repeat(np.arange(NUM_TRAINED), 20), seed=41)
    assert (extended_logits(old.logits, old.embeddings, [addition]).argmax(1) == old.labels).mean() > 0.9


def test_slope_and_bias_minimise_the_loss_of_classes_that_weigh_alike():
    old, new = some_old(), new_images()
    addition = add(new, old)

    def loss(slope, bias):
        moved = replace(addition, slope=slope, bias=bias)
        own = addition.own_logits + (bias - addition.bias)
        first = extended_logits(old.images.logits.astype(np.float64), old.images.embeddings, [moved])
        second = own_extended_logits(replace(moved, own_logits=own), ())
        labels = np.concatenate([old.images.labels, NUM_TRAINED + new.labels])
        logits = np.concatenate([first, second])
        losses = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
        losses -= logits[np.arange(len(labels)), labels]
        return np.mean([losses[labels == label].mean() for label in np.unique(labels)])

    best = loss(addition.slope, addition.bias)
    assert best < loss(addition.slope, addition.bias + 0.3)
    assert best < loss(addition.slope, addition.bias - 0.3)


def test_a_single_photograph_is_named_by_distance_alone():
    addition = add(new_images(num_each=1))
    assert addition.bias == 0
    assert np.isnan(addition.own_logits).all()
    test = new_images(seed=40)
    extended = extended_logits(test.logits, test.embeddings, [addition])
    assert (extended.argmax(1) == NUM_TRAINED + test.labels).mean() > 0.5


def test_classes_that_are_added_later_leave_the_earlier_ones_as_they_are():
    first = add()
    old = some_old(earlier=(first,))
    later = new_images(first=NUM_TRAINED + 2, num_classes=1, seed=5)
    second = add(later, old, names=("heron",))
    test = images(np.array([0, 5, 6]), seed=6)
    both = extended_logits(test.logits, test.embeddings, [first, second])
    assert both.shape == (3, NUM_TRAINED + 3)
    assert np.array_equal(both[:, :-1], extended_logits(test.logits, test.embeddings, [first]))
    assert both.argmax(1).tolist() == [0, 5, 6]
    assert own_extended_logits(second, (first,)).shape == (12, NUM_TRAINED + 3)


def test_a_trained_class_without_images_takes_no_part_in_the_distances():
    old = some_old()
    means = old.means.copy()
    means[2] = np.nan
    addition = add(old=old._replace(means=means))
    assert addition.offsets[2] == -np.inf
    test = images(np.array([2, 2]), seed=7)
    assert np.isfinite(addition.logits_of(test.logits, test.embeddings)).all()


@pytest.mark.parametrize("num_images", [1, 2])
def test_hardly_any_validation_images_will_do(num_images):
    old = some_old()
    few = replace(
        old.images,
        image_ids=old.images.image_ids[:num_images],
        labels=old.images.labels[:num_images],
        logits=old.images.logits[:num_images],
        embeddings=old.images.embeddings[:num_images],
    )
    assert np.isfinite(add(old=old._replace(images=few)).slope)


def test_old_images_are_judged_by_what_the_others_tell():
    old, new = some_old(), new_images()
    across = old_logits_across(("crow", "gull"), new, old)
    assert np.array_equal(across[:, :NUM_TRAINED], old.images.logits)
    whole = extended_logits(old.images.logits, old.images.embeddings, [add(new, old)])
    assert not np.allclose(across[:, NUM_TRAINED:], whole[:, NUM_TRAINED:], rtol=1e-5)
    np.testing.assert_allclose(across[:, NUM_TRAINED:].mean(), whole[:, NUM_TRAINED:].mean(), rtol=0.3)


def test_images_of_one_group_judge_themselves():
    old = some_old()
    alone = old._replace(images=replace(old.images, groups=np.full(80, "one")))
    whole = extended_logits(old.images.logits, old.images.embeddings, [add(old=alone)])
    np.testing.assert_allclose(old_logits_across(("crow", "gull"), new_images(), alone), whole, rtol=1e-4)


def test_a_class_without_photographs_is_refused():
    with pytest.raises(ArgumentError, match=r"3 new classes have \[12, 12, 0\] photographs: give one or more of each"):
        add(names=("crow", "gull", "heron"))


def test_embeddings_are_needed():
    with pytest.raises(ArgumentError, match="adding classes needs embeddings"):
        add(replace(new_images(), embeddings=None))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.zeros((5, WIDTH))}, r"weights is \(5, 6\), not \(6, 6\)"),
        ({"labels": np.zeros(24, np.int64)}, "must have one photograph or more each"),
        ({"bias": float("nan")}, "numbers that are not finite"),
        ({"paths": ()}, "counts differ"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(change, message):
    with pytest.raises(ArgumentError, match=message):
        replace(add(), **change)


def test_promises_are_refused_with_what_to_do():
    check_nothing_added([])
    with pytest.raises(ArgumentError, match=r"2 classes were added to the bundle \(crow, gull\).*--undo"):
        check_nothing_added(["crow", "gull"])


class TestFigures:
    NAMES = ("a", "b", "new")
    OLD = Predictions(("1", "2", "3"), np.array([0, 1, 1]), np.zeros((3, 2), np.float32))
    EXTENDED = np.array([[3.0, 1, 0], [0, 2, 5], [4, 1, 0]])  # right, taken, wrong before and after

    def measure(self, new_logits, new_labels, **options):
        return measure_added(
            self.OLD, self.EXTENDED, new_logits, new_labels, class_names=self.NAMES, num_added=1, split="val", **options
        )

    def test_what_the_old_lose_and_how_often_the_new_are_named(self):
        found = self.measure(np.array([[0.0, 1, 9], [5, 1, 0]]), np.array([2, 2]))
        assert (found.before.value, found.after.value) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
        assert found.change.value == pytest.approx(-1 / 3)
        assert found.num_taken == 1
        assert found.new.value == 0.5
        assert found.rows[0][:2] == ("new", 2)
        assert found.rows[0].taken_for == "a"
        assert found.new.low < 0.5 < found.new.high

    def test_a_single_photograph_is_counted_and_not_judged(self):
        found = self.measure(np.array([[0.0, 1, np.nan]]), np.array([2]), is_left_out=True)
        assert found.new is None
        assert (found.rows[0].num_images, found.rows[0].top_1) == (1, None)
        assert any("nothing tells how well these are named: new" in note for note in found.notes())

    def test_without_new_images_only_the_old_are_measured(self):
        found = self.measure(np.empty((0, 3)), np.zeros(0, np.int64))
        assert found.new is None
        assert found.notes() == [
            "the split has no images of the added classes: only what the old ones lose is measured"
        ]
