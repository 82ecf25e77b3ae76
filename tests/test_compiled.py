"""The model as one graph, compiled; exported it is in tests/export."""

import random

import pytest
import torch

from finevote.build import build_model
from finevote.noise import Noise
from finevote.training.compiling import compiled
from tests.models import FAMILIES, tiny_config, tiny_model
from tests.test_model import VARIANTS

QUICK = ("full", "merged", "fewer patches", "plain")
SLOW = (
    "learnable",
    "no refinement",
    "no key block",
    "registers",
    "dinov3, fewer patches, merged",
    "siglip2",
    "learnt rotations",
)
each_variant = pytest.mark.parametrize(
    "variant", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)


@pytest.fixture(autouse=True)
def _no_graphs_of_other_tests():
    torch.compiler.reset()


def whole_graph(model, backend="eager"):
    """Compile a model; a break of its graph is an error."""
    return torch.compile(model, backend=backend, fullgraph=True)


@each_variant
def test_a_forward_pass_is_one_graph_with_the_same_answer(variant):
    model = tiny_model(**VARIANTS[variant])
    images = torch.randn(3, 3, *model.backbone.image_size)
    with torch.no_grad():
        assert torch.equal(whole_graph(model)(images).logits, model(images).logits)


@each_variant
def test_a_training_pass_is_one_graph_with_the_same_answer(variant):
    config = tiny_config(**VARIANTS[variant], model__drop_path=0.3, model__dropout=0.3)
    model = build_model(config, num_classes=5).train()
    images, noise = torch.randn(3, 3, *model.backbone.image_size), Noise(7, 2, 8)
    assert torch.equal(whole_graph(model)(images, noise).logits, model(images, noise).logits)


class CountingBackend:
    """Runs the graphs it is given as they are, and counts them."""

    def __init__(self):
        self.num_graphs = 0

    def __call__(self, graph, _inputs):
        self.num_graphs += 1
        return graph


@pytest.mark.parametrize("variant", ["full", "merged", "learnable"])
def test_no_budget_and_no_noise_has_the_training_graph_compiled_again(variant, monkeypatch):
    model = build_model(tiny_config(**VARIANTS[variant], model__drop_path=0.3), num_classes=5).train()
    images, backend, generator = torch.randn(4, 3, 32, 32), CountingBackend(), random.Random(0)
    monkeypatch.setattr(model, "compile", lambda: None)
    graph, budgets = whole_graph(model, backend), set()
    with compiled(model, wanted=True):
        for step in range(10):
            noise = Noise(step + 5, step % 3, 12)
            assert torch.equal(graph(images, noise).logits, model(images, noise).logits)
            budgets.add(model.budget)
            model.head.budget.rates.copy_(torch.tensor([generator.uniform(0.1, 1.0) for _ in range(2)]))
            model.head.budget.derive_counts()
    assert len(budgets) > 3
    assert backend.num_graphs == 1


def test_evaluation_is_compiled_once_whatever_the_images():
    model, backend = tiny_model(**FAMILIES["dinov3"]), CountingBackend()
    graph = whole_graph(model, backend)
    with torch.no_grad():
        for _ in range(3):
            graph(torch.randn(2, 3, 32, 32))
    assert backend.num_graphs == 1
