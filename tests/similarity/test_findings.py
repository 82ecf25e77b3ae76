import json
from dataclasses import replace

import numpy as np
import pytest

from finevote.similarity.features import VoteArrays
from finevote.similarity.findings import BudgetStep, Similarity, budget_steps, summarize_votes

MAP = np.array([[1, 0.9, 0.5], [0.9, 1, 0.6], [0.5, 0.6, 1]])
FOUND = Similarity(
    run="run",
    data="birds",
    split="val",
    num_images=40,
    weights_sha256="0" * 64,
    keep_rate=1.0,
    batch_size=64,
    seed=0,
    layers=("layer 1", "layer 2", "refinement"),
    cka={kind: {"minibatch": MAP, "standard": MAP} for kind in ("cls", "patches")},
    budget=(BudgetStep(1.0, (5, 5)), BudgetStep(2.0, (3, 7))),
    moves_by="yield",
)


def votes(num_images=30):
    rng = np.random.default_rng(0)
    first = rng.integers(1, 4, num_images) / 4
    heads = rng.uniform(0.1, 0.5, (num_images, 2, 3)).astype(np.float32)
    heads[:, 1, 2] = 0.75
    return VoteArrays((6, 4), np.stack([first, 1 - first], axis=1), heads, np.full(num_images, 0.25), True)


def test_the_change_that_stands_out_is_the_least_of_the_neighbours():
    assert FOUND.cka_summary() == "CLS changes most from layer 2 to refinement: CKA 0.60"


def test_layers_that_tell_no_images_apart_are_said_to():
    nothing = np.full((3, 3), np.nan)
    found = replace(FOUND, cka={kind: {"minibatch": nothing, "standard": nothing} for kind in ("cls", "patches")})
    assert found.cka_summary() == "The layers tell no images apart"
    json.loads(json.dumps(found.to_dict(), allow_nan=False))


def test_the_budget_is_told_by_the_layer_that_gained_most():
    assert FOUND.budget_summary() == "Layer 2 gains most of the budget: 5 to 7 of 10 tokens"


@pytest.mark.parametrize(
    ("moves_by", "reason"), [("off", "its setting is off"), ("yield", "layers stayed as they began")]
)
def test_a_budget_that_did_not_move_says_so(moves_by, reason):
    still = replace(FOUND, budget=(BudgetStep(1.0, (5, 5)),) * 2, moves_by=moves_by)
    assert still.budget_summary().startswith("The budget did not move")
    assert reason in still.budget_summary()


def test_steps_lie_between_their_epochs():
    rows = [
        {"kind": "step", "epoch": 1, "step": 10, "budget": [5, 5]},
        {"kind": "epoch", "epoch": 1, "step": 20, "budget": [5, 5]},
        {"kind": "step", "epoch": 2, "step": 30, "budget": [4, 6]},
        {"kind": "epoch", "epoch": 2, "step": 40},
    ]
    assert budget_steps(rows) == (BudgetStep(0.5, (5, 5)), BudgetStep(1.0, (5, 5)), BudgetStep(1.5, (4, 6)))


def test_votes_are_means_over_images_with_intervals():
    given = votes()
    found = summarize_votes(given)
    assert found.offered == (0.6, 0.4)
    assert found.key[0].value == pytest.approx(given.key_shares[:, 0].mean())
    assert found.key[0].low < found.key[0].value < found.key[0].high
    assert found.best_head == (1, 2)
    assert "layer 2 head 3 agrees most" in found.head_summary()


def test_an_image_alone_tells_nothing_of_others():
    found = summarize_votes(votes(num_images=1))
    assert (found.key[0].low, found.key[0].high) == (0.0, 1.0)


def test_everything_is_ready_for_json():
    values = json.loads(json.dumps(replace(FOUND, votes=summarize_votes(votes())).to_dict(), allow_nan=False))
    assert values["cka"]["cls"]["minibatch"] == MAP.tolist()
    assert values["budget"] == [{"epochs": 1.0, "counts": [5, 5]}, {"epochs": 2.0, "counts": [3, 7]}]
    assert len(values["votes"]["heads"][0]) == 3
