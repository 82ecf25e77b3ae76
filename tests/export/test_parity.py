"""What an exported program may differ by."""

import numpy as np
import pytest

from finevote.errors import ExportError
from finevote.export.choices import Precision
from finevote.export.parity import check_parity, compare_logits

LOGITS = np.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 2.0], [4.0, 0.0, 0.0]], np.float32)
LABELS = np.array([0, 1, 2, 1])


def test_figures_are_those_of_the_two_tables():
    exported = LOGITS.copy()
    exported[0] = [0.5, 1.0, 0.0]  # names another class, and a wrong one
    parity = compare_logits(LOGITS, exported, LABELS)
    assert (parity.num_images, parity.agreement, parity.top_1, parity.top_1_exported) == (4, 0.75, 0.75, 0.5)
    assert parity.largest_difference == 1.5
    assert parity.drop == 0.25


def test_equal_logits_pass_in_every_precision():
    for precision in Precision:
        check_parity(compare_logits(LOGITS, LOGITS, LABELS), precision=precision, max_drop=0.0, min_agreement=0.0)


def test_a_logit_further_off_than_the_tolerance_is_refused_in_float32():
    exported = LOGITS.copy()
    exported[2, 1] += 2e-4
    with pytest.raises(ExportError, match=r"logits differ by up to 0\.0002 \(allowed: 0\.0001\).*nothing was written"):
        check_parity(
            compare_logits(LOGITS, exported, LABELS), precision=Precision.FP32, max_drop=1.0, min_agreement=0.0
        )


def test_another_class_is_refused_in_float32_however_near_the_logits():
    logits = np.array([[1.0, 1.0 + 1e-6]], np.float32)
    with pytest.raises(ExportError, match=r"100\.0% get another class"):
        check_parity(
            compare_logits(logits, logits[:, ::-1], np.array([0])),
            precision=Precision.FP32,
            max_drop=1.0,
            min_agreement=0.0,
        )


@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_smaller_numbers_pass_up_to_the_drop_and_are_blocked_beyond(precision):
    exported = LOGITS.copy()
    exported[0] = [0.5, 1.0, 0.0]
    parity = compare_logits(LOGITS, exported, LABELS)
    check_parity(parity, precision=precision, max_drop=0.25, min_agreement=0.0)
    with pytest.raises(ExportError, match=r"names 50\.00% of 4 validation images right.*drop of 25\.00 points"):
        check_parity(parity, precision=precision, max_drop=0.24, min_agreement=0.0)


def test_a_gain_is_no_drop():
    exported = LOGITS.copy()
    exported[3] = [0.0, 1.0, 0.0]  # right where the bundle is wrong
    check_parity(compare_logits(LOGITS, exported, LABELS), precision=Precision.INT8, max_drop=0.0, min_agreement=0.0)


def test_a_limit_that_is_no_number_lets_no_drop_through():
    exported = LOGITS.copy()
    exported[0] = [0.5, 1.0, 0.0]
    with pytest.raises(ExportError, match="nothing was written"):
        check_parity(
            compare_logits(LOGITS, exported, LABELS), precision=Precision.INT8, max_drop=float("nan"), min_agreement=0.0
        )


def test_too_few_images_of_the_same_class_are_refused_whatever_the_accuracy():
    exported = LOGITS.copy()
    exported[3] = [0.0, 1.0, 0.0]  # right where the bundle is wrong: another class all the same
    parity = compare_logits(LOGITS, exported, LABELS)
    check_parity(parity, precision=Precision.INT8, max_drop=0.0, min_agreement=0.75)
    with pytest.raises(ExportError, match=r"gives 75\.00% of 4 validation images the class .* 76\.00% are asked for"):
        check_parity(parity, precision=Precision.INT8, max_drop=0.0, min_agreement=0.76)
    with pytest.raises(ExportError, match="--min-agreement"):
        check_parity(parity, precision=Precision.INT8, max_drop=0.0, min_agreement=float("nan"))
