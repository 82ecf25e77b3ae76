import torch
from torch.nn import functional as F

from finevote.losses.classification import JointLoss
from finevote.types import ModelOutput


def make_output(*, complement=True):
    logits, other = torch.randn(2, 5, 4)
    return ModelOutput(logits, other if complement else None, torch.randn(5, 3), None)


def test_the_joint_loss_is_the_weighted_sum_of_both_cross_entropies():
    output, labels = make_output(), torch.tensor([0, 1, 2, 3, 0])
    loss = JointLoss(complement_weight=0.4)
    joint = loss.combine(loss.classification(output, labels)) / 5
    expected = 0.6 * F.cross_entropy(output.logits, labels) + 0.4 * F.cross_entropy(output.complement, labels)
    torch.testing.assert_close(joint, expected)


def test_without_complement_logits_the_loss_is_that_of_the_part():
    output, labels = make_output(complement=False), torch.tensor([0, 1, 2, 3, 0])
    loss = JointLoss(complement_weight=0.4)
    terms = loss.classification(output, labels)
    assert set(terms) == {"part"}
    torch.testing.assert_close(loss.combine(terms) / 5, F.cross_entropy(output.logits, labels))


def test_labels_are_smoothed():
    output, labels = make_output(complement=False), torch.tensor([0, 1, 2, 3, 0])
    soft = 0.9 * F.one_hot(labels, 4) + 0.1 / 4
    smoothed = JointLoss(label_smoothing=0.1).classification(output, labels)["part"]
    torch.testing.assert_close(smoothed, JointLoss().classification(output, soft)["part"])
