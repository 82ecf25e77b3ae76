import pytest
import torch
from lightning.fabric import Fabric
from torch.nn.functional import one_hot

from finevote.build import build_loss, build_model
from finevote.model import FineGrainedClassifier
from finevote.training.step import accumulate
from finevote.training.telemetry import CollapseWatch
from finevote.types import Batch
from tests.models import tiny_config

NOISY = {"model__dropout": 0.3, "model__drop_path": 0.4}


def make_batch(num_images=8, num_classes=4):
    generator = torch.Generator().manual_seed(5)
    labels = torch.arange(num_images) % num_classes
    return Batch(torch.randn(num_images, 3, 32, 32, generator=generator), labels, torch.arange(num_images))


def gradients(*, micro_batch, weight=0.5, batch=None, **changes):
    config = tiny_config(loss__triplet_weight=weight, **changes)
    fabric = Fabric(accelerator="cpu", devices=1)
    model = fabric.setup_module(build_model(config, num_classes=4)).train()
    result = accumulate(
        fabric,
        model,
        batch or make_batch(),
        build_loss(config),
        triplet_weight=weight,
        micro_batch=micro_batch,
        noise_seed=11,
    )
    return {name: parameter.grad for name, parameter in model.module.named_parameters()}, result


@pytest.mark.parametrize("micro_batch", [1, 2, 3, 8])
def test_gradients_do_not_depend_on_the_micro_batch_dropout_and_drop_path_included(micro_batch):
    whole, expected = gradients(micro_batch=None, **NOISY)
    cut, result = gradients(micro_batch=micro_batch, **NOISY)
    for name, gradient in whole.items():
        torch.testing.assert_close(cut[name], gradient, rtol=1e-4, atol=1e-5, msg=name)
    torch.testing.assert_close(result.losses, expected.losses)
    assert torch.equal(result.layer_picks, expected.layer_picks)
    assert result.num_correct == expected.num_correct


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_gradients_equal_a_plain_backward_of_the_whole_objective(weight):
    config = tiny_config(loss__triplet_weight=weight)
    loss, batch = build_loss(config), make_batch()
    model = build_model(config, num_classes=4).train()
    output = model(batch.images)
    objective = loss.combine(loss.classification(output, batch.labels)) / 8
    (objective + weight * loss.triplet(output.embedding, batch.labels)).backward()
    ours, result = gradients(micro_batch=2, weight=weight)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert result.losses["total"].item() == pytest.approx(
        (objective + weight * loss.triplet(output.embedding, batch.labels)).item(), rel=1e-5
    )


def test_mining_in_each_micro_batch_alone_would_be_wrong():
    """The defect of the predecessors: with sub-batches of one no triplet exists and the loss is 0."""
    _, result = gradients(micro_batch=1)
    assert result.losses["triplet"] > 0.1


def test_the_noise_is_really_on():
    with_noise, _ = gradients(micro_batch=None, **NOISY)
    without, _ = gradients(micro_batch=None)
    assert not torch.allclose(with_noise["head.classifier.weight"], without["head.classifier.weight"])


def test_soft_targets_are_used_and_accuracy_counts_hard_labels():
    batch = make_batch()
    answers = build_model(tiny_config(), num_classes=4)(batch.images).logits.argmax(1)
    labels = torch.where(torch.arange(8) < 3, answers, (answers + 1) % 4)  # three of eight are right
    soft = 0.4 * one_hot(labels, 4) + 0.6 * one_hot(answers, 4)  # the larger share is right for all eight
    blended, of_soft = gradients(micro_batch=2, weight=0.0, batch=batch._replace(labels=labels, targets=soft))
    hard, of_hard = gradients(micro_batch=2, weight=0.0, batch=batch._replace(labels=labels))
    assert not torch.allclose(blended["head.classifier.weight"], hard["head.classifier.weight"])
    assert (of_soft.num_correct, of_hard.num_correct) == (3, 3)


def test_the_plain_backbone_reports_no_picks():
    _, result = gradients(micro_batch=4, model__voting__enabled=False)
    assert result.layer_picks is None
    assert set(result.losses) == {"part", "triplet", "total"}


@pytest.mark.parametrize("margin", [1.0, "soft"])
@pytest.mark.parametrize("all_equal", [True, False])
def test_a_collapse_is_seen_in_the_figures_of_a_step_whose_embeddings_are_all_equal(margin, all_equal):
    batch = make_batch()
    if all_equal:
        batch = batch._replace(images=batch.images[:1].expand_as(batch.images))
    _, result = gradients(micro_batch=None, batch=batch, loss__triplet_margin=margin)
    watch = CollapseWatch(margin=margin, patience=1)
    assert watch.see(triplet=result.losses["triplet"].item(), spread=result.embedding_spread.item()) is all_equal


@pytest.mark.parametrize(
    ("weight", "micro_batch", "num_passes"), [(0.5, None, 1), (0.5, 4, 3), (0.5, 3, 5), (0.5, 1, 15), (0.0, 2, 4)]
)
def test_only_chunks_that_the_triplet_cannot_keep_are_run_twice(monkeypatch, weight, micro_batch, num_passes):
    """n chunks of 8 images: 2n - 1 passes with the triplet, of which n have a graph, and n without it."""
    with_graph = []
    forward = FineGrainedClassifier.forward

    def counted(self, images, noise=None):
        with_graph.append(torch.is_grad_enabled())
        return forward(self, images, noise)

    monkeypatch.setattr(FineGrainedClassifier, "forward", counted)
    gradients(micro_batch=micro_batch, weight=weight)
    assert len(with_graph) == num_passes
    assert sum(with_graph) == -(-8 // (micro_batch or 8))
