import time

import pytest
import torch

from finevote.backbones import layer as backbone_layer
from finevote.bench.breakdown import BEYOND, Stopwatch, doors, measure_breakdown
from tests.bench.cases import tiny_plan
from tests.models import tiny_model


def test_a_part_stands_still_while_it_calls_another():
    watch = Stopwatch(lambda: None)
    inner = watch.wrap(lambda: time.sleep(0.05), "inner")
    with watch.part("outer"):
        inner()
    assert watch.seconds["inner"] >= 0.05
    assert watch.seconds["outer"] < watch.seconds["inner"]


def test_parts_add_up_to_the_forward_pass_and_shares_to_one():
    (samples,) = measure_breakdown(tiny_plan(rounds=3))
    shares = {sample.part: sample.raw for sample in samples if sample.quantity == "time share"}
    own = {"embedding", "blocks", "rows", "ballots", "smoothing", "selection", "refinement", "key", "logits", "rest"}
    assert set(shares) == own | {BEYOND}
    for number in range(3):
        assert sum(shares[part][number] for part in own) == pytest.approx(1)
        beyond = sum(shares[part][number] for part in own - {"embedding", "blocks"})
        assert shares[BEYOND][number] == pytest.approx(beyond)


def test_the_doors_change_no_answer_and_are_gone_afterwards():
    model, images = tiny_model(), torch.randn(2, 3, 32, 32)
    rows = backbone_layer.cls_attention_rows
    with torch.no_grad():
        before = model(images).logits
        with doors(model, Stopwatch(lambda: None)):
            assert backbone_layer.cls_attention_rows is not rows
            assert torch.equal(model(images).logits, before)
    assert backbone_layer.cls_attention_rows is rows
    assert "read" not in vars(model.backbone.layers[0])
