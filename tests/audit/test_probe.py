import numpy as np
import pytest

from finevote.audit.probe import check_backbone, judge
from finevote.errors import ArgumentError


@pytest.mark.parametrize(("backbone", "weights"), [(None, None), ("dinov2_vits14", None), ("dinov2_vits14", "a.pth")])
def test_a_backbone_with_its_weights_or_none_at_all_is_taken(backbone, weights):
    assert check_backbone(backbone, weights) is None


@pytest.mark.parametrize(
    ("backbone", "weights", "message"),
    [(None, "a.pth", "--weights a.pth needs the --backbone"), ("vit_b16_in21k", "none", "sees nothing")],
)
def test_other_combinations_are_refused(backbone, weights, message):
    with pytest.raises(ArgumentError, match=message):
        check_backbone(backbone, weights)


def test_clear_classes_with_one_wrong_label_are_judged():
    labels = np.repeat([0, 1], 20)
    features = (labels[:, None] * 8 + np.random.default_rng(0).normal(size=(40, 3))).astype(np.float32)
    labels[3] = 1
    assert [error.row for error in judge(features[None], labels, range(40), num_classes=2).errors] == [3]
