import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from finevote.backbones.catalogue import build_backbone
from finevote.bench.contenders import OURS, PLAIN, PLAIN_CLS, config_of
from finevote.bench.operations import measure_operations, operations_of, plain_operations
from finevote.bench.plan import What
from tests.bench.cases import SETTINGS as SETTINGS_OF_CASE
from tests.bench.cases import tiny_case, tiny_plan
from tests.models import FAMILIES, tiny_model

SETTINGS = {
    "defaults": {},
    "rectangular": {"data__image_size": [24, 48], "data__resize": [30, 60]},
    "merged": {"model__voting__merge": True},
    "no key": {"model__voting__key": False},
    "no refinement": {"model__voting__refine": False},
    "fewer tokens": {"model__voting__keep_rate": 0.6},
    "convolutional stem": {
        "model__backbone": "compact_vit",
        "model__backbone_args": {"patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4},
    },
    **{name: FAMILIES[name] for name in ("dinov2 with registers", "dinov3", "dinov3 H+", "clip", "siglip2", "eva02")},
}


def count(model, image_size):
    """Return what PyTorch counts in a forward pass of one image."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, *image_size))
    return counter.get_total_flops()


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_the_parts_add_up_to_what_pytorch_counts(changes):
    model = tiny_model(**changes)
    assert sum(operations_of(model).values()) == count(model, model.backbone.image_size)


@pytest.mark.parametrize("family", ["dinov2 with registers", "dinov3", "clip", "eva02"])
@pytest.mark.parametrize(("contender", "cls_alone"), [(PLAIN, False), (PLAIN_CLS, True)])
def test_those_of_the_plain_models_do_too(family, contender, cls_alone):
    case = tiny_case(backbone=FAMILIES[family]["model__backbone"])
    args = config_of(case).model.backbone_args
    backbone = build_backbone(case.backbone, image_size=(32, 32), timm_args=args)
    parts = plain_operations(backbone, num_classes=5, cls_alone=cls_alone)
    assert sum(parts.values()) == count(contender.build(case).model.eval(), (32, 32))


def test_totals_have_their_ratio_to_plain():
    (samples,) = measure_operations(tiny_plan(whats=(What.OPERATIONS,)))
    totals = {s.contender: s.value for s in samples if (s.quantity, s.part) == ("operations", "total")}
    ratios = {s.contender: s.value for s in samples if s.quantity == "operations ratio"}
    assert totals["plain_cls"] < totals["plain"]
    assert ratios == {name: totals[name] / totals["plain"] for name in ("plain_cls", "ours")}
    assert sum(operations_of(OURS.build(tiny_case()).model).values()) == totals["ours"] * 1e9


def test_patches_that_leave_in_evaluation_are_not_counted():
    deep = (*SETTINGS_OF_CASE, "model.backbone_args={patch_size: 8, embed_dim: 24, depth: 5, num_heads: 3}")
    totals = []
    for rate in (1.0, 0.5):
        plan = tiny_plan(overrides=(*deep, f"model.voting.keep_rate={rate}"))
        (samples,) = measure_operations(plan)
        totals += [s.value for s in samples if (s.contender, s.quantity, s.part) == ("ours", "operations", "total")]
    assert totals[1] < 0.95 * totals[0]
