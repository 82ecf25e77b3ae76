import numpy as np
import pytest

from finevote.evaluation.label_errors import (
    NUM_FITS,
    agreement,
    calibrate,
    class_thresholds,
    count_trusted,
    find_label_errors,
    flip_labels,
    judge_labels,
    out_of_fold,
)

NUM_CLASSES, PER_CLASS, NUM_FEATURES = 5, 40, 12


@pytest.fixture
def blobs():
    """Return features (1, n, d) of five overlapping clouds, and their classes."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(NUM_CLASSES), PER_CLASS)
    centres = generator.normal(size=(NUM_CLASSES, NUM_FEATURES)) * 1.6
    return (centres[labels] + generator.normal(size=(len(labels), NUM_FEATURES)))[None].astype(np.float32), labels


def judge(features, labels, units=None, **options):
    return judge_labels(features, labels, units or range(len(labels)), num_classes=NUM_CLASSES, **options)


def test_planted_flips_are_found_and_little_else(blobs):
    features, labels = blobs
    flipped = flip_labels(labels, np.arange(len(labels)), share=0.08, seed=5)
    found = {error.row for error in judge(features, flipped).errors}
    planted = set(np.flatnonzero(flipped != labels).tolist())
    assert len(found & planted) >= 0.8 * len(planted) == 12.8
    assert len(found & planted) >= 0.6 * len(found)


def test_the_class_before_the_flip_is_suggested_and_the_surest_come_first(blobs):
    features, labels = blobs
    flipped = flip_labels(labels, np.arange(len(labels)), share=0.08, seed=5)
    errors = judge(features, flipped).errors
    right = [error.suggested == labels[error.row] for error in errors if flipped[error.row] != labels[error.row]]
    assert sum(right) >= 0.9 * len(right)
    scores = [error.score for error in errors]
    assert scores == sorted(scores, reverse=True)


def test_the_trial_says_how_far_the_judgement_can_be_trusted(blobs):
    features, labels = blobs
    judgement = judge(features, labels)
    assert judgement.num_flipped == 10
    assert judgement.agreement > 0.9
    assert judgement.recall >= 0.8
    assert judgement.precision >= 0.4


def test_where_features_say_nothing_hardly_anything_is_told(blobs):
    _, labels = blobs
    noise = np.random.default_rng(1).normal(size=(1, len(labels), NUM_FEATURES)).astype(np.float32)
    judgement = judge(noise, labels)
    assert judgement.agreement < 0.4
    assert len(judgement.errors) < 0.1 * len(labels)


def test_no_image_is_judged_by_a_probe_that_saw_its_unit(blobs):
    """Features that tell the unit and nothing else would let a probe that saw the unit name the class."""
    _, labels = blobs
    units = np.arange(len(labels)) // 4
    own = np.random.default_rng(2).normal(size=(len(labels) // 4, 60))[units][None].astype(np.float32)
    together = out_of_fold(own, labels, units.tolist(), num_classes=NUM_CLASSES)
    apart = out_of_fold(own, labels, range(len(labels)), num_classes=NUM_CLASSES)
    assert agreement(apart, labels) > 0.9
    assert agreement(together, labels) < 0.4


def test_probabilities_sum_to_one_and_do_not_depend_on_the_threads(blobs):
    features, labels = blobs
    first, second = (out_of_fold(features, labels, range(len(labels)), num_classes=NUM_CLASSES) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first.sum(axis=1), 1)


def test_classes_with_fewer_than_three_units_are_not_judged(blobs):
    features, labels = blobs
    labels = labels.copy()
    rows = np.flatnonzero(labels == 4)
    labels[rows[2:]] = 3
    probabilities = out_of_fold(features, labels, range(len(labels)), num_classes=NUM_CLASSES)
    assert np.isnan(probabilities[rows[:2]]).all()
    assert not np.isnan(np.delete(probabilities, rows[:2], axis=0)).any()
    assert not {error.row for error in judge(features, labels).errors} & set(rows[:2].tolist())


@pytest.mark.parametrize("units", [[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 2], [0, 0, 1, 1, 2, 2]])
def test_classes_of_three_images_are_judged_or_passed_over_without_a_word(units):
    labels = np.array([0, 0, 0, 1, 1, 1])
    features = np.random.default_rng(0).normal(size=(2, 6, 4)).astype(np.float32)
    probabilities = out_of_fold(features, labels, units, num_classes=2)
    judged = ~np.isnan(probabilities).any(axis=1)
    np.testing.assert_allclose(probabilities[judged].sum(axis=1), 1)


def test_where_nothing_can_be_judged_nothing_is_told():
    judgement = judge(np.zeros((1, 4, 2), np.float32), np.array([0, 1, 2, 3]))
    assert judgement.errors == ()
    assert judgement.agreement is judgement.recall is judgement.precision is None


def test_thresholds_are_the_mean_own_probability_of_each_class():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])
    np.testing.assert_allclose(class_thresholds(probabilities, np.array([0, 0, 1])), [0.7, 0.8, np.inf])


def test_a_label_is_in_doubt_when_another_class_is_likelier_and_reaches_its_threshold():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.52, 0.48]])
    # t_0 = 0.55, t_1 = 0.69: image 1 reaches that of class 1, image 3 is likelier of class 0 but does not reach t_0
    (error,) = find_label_errors(probabilities, labels, sensitivity=1.0)
    assert (error.row, error.suggested, error.probability, error.own_probability) == (1, 1, 0.8, 0.2)
    assert [error.row for error in find_label_errors(probabilities, labels, sensitivity=0.9)] == [1, 3]


def test_calibration_keeps_the_order_and_lowers_what_is_too_sure():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(3000, 4))
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (true.cumsum(1) > generator.random((3000, 1))).argmax(1)
    too_sure = true**3 / (true**3).sum(1, keepdims=True)
    calibrated = calibrate(too_sure, labels)
    assert (calibrated.argmax(1) == true.argmax(1)).all()
    np.testing.assert_allclose(calibrated, true, atol=0.05)


def test_doubts_are_trusted_as_far_down_as_enough_of_them_are_right():
    assert count_trusted([True, False, False, False, False], min_precision=0.25) == 4
    assert count_trusted([False, False, True], min_precision=0.3) == 3
    assert count_trusted([False, False], min_precision=0.25) == 0
    assert count_trusted([], min_precision=0.25) == 0


def test_flips_change_that_share_of_the_given_rows_to_other_known_classes():
    labels = np.array([3, 3, 7, 7, 9, 9, 1, 1] * 10)
    rows = np.flatnonzero(labels != 1)
    flipped = flip_labels(labels, rows, share=0.1, seed=0)
    changed = np.flatnonzero(flipped != labels)
    assert len(changed) == 6
    assert set(changed) <= set(rows)
    assert set(flipped[changed]) <= {3, 7, 9}


def test_progress_is_told_after_every_fit(blobs):
    done = []
    judge(*blobs, advance=done.append)
    assert sum(done) == NUM_FITS
