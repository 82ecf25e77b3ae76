"""One transformer block of a timm model: it gives its tokens and the CLS attention rows of its heads."""

from typing import Any, NamedTuple

from timm.layers import LayerScale
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from finevote.backbones.cls_attention import cls_attention_rows
from finevote.backbones.projection import check_attention, join_heads, project
from finevote.backbones.rotary import look_up, rotate
from finevote.errors import UnsupportedModelError
from finevote.noise import Noise, RowDropPath


class LayerOutput(NamedTuple):
    """tokens (B, N, D) after the block; rows (B, H, N - num_prefix) float32, or None where they were not asked for."""

    tokens: Tensor
    rows: Tensor | None


class VitLayer(nn.Module):
    """One pre-norm transformer block, holding the weights of a timm `Block` or `EvaBlock`.

    Attention runs fused; the rows are read beside it from the same queries and keys. Drop-path follows `Noise`.

    Args:
        block: the timm block; one whose attention cannot be read is refused by name.
        rotation: gives the table of rotary positions; None without.
        cls_is_key: False for a summary token that only listens: no token attends to it, itself included.
        drop_path: rate of both residual branches.
        stream: number of this layer's random streams; different for every layer of a model.

    Raises:
        UnsupportedModelError: the block's attention cannot be read, or it drops elements by itself.
    """

    def __init__(
        self,
        block: Any,
        *,
        rotation: nn.Module | None = None,
        cls_is_key: bool = True,
        drop_path: float = 0.0,
        stream: int = 0,
    ) -> None:
        super().__init__()
        check_block(block)
        self.norm1: nn.Module = block.norm1
        self.attn: Any = block.attn
        self.ls1 = _layer_scale(block, 1)
        self.norm2: nn.Module = block.norm2
        self.mlp: nn.Module = block.mlp
        self.ls2 = _layer_scale(block, 2)
        self.rotation = rotation
        self.cls_is_key = cls_is_key
        self.drop_path1 = RowDropPath(drop_path, stream=2 * stream)
        self.drop_path2 = RowDropPath(drop_path, stream=2 * stream + 1)

    def with_stream(self, stream: int) -> "VitLayer":
        """Give a copied layer random streams of its own; return it."""
        self.drop_path1.stream, self.drop_path2.stream = 2 * stream, 2 * stream + 1
        return self

    def forward(
        self,
        tokens: Tensor,
        *,
        num_prefix: int,
        patches: Tensor | None = None,
        noise: Noise | None = None,
        with_rows: bool = True,
    ) -> LayerOutput:
        """Return the block's output for tokens (B, N, D), CLS first.

        Args:
            tokens: the prefix, then patch tokens.
            num_prefix: CLS and register tokens.
            patches: (B, N - num_prefix) the patch number of each token after the prefix, NO_PATCH for one without;
                None for all patches in order. It tells rotary positions apart, and nothing else.
            noise: of this batch.
            with_rows: whether the CLS attention rows of the tokens after the prefix are wanted.
        """
        attended, rows = self._attend(self.norm1(tokens), num_prefix=num_prefix, patches=patches, with_rows=with_rows)
        tokens = tokens + self.drop_path1(self.ls1(attended), noise)
        tokens = tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))), noise)
        return LayerOutput(tokens, rows)

    def _attend(
        self, tokens: Tensor, *, num_prefix: int, patches: Tensor | None, with_rows: bool
    ) -> tuple[Tensor, Tensor | None]:
        queries, keys, values = project(self.attn, tokens)  # (B, H, N, d) each
        if self.rotation is not None:
            rotation = look_up(self.rotation(), patches, num_prefix=num_prefix)
            queries, keys = (rotate(part, rotation, halves=self.attn.rotate_half) for part in (queries, keys))
        if not self.cls_is_key:
            keys, values, num_prefix = keys[:, :, 1:], values[:, :, 1:], num_prefix - 1
        mixed = F.scaled_dot_product_attention(queries, keys, values)  # (B, H, N, d)
        rows = cls_attention_rows(queries, keys, scale=self.attn.scale, num_prefix=num_prefix) if with_rows else None
        return join_heads(self.attn, tokens, mixed), rows


def _layer_scale(block: Any, number: int) -> nn.Module:
    """Return a branch's scale as a module; an EvaBlock holds the bare parameter."""
    if isinstance(block, Block):
        return getattr(block, f"ls{number}")  # type: ignore[no-any-return]
    gamma = getattr(block, f"gamma_{number}")
    if gamma is None:
        return nn.Identity()
    scale = LayerScale(len(gamma), init_values=block.init_values, device="meta")
    scale.gamma = gamma
    return scale  # type: ignore[no-any-return]


def check_block(block: Any) -> None:
    """Raise UnsupportedModelError, naming it, unless a timm block's CLS rows can be read and it drops nothing."""
    if type(block) not in (Block, EvaBlock):
        raise UnsupportedModelError(
            f"{type(block).__name__} is not supported: its attention cannot be read as CLS rows; "
            "choose a timm model of plain pre-norm blocks (`Block` or `EvaBlock`)"
        )
    check_attention(block.attn)
    if any(isinstance(module, nn.Dropout) and module.p > 0 for module in block.modules()):
        raise UnsupportedModelError(
            "dropout inside blocks (attn_drop_rate, proj_drop_rate) is not supported: "
            "use model.dropout and model.drop_path"
        )
