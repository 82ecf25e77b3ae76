import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner

from finevote.losses.triplet import batch_hard_triplet, embedding_spread

margins = st.one_of(st.just("soft"), st.floats(0.05, 3.0))


def random_batch(seed, *, images=10, classes=3, dim=5):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=generator)
    return torch.randn(images, dim, generator=generator), labels


def triple_loop(embeddings, labels, margin):
    losses = []
    for a in range(len(labels)):
        to_positive = [
            math.dist(embeddings[a], embeddings[p]) for p in range(len(labels)) if p != a and labels[p] == labels[a]
        ]
        to_negative = [math.dist(embeddings[a], embeddings[n]) for n in range(len(labels)) if labels[n] != labels[a]]
        if to_positive and to_negative:
            gap = max(to_positive) - min(to_negative)
            losses.append(math.log1p(math.exp(gap)) if margin == "soft" else max(0.0, margin + gap))
    return sum(losses) / len(losses) if losses else 0.0


@given(seed=st.integers(0, 10_000), margin=margins, classes=st.integers(1, 10))
def test_the_loss_equals_a_triple_loop(seed, margin, classes):
    embeddings, labels = random_batch(seed, classes=classes)
    expected = triple_loop(embeddings.tolist(), labels.tolist(), margin)
    assert batch_hard_triplet(embeddings, labels, margin=margin).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_loss_equals_pytorch_metric_learning(normalize):
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.reducers import MeanReducer

    embeddings, labels = random_batch(0, images=24, classes=4)
    distance = LpDistance(normalize_embeddings=normalize)
    loss = TripletMarginLoss(margin=2.0, distance=distance, reducer=MeanReducer())
    expected = loss(embeddings, labels, BatchHardMiner(distance=distance)(embeddings, labels))
    ours = batch_hard_triplet(embeddings, labels, margin=2.0, normalize=normalize)
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 1000))
def test_the_loss_does_not_depend_on_batch_order(seed):
    embeddings, labels = random_batch(seed)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    shuffled = batch_hard_triplet(embeddings[order], labels[order], margin=1.0)
    torch.testing.assert_close(shuffled, batch_hard_triplet(embeddings, labels, margin=1.0))


@pytest.mark.parametrize(("margin", "collapsed"), [(0.2, 0.2), ("soft", math.log(2))])
def test_collapsed_embeddings_show_as_the_margin_with_a_finite_gradient_and_no_spread(margin, collapsed):
    embeddings = torch.ones(6, 4, requires_grad=True)
    loss = batch_hard_triplet(embeddings, torch.tensor([0, 0, 1, 1, 2, 2]), margin=margin)
    loss.backward()
    assert loss.item() == pytest.approx(collapsed, abs=1e-5)
    assert embeddings.grad.isfinite().all()
    assert embedding_spread(embeddings.detach()).item() < 1e-6


def test_nearly_collapsed_embeddings_still_get_a_gradient():
    embeddings = (torch.ones(6, 4) + 1e-4 * torch.randn(6, 4)).requires_grad_()
    batch_hard_triplet(embeddings, torch.tensor([0, 0, 1, 1, 2, 2]), margin=0.2).backward()
    assert embeddings.grad.norm() > 0.1


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [0, 0, 0, 0]])
def test_a_batch_without_any_triplet_is_zero_with_a_zero_gradient(labels):
    embeddings = torch.randn(4, 3, requires_grad=True)
    loss = batch_hard_triplet(embeddings, torch.tensor(labels), margin=1.0)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(embeddings.grad, torch.zeros(4, 3))


def test_distances_are_float32_also_under_autocast():
    embeddings, labels = random_batch(3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = batch_hard_triplet(embeddings, labels, margin=1.0)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, batch_hard_triplet(embeddings, labels, margin=1.0))


def test_the_gradient_is_right():
    embeddings, labels = random_batch(1, images=6)
    embeddings = embeddings.requires_grad_()
    loss = batch_hard_triplet(embeddings, labels, margin=3.0)
    (analytic,) = torch.autograd.grad(loss, embeddings)
    step, direction = 1e-2, torch.randn_like(embeddings)
    up = batch_hard_triplet(embeddings.detach() + step * direction, labels, margin=3.0)
    down = batch_hard_triplet(embeddings.detach() - step * direction, labels, margin=3.0)
    assert ((up - down) / (2 * step)).item() == pytest.approx((analytic * direction).sum().item(), rel=1e-2)


def test_spread_of_independent_directions_is_near_one():
    assert embedding_spread(torch.randn(2000, 64)).item() == pytest.approx(1.0, abs=0.01)
