"""A case that takes a moment: three narrow blocks on 16 patches."""

from dataclasses import replace

from finevote.bench.plan import Case, Plan

SETTINGS = (
    "model.backbone_args={patch_size: 8, embed_dim: 24, depth: 3, num_heads: 3}",
    "model.voting.num_votes_per_head=4",
    "model.voting.num_selected=10",
    "model.voting.num_key_tokens=4",
)


def tiny_case(*, more=(), **changes):
    """Return the case; `more` settings follow those that make it small."""
    case = Case("vit_tiny_patch16_224", 32, batch=4, num_classes=5, overrides=(*SETTINGS, *more))
    return replace(case, **changes)


def tiny_plan(**changes):
    plan = Plan(
        backbones=("vit_tiny_patch16_224",),
        sizes=(32,),
        batch=4,
        num_classes=5,
        rounds=2,
        overrides=SETTINGS,
        workers=0,
    )
    return replace(plan, **changes)
