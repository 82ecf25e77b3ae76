import sys

import pytest
import torch

from finevote.bench.contenders import OURS, PLAIN, PLAIN_CLS, count_tokens, find_contender
from finevote.errors import ArgumentError, UnsupportedModelError
from tests.bench.cases import tiny_case
from tests.models import FAMILIES


@pytest.mark.parametrize("family", ["dinov2 with registers", "dinov3", "clip", "eva02", "learnt rotations"])
def test_a_last_block_of_cls_alone_leaves_the_plain_logits_as_they_were(family):
    case = tiny_case(backbone=FAMILIES[family]["model__backbone"])
    torch.manual_seed(0)
    plain = PLAIN.build(case).model.eval()
    torch.manual_seed(0)
    alone = PLAIN_CLS.build(case).model.eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(alone(images), plain(images), rtol=1e-5, atol=1e-5)


def test_without_a_cls_token_there_is_no_block_of_cls_alone():
    case = tiny_case(backbone=FAMILIES["siglip2"]["model__backbone"])
    assert PLAIN.build(case).model(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    with pytest.raises(UnsupportedModelError, match="plain_cls needs a CLS token"):
        PLAIN_CLS.build(case)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_counted_without_building_the_model(family):
    case = tiny_case(backbone=FAMILIES[family]["model__backbone"])
    backbone = OURS.build(case).model.backbone
    assert count_tokens(case) == backbone.num_patches + backbone.num_prefix


def test_the_loss_of_ours_has_the_triplet_that_the_settings_ask_for():
    losses = []
    for weight in (0, 0.1):
        case = tiny_case(more=(f"loss.triplet_weight={weight}",))
        built = OURS.build(case)
        torch.manual_seed(0)
        output = built.model.eval()(torch.randn(4, 3, 32, 32))
        losses.append(built.objective(output, torch.tensor([0, 0, 1, 1])))
    assert losses[1] > losses[0]


def test_a_contender_is_found_in_a_module(tmp_path, monkeypatch):
    (tmp_path / "rivals.py").write_text(
        "from finevote.bench.contenders import PLAIN, Contender\nMINE = Contender('mine', PLAIN.build)\nOTHER = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert find_contender("rivals:MINE").name == "mine"
    with pytest.raises(ArgumentError, match="rivals:OTHER must be a Contender, but is a int"):
        find_contender("rivals:OTHER")
    with pytest.raises(ArgumentError, match=r"rivals:THIRD cannot be imported: .*THIRD"):
        find_contender("rivals:THIRD")


@pytest.mark.parametrize("name", ["naive", ":NAIVE", "benchmarks.naive:"])
def test_a_contender_is_named_by_module_and_name(name):
    with pytest.raises(ArgumentError, match="must look like MODULE:NAME"):
        find_contender(name)
