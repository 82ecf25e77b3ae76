"""Where the class is told by one small patch, patches taken away by votes must lower the answer, and reversed not."""

import numpy as np
import pytest
import torch

from finevote.evaluation import faithfulness
from finevote.evaluation.faithfulness import follow_orders
from finevote.evaluation.faithfulness_figures import measure_faithfulness
from finevote.evaluation.patch_orders import order_by_votes
from finevote.types import Batch, Predictions, Record
from tests.planted_cue import SIDE, draw_images, train_model

pytestmark = pytest.mark.slow
NUM_IMAGES, NUM_STEPS = 48, 9


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return train_model(num_steps=150)


@pytest.fixture(scope="module")
def planted():
    return draw_images(NUM_IMAGES, seed=1)


def follow(model, planted):
    """Return what deletion and insertion show of images that the model has not seen, by kind and pair of orders."""
    images, labels, _ = planted
    records = [Record(image_id=str(row), label=int(label)) for row, label in enumerate(labels)]
    loader = [Batch(images[rows], labels[rows], rows) for rows in torch.arange(NUM_IMAGES).split(16)]
    curves = follow_orders(model, loader, records=records, device="cpu", num_steps=NUM_STEPS)
    predictions = Predictions(curves.image_ids, labels.numpy(), np.zeros((NUM_IMAGES, 4), np.float32))
    found = measure_faithfulness(curves, predictions)
    return {(row.kind, row.versus): row for row in found.differences}, found


def test_the_class_is_learnt_and_the_most_voted_patch_is_the_planted_one(model, planted):
    images, labels, places = planted
    with torch.inference_mode():
        output = model(images)
    assert (output.logits.argmax(1) == labels).float().mean() > 0.95
    hits = (order_by_votes(output.votes)[:, 0] == places).float().mean()
    assert hits > 10 / SIDE**2


def test_deletion_by_votes_drops_the_score_faster_than_at_random(model, planted):
    rows, found = follow(model, planted)
    row = rows["deletion", "random"]
    assert row.difference.high < 0
    assert row.shown == "better"
    assert rows["insertion", "random"].difference.low > 0
    assert found.headline() == "voted patches matter more than random ones"


def test_votes_the_other_way_round_do_not_pass(model, planted, monkeypatch):
    monkeypatch.setattr(faithfulness, "order_by_votes", lambda votes: order_by_votes(votes).flip(1))
    rows, found = follow(model, planted)
    assert rows["deletion", "random"].difference.low > 0
    assert rows["deletion", "random"].shown == "worse"
    assert rows["insertion", "random"].shown == "worse"
    assert found.headline() == "voted patches matter less than random ones"


def test_votes_that_know_nothing_of_the_image_do_not_pass(model, planted, monkeypatch):
    def of_another_image(votes):
        return order_by_votes(votes).roll(1, dims=0)

    monkeypatch.setattr(faithfulness, "order_by_votes", of_another_image)
    rows, _ = follow(model, planted)
    assert rows["deletion", "random"].shown != "better"


def test_the_same_figures_come_from_any_batches(model, planted):
    images, labels, _ = (part[:12] for part in planted)
    records = [Record(image_id=str(row), label=int(label)) for row, label in enumerate(labels)]

    def curves(size):
        loader = [Batch(images[rows], labels[rows], rows) for rows in torch.arange(12).split(size)]
        return follow_orders(model, loader, records=records, device="cpu", num_steps=4)

    whole, cut = curves(12), curves(5)
    assert whole.image_ids == cut.image_ids
    np.testing.assert_allclose(whole.deletion, cut.deletion, atol=1e-4)
    np.testing.assert_allclose(whole.insertion, cut.insertion, atol=1e-4)
