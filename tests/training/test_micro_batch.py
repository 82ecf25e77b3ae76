import pytest
import torch
from lightning.fabric import Fabric

from finevote.build import build_model
from finevote.training import micro_batch
from finevote.training.micro_batch import auto_micro_batch, find_micro_batch, saved_bytes
from finevote.training.parts import build_parts
from finevote.types import DataSource, Record
from tests.models import tiny_config

SIZE = (32, 32)


@pytest.fixture
def fabric():
    return Fabric(accelerator="cpu", devices=1)


@pytest.fixture
def model():
    return build_model(tiny_config(model__dropout=0.3, model__drop_path=0.4), num_classes=4).train()


@pytest.mark.parametrize(
    ("num_rows", "largest", "found"),
    [(16, 16, 16), (16, 15, 8), (16, 3, 2), (16, 0, 1), (12, 5, 3), (1, 0, 1), (7, 6, 4)],
)
def test_the_largest_half_that_fits_is_found_from_above(num_rows, largest, found):
    asked = []

    def fits(size):
        asked.append(size)
        return size <= largest

    assert find_micro_batch(num_rows, fits) == found
    assert asked == sorted(asked, reverse=True)
    assert 1 not in asked


def budget_of(model, num_images):
    """Return the free bytes under which the finder takes this many images, and no more."""
    one = saved_bytes(model, lambda: model(torch.zeros(1, 3, *SIZE)))
    states = 16 * sum(parameter.numel() for parameter in model.parameters())
    return int((states + 1.5 * 1.1 * one * num_images) / 0.7)


@pytest.mark.parametrize("num_images", [1, 2, 4, 8])
def test_on_a_cpu_as_many_are_taken_as_memory_allows(fabric, model, monkeypatch, num_images):
    monkeypatch.setattr(micro_batch, "free_bytes", lambda: budget_of(model, num_images))
    assert auto_micro_batch(fabric, model, image_size=SIZE, num_rows=8) == num_images


def test_weights_buffers_random_numbers_and_gradients_stay_as_they_were(fabric, model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert auto_micro_batch(fabric, model, image_size=SIZE, num_rows=8) == 8
    assert torch.equal(torch.rand(2), expected)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_is_kept_for_backward_grows_with_the_batch_and_leaves_weights_out(model):
    two, four = (saved_bytes(model, lambda n=n: model(torch.zeros(n, 3, *SIZE))) for n in (2, 4))
    assert 1.9 < four / two < 2.1
    linear = torch.nn.Linear(1000, 1000)
    features = torch.zeros(1, 1000)
    assert saved_bytes(linear, lambda: linear(features)) == 4000


def test_a_run_trains_and_validates_with_what_was_found(fabric, monkeypatch):
    config = tiny_config(training__micro_batch="auto")
    trained = build_model(config, num_classes=4).train()
    monkeypatch.setattr(micro_batch, "free_bytes", lambda: budget_of(trained, 4))
    records = tuple(Record(str(number), number % 4) for number in range(8))
    source = DataSource("drawn", tuple("abcd"), {"train": records, "val": records}, read=lambda _: None)
    parts = build_parts(fabric, config, source, load_weights=False)
    assert parts.micro_batch == 4
    assert len(parts.val_loader) == 2
