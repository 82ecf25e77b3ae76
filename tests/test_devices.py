import pytest
import torch

from finevote.devices import find_accelerator, find_device
from finevote.training.launch import make_fabric


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_gpu_that_is_there_is_taken(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert find_accelerator() == expected
    assert find_device("auto").type == expected


def test_training_and_prediction_agree():
    assert make_fabric(devices=1, precision="fp32").device.type == find_device("auto").type
