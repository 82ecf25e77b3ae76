"""Operations of one image's forward pass, by arithmetic: two for each multiply-add of a product or convolution."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from finevote.backbones.catalogue import build_backbone
from finevote.bench.contenders import OURS, PLAIN, PLAIN_CLS, config_of, count_tokens
from finevote.bench.plan import Plan, What
from finevote.bench.results import Sample
from finevote.build import as_pair

Parts = dict[str, int]
TOTAL = "total"
_GIGA = 1e9


def measure_operations(plan: Plan) -> Iterator[list[Sample]]:
    """Yield the operations of ours and of both plain models, part by part, with the ratio of the totals."""
    for case in plan.plain_cases():
        model = config_of(case).model
        backbone = build_backbone(model.backbone, image_size=as_pair(case.size), timm_args=model.backbone_args)
        counted = {
            PLAIN.name: plain_operations(backbone, num_classes=case.num_classes, cls_alone=False),
            PLAIN_CLS.name: plain_operations(backbone, num_classes=case.num_classes, cls_alone=True),
            OURS.name: operations_of(OURS.build(case).model.eval()),
        }
        whole = sum(counted[PLAIN.name].values())
        num_tokens = count_tokens(case)
        samples = []
        for name, parts in counted.items():
            for part, number in {**parts, TOTAL: sum(parts.values())}.items():
                samples.append(Sample(What.OPERATIONS, "operations", name, number / _GIGA, "G", part=part))
            ratio = sum(parts.values()) / whole
            if name != PLAIN.name:
                samples.append(Sample(What.OPERATIONS, "operations ratio", name, ratio, "", part=TOTAL))
        yield [sample.of(case, num_tokens=num_tokens) for sample in samples]


def operations_of(model: Any) -> Parts:
    """Return the operations of each part of a voting classifier, in evaluation; some grow with what was kept before."""
    backbone, head = model.backbone, model.head
    num_layers, num_selected = len(backbone.layers), head.budget.total
    num_patches, num_merged = backbone.num_patches, 0
    parts: Parts = {"embedding": embedding_operations(backbone), "blocks": 0, "rows": 0, "merging": 0}
    for index, layer in enumerate(backbone.layers):
        num_tokens = backbone.num_prefix + num_patches + num_merged
        is_spare = index == num_layers - 1 and not head.reads_every_patch
        num_written = 1 + head.budget.counts[index] if is_spare else None
        parts["blocks"] += block_operations(layer, num_tokens=num_tokens, num_written=num_written)
        parts["rows"] += row_operations(layer, num_tokens=num_tokens, has_query=not is_spare)
        if head.merge:
            parts["merging"] += 2 * num_patches * backbone.dim
        num_needed = max([head.num_votes_per_head, *head.budget.counts[index + 1 :]])
        num_kept = head.reduction.num_kept(index, num_patches, num_needed=num_needed)
        if num_kept < num_patches and not is_spare:
            parts["merging"] += 2 * (num_patches + num_merged) * backbone.dim
            num_patches, num_merged = num_kept, 1
    num_tokens = 1 + num_selected + (num_layers if head.merge else 0)
    classifier = 2 * head.classifier.weight.numel()
    parts["logits"] = classifier * ((head.refine is not None) + (head.key is not None))
    if head.refine is not None:
        num_keys = min(head.num_key_tokens, num_selected)
        layer = head.refine.layer
        parts["refinement"] = block_operations(layer, num_tokens=num_tokens, num_written=1 + num_keys)
        parts["rows"] += row_operations(layer, num_tokens=num_tokens, has_query=False)
        num_tokens = 1 + num_keys
    if head.key is not None:
        parts["key"] = block_operations(head.key.layer, num_tokens=num_tokens, num_written=1)
    return {part: number for part, number in parts.items() if number}


def plain_operations(backbone: Any, *, num_classes: int, cls_alone: bool) -> Parts:
    """Return the operations of the plain model over a backbone, its last block for every token or for CLS alone."""
    *layers, last = backbone.layers
    num_tokens = backbone.num_prefix + backbone.num_patches - (not last.cls_is_key)  # no summary token in timm's own
    blocks = sum(block_operations(layer, num_tokens=num_tokens, num_written=None) for layer in layers)
    blocks += block_operations(last, num_tokens=num_tokens, num_written=1 if cls_alone else None)
    return {"embedding": embedding_operations(backbone), "blocks": blocks, "logits": 2 * backbone.dim * num_classes}


def block_operations(layer: Any, *, num_tokens: int, num_written: int | None) -> int:
    """Return the operations of a block over N tokens that writes n of them, or all (None): 2 for each weight a token.

    Keys and values are made of every token, queries, output projection and MLP of those that are written; each of
    these attends to all: 2 n N H d for the scores, and as many for the mixing.
    """
    attention, written = layer.attn, num_tokens if num_written is None else num_written
    queries, keys_and_values = _projections(attention)
    after = _linear(attention.proj) + _linear(attention.gate) + _linear(layer.mlp)
    mixing = 4 * written * _num_keys(layer, num_tokens) * _width(attention)
    return 2 * num_tokens * keys_and_values + 2 * written * (queries + after) + mixing


def row_operations(layer: Any, *, num_tokens: int, has_query: bool) -> int:
    """Return the operations of a block's CLS rows: one query against N keys, and that query if nobody has made it."""
    attention = layer.attn
    query = 0 if has_query else 2 * _projections(attention)[0]
    return query + 2 * _num_keys(layer, num_tokens) * _width(attention)


def embedding_operations(backbone: Any) -> int:
    """Return the operations of the convolutions that make patches."""
    rows, columns = backbone.image_size
    total = 0
    for module in backbone.embedding.patch_embed.modules():
        if isinstance(module, nn.Conv2d):
            convolution: Any = module
            rows, columns = (
                (side + 2 * padding - kernel) // stride + 1
                for side, padding, kernel, stride in zip(
                    (rows, columns), convolution.padding, convolution.kernel_size, convolution.stride, strict=True
                )
            )
            total += 2 * module.weight.numel() * rows * columns
    return total


def _num_keys(layer: Any, num_tokens: int) -> int:
    return num_tokens if layer.cls_is_key else num_tokens - 1


def _width(attention: Any) -> int:
    """Return H d."""
    return int(attention.num_heads * attention.head_dim)


def _projections(attention: Any) -> tuple[int, int]:
    """Return the weights that make queries, and those that make keys and values."""
    if attention.qkv is None:
        return _linear(attention.q_proj), _linear(attention.k_proj) + _linear(attention.v_proj)
    third = _linear(attention.qkv) // 3
    return third, 2 * third


def _linear(module: nn.Module | None) -> int:
    """Return the numbers in the matrices of a module's linear layers."""
    if module is None:
        return 0
    return sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))
