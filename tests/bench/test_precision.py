import torch
from torch import nn

from finevote.bench.precision import compare, count_missing, measure_precision
from tests.bench.cases import tiny_case, tiny_plan


def test_numbers_that_the_other_has_not_are_counted_image_by_image():
    numbers, others = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([[2, 1, 0], [0, 4, 9]])
    assert count_missing(numbers, others) == 2


def test_what_does_not_depend_on_the_precision_does_not_differ():
    class Exact(nn.Module):
        def forward(self, images):
            return images.mean((2, 3))

    assert set(compare(Exact(), tiny_case()).values()) == {0.0}


def test_ours_has_the_share_of_selected_patches_too():
    (samples,) = measure_precision(tiny_plan())
    quantities = [(sample.contender, sample.quantity) for sample in samples]
    assert ("ours", "selected patches that differ") in quantities
    assert ("plain", "selected patches that differ") not in quantities
    assert all(0 <= sample.value <= 1 for sample in samples)
    (change,) = [s.value for s in samples if s.contender == "plain" and "logit" in s.quantity]
    assert 0 < change < 0.1
