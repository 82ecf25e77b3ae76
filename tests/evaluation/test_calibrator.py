"""What promises rest on where several validation images show one subject."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from finevote.evaluation.calibration import fit_temperature
from finevote.evaluation.calibrator import SetRule, calibrate
from finevote.evaluation.conformal import coverage_range
from finevote.evaluation.metrics import softmax
from finevote.evaluation.selective import promise_error
from finevote.types import Predictions

NUM_CLASSES = 5


def draw(num_groups, num_each, *, seed):
    """Return groups of images that a model sees almost alike, with labels drawn from what it says of the group."""
    rng = np.random.default_rng(seed)
    members = np.repeat(np.arange(num_groups), num_each)
    of_group = rng.normal(0, 3, (num_groups, NUM_CLASSES))
    labels = (softmax(of_group).cumsum(axis=1) > rng.random((num_groups, 1))).argmax(axis=1)[members]
    logits = of_group[members] + rng.normal(0, 0.05, (len(members), NUM_CLASSES))
    ids = tuple(f"{seed}-{row}" for row in range(len(members)))
    return Predictions(ids, labels, logits.astype(np.float32), groups=members.astype(str))


def calibrations(num_groups, num_each, *, num=300):
    """Yield calibrations on images of groups, each beside one that takes every image for a subject by itself."""
    for seed in range(1, num + 1):
        found = draw(num_groups, num_each, seed=seed)
        yield calibrate(found), calibrate(replace(found, groups=None))


def test_promises_rest_on_one_image_of_each_group_and_the_temperature_on_all():
    found = draw(40, 6, seed=0)
    calibration = calibrate(found)
    assert calibration.temperature == fit_temperature(found.logits, found.labels)
    everything = calibration.unknown_scores(found.logits, None)["energy"]
    rows = [int(np.flatnonzero(everything == score)[0]) for score in calibration.unknown["energy"]]
    assert sorted(found.groups[rows]) == sorted(set(found.groups))
    assert calibration.labels.tolist() == found.labels[rows].tolist()
    assert {len(scores) for scores in (calibration.is_right, *calibration.scores.values())} == {40}


def test_images_without_groups_all_count():
    assert len(calibrate(replace(draw(40, 6, seed=0), groups=None)).labels) == 240


@pytest.mark.slow
def test_the_coverage_of_one_calibration_on_groups_lies_where_its_range_says():
    new = draw(5000, 1, seed=0)
    held = np.zeros(2)
    for pair in calibrations(60, 8):
        for number, calibration in enumerate(pair):
            sets = calibration.sets(calibration.probabilities(new.logits), SetRule(0.9))
            low, high = coverage_range(len(calibration.labels), coverage=0.9)
            held[number] += low <= sets[np.arange(5000), new.labels].mean() <= high
    assert binomtest(int(held[0]), 300, 0.95, alternative="less").pvalue > 0.01
    assert held[1] < 200  # where images of one subject count as many


@pytest.mark.slow
def test_an_error_that_groups_do_not_keep_is_promised_in_at_most_5_of_100():
    """One group in eight is named wrong, however sure the model is: a promise of at most 10% is always broken."""
    broken = np.zeros(2)
    for seed in range(300):
        found = draw(150, 8, seed=seed)
        is_wrong = np.random.default_rng(seed).random(150) < 0.125
        labels = (found.logits.argmax(axis=1) + is_wrong[found.groups.astype(int)]) % NUM_CLASSES
        told = replace(found, labels=labels)
        for number, calibration in enumerate((calibrate(told), calibrate(replace(told, groups=None)))):
            promise = promise_error(calibration.confidences, calibration.is_right, max_error=0.1)
            broken[number] += promise is not None
    assert binomtest(int(broken[0]), 300, 0.05, alternative="greater").pvalue > 0.01
    assert broken[1] > 60  # where images of one subject count as many


def test_an_error_that_groups_keep_is_promised():
    found = draw(150, 8, seed=0)
    calibration = calibrate(replace(found, labels=found.logits.argmax(axis=1)))
    assert promise_error(calibration.confidences, calibration.is_right, max_error=0.1).share == 1
