"""One transformer block of a timm model: it gives its tokens and the CLS attention rows of its heads."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from timm.layers import LayerScale
from timm.models.eva import EvaBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from finevote.backbones.cls_attention import cls_attention_rows
from finevote.backbones.projection import Part, check_attention, join_heads, project
from finevote.backbones.rotary import look_up, rotate, take_turns
from finevote.errors import ArgumentError, UnsupportedModelError
from finevote.noise import Noise, RowDropPath


class LayerOutput(NamedTuple):
    """tokens (B, N, D) after the block; rows (B, H, N - num_prefix) float32, or None where they were not asked for."""

    tokens: Tensor
    rows: Tensor | None


class Heads(NamedTuple):
    """What attention is made from; queries None where the wanted tokens' alone are made when they are written."""

    normed: Tensor  # (B, N, D)
    queries: Tensor | None  # (B, H, N, d)
    keys: Tensor  # (B, H, N, d), one fewer with a summary token, which only listens
    values: Tensor  # likewise


@dataclass(slots=True)
class Reading:
    """What a block's attention has read; from it every token, or the wanted ones alone, can be written, once."""

    tokens: Tensor  # (B, N, D) as they came
    heads: Heads | None  # None once they are spent
    rotation: Tensor | None  # as `look_up` gives it
    rows: Tensor | None  # (B, H, N - num_prefix) float32, the CLS attention rows, if they were asked for

    def spend(self) -> Heads:
        """Hand over the heads and keep no hold of them, so that their memory is free for what comes next."""
        heads, self.heads = self.heads, None
        if heads is None:
            raise ArgumentError("a reading can be written once: read the tokens again")
        return heads


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
        """Return the block's output for tokens (B, N, D), CLS first; arguments as for `read` and `write`."""
        reading = self.read(tokens, num_prefix=num_prefix, patches=patches, with_rows=with_rows)
        return LayerOutput(self.write(reading, noise=noise), reading.rows)

    def read(
        self,
        tokens: Tensor,
        *,
        num_prefix: int,
        patches: Tensor | None = None,
        with_rows: bool = True,
        every_query: bool = True,
    ) -> Reading:
        """Return keys, values and CLS rows of tokens (B, N, D), CLS first: all that is known before any is written.

        Args:
            tokens: the prefix, then patch tokens.
            num_prefix: CLS and register tokens.
            patches: (B, N - num_prefix) the patch number of each token after the prefix, NO_PATCH for one without;
                None for all patches in order. It tells rotary positions apart, and nothing else.
            with_rows: whether the CLS attention rows of the tokens after the prefix are wanted.
            every_query: whether every token will be written; False leaves queries to `write`, for the wanted alone.
        """
        normed = self.norm1(tokens)
        rotation = None if self.rotation is None else look_up(self.rotation(), patches, num_prefix=num_prefix)
        queries: Tensor | None = None
        if every_query:
            queries, keys, values = project(self.attn, normed)  # (B, H, N, d) each
            queries = self._turn(queries, rotation)
        else:
            keys, values = project(self.attn, normed, (Part.KEYS, Part.VALUES))
        keys = self._turn(keys, rotation)
        if not self.cls_is_key:
            keys, values, num_prefix = keys[:, :, 1:], values[:, :, 1:], num_prefix - 1
        rows = None
        if with_rows:
            with torch.no_grad():  # the rows only rank
                asking = self._query(normed, rotation, _first(tokens)) if queries is None else queries
            rows = cls_attention_rows(asking, keys, scale=self.attn.scale, num_prefix=num_prefix)
        return Reading(tokens, Heads(normed, queries, keys, values), rotation, rows)

    def write(self, reading: Reading, *, wanted: Tensor | None = None, noise: Noise | None = None) -> Tensor:
        """Return the block's output for the tokens at `wanted`, (B, n, D), or for all of them, (B, N, D).

        Queries, output projection and MLP are computed for these tokens only, which changes none of them. A reading is
        written once: its keys and values are let go before the MLP, which needs the room.

        Args:
            reading: of this layer.
            wanted: (B, n) positions among the N tokens; None for every token.
            noise: of this batch.
        """
        tokens = reading.tokens if wanted is None else _take(reading.tokens, wanted)
        tokens = tokens + self.drop_path1(self.ls1(self._attend(reading, wanted)), noise)
        return tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))), noise)  # type: ignore[no-any-return]

    def _attend(self, reading: Reading, wanted: Tensor | None) -> Tensor:
        """Return the attention's output (B, n, D), and let go of what it was made from."""
        normed, queries, keys, values = reading.spend()
        if wanted is not None:
            queries = self._query(normed, reading.rotation, wanted)
            normed = _take(normed, wanted)
        if queries is None:
            raise ArgumentError("a reading without every query can only write wanted tokens: give `wanted`")
        mixed = F.scaled_dot_product_attention(queries, keys, values)  # (B, H, n, d)
        return join_heads(self.attn, normed, mixed)

    def _query(self, normed: Tensor, rotation: Tensor | None, wanted: Tensor) -> Tensor:
        """Return the queries (B, H, n, d) of the tokens at positions (B, n)."""
        (queries,) = project(self.attn, _take(normed, wanted), (Part.QUERIES,))
        return self._turn(queries, None if rotation is None else take_turns(rotation, wanted))

    def _turn(self, heads: Tensor, rotation: Tensor | None) -> Tensor:
        return heads if rotation is None else rotate(heads, rotation, halves=self.attn.rotate_half)


def _take(tokens: Tensor, positions: Tensor) -> Tensor:
    """Return tokens (B, n, D) at positions (B, n) of (B, N, D)."""
    return tokens.gather(1, positions[..., None].expand(-1, -1, tokens.shape[-1]))


def _first(tokens: Tensor) -> Tensor:
    """Return the position of CLS in every image, (B, 1)."""
    return tokens.new_zeros(tokens.shape[0], 1, dtype=torch.int64)


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
