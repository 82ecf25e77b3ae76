"""What the tensors of a vision transformer, under timm's names, say about it: family, size, patch, registers."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from finevote.backbones.layout_steps import count_blocks

Shape = tuple[int, ...]
_SIZES = {192: "Ti", 384: "S", 768: "B", 1024: "L", 1152: "So400m", 1280: "H", 1408: "g", 1536: "g", 4096: "7B"}


@dataclass(frozen=True)
class Anatomy:
    """The sizes that make a backbone; two of the same anatomy take each other's weights.

    Attributes:
        dim: D.
        depth: blocks.
        patch: rows, columns in px; None where patches are not cut by one convolution.
        num_registers: register tokens beside CLS.
        mlp_width: features inside a block's MLP; of one branch, where it is gated.
        gated: whether the MLP has a gate.
        scaled: whether the branches are scaled (LayerScale).
        positions: whether there is a learned embedding of positions; else they are rotary.
        pre_norm: whether tokens are normalised before the first block.
        has_cls: whether there is a CLS token.
    """

    dim: int
    depth: int
    patch: tuple[int, int] | None
    num_registers: int
    mlp_width: int
    gated: bool
    scaled: bool
    positions: bool
    pre_norm: bool
    has_cls: bool

    def __str__(self) -> str:
        size = f"-{_SIZES[self.dim]}" if self.dim in _SIZES else ""
        patch = "" if self.patch is None else f"/{self.patch[0]}"
        registers = f", {self.num_registers} registers" if self.num_registers else ""
        mlp = f"{'gated ' if self.gated else ''}MLP of {self.mlp_width}"
        return f"{self._family} ViT{size}{patch} ({self.depth} blocks of width {self.dim}, {mlp}{registers})"

    @property
    def _family(self) -> str:
        if not self.positions and self.num_registers:
            return "DINOv3"
        if not self.has_cls:
            return "SigLIP"
        if self.pre_norm:
            return "CLIP"
        if self.scaled:
            return "DINOv2"
        return "EVA-02" if self.gated else "plain"


def dissect(shapes: Mapping[str, Shape]) -> Anatomy | None:
    """Return the anatomy of tensors under timm's names; None where they are no vision transformer's."""
    depth, norm = count_blocks(shapes), shapes.get("blocks.0.norm1.weight")
    if norm is None:
        return None
    dim = norm[0]
    kernel = shapes.get("patch_embed.proj.weight", ())
    inner = shapes.get("blocks.0.mlp.fc1.weight") or shapes.get("blocks.0.mlp.fc1_x.weight", (0, 0))
    outer = shapes.get("blocks.0.mlp.fc2.weight", (0, 0))
    return Anatomy(
        dim=dim,
        depth=depth,
        patch=(kernel[2], kernel[3]) if len(kernel) == 4 else None,
        num_registers=shapes.get("reg_token", (1, 0, dim))[1],
        mlp_width=outer[-1],
        gated="blocks.0.mlp.fc1_g.weight" in shapes or inner[0] == 2 * outer[-1] > 0,
        scaled=_has(shapes, r"blocks\.0\.(ls1\.gamma|gamma_1)"),
        positions="pos_embed" in shapes,
        pre_norm="norm_pre.weight" in shapes,
        has_cls="cls_token" in shapes,
    )


def _has(keys: Iterable[str], pattern: str) -> bool:
    return any(re.fullmatch(pattern, key) for key in keys)
