"""A timm vision transformer as layers: each gives its tokens and the CLS attention rows of its heads."""

from typing import Any, NamedTuple

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from finevote.backbones.cls_attention import cls_attention_rows
from finevote.errors import UnsupportedModelError
from finevote.noise import Noise, RowDropPath


class LayerOutput(NamedTuple):
    """tokens (B, N, D) after the block; rows (B, H, N - num_prefix) float32, or None where they were not asked for."""

    tokens: Tensor
    rows: Tensor | None


class VitLayer(nn.Module):
    """One pre-norm transformer block, holding the weights of a timm `Block`.

    Attention runs fused; the rows are read beside it from the same queries and keys. Drop-path follows `Noise`.

    Args:
        block: a timm block with plain attention; anything else is refused by name.
        drop_path: rate of both residual branches.
        stream: number of this layer's random streams; different for every layer of a model.

    Raises:
        UnsupportedModelError: the block's attention cannot be read, or it drops elements by itself.
    """

    def __init__(self, block: Any, *, drop_path: float = 0.0, stream: int = 0) -> None:
        super().__init__()
        _check_block(block)
        self.norm1: nn.Module = block.norm1
        self.attn: Any = block.attn
        self.ls1: nn.Module = block.ls1
        self.norm2: nn.Module = block.norm2
        self.mlp: nn.Module = block.mlp
        self.ls2: nn.Module = block.ls2
        self.drop_path1 = RowDropPath(drop_path, stream=2 * stream)
        self.drop_path2 = RowDropPath(drop_path, stream=2 * stream + 1)

    def with_stream(self, stream: int) -> "VitLayer":
        """Give a copied layer random streams of its own; return it."""
        self.drop_path1.stream, self.drop_path2.stream = 2 * stream, 2 * stream + 1
        return self

    def forward(
        self, tokens: Tensor, *, num_prefix: int, noise: Noise | None = None, with_rows: bool = True
    ) -> LayerOutput:
        """Return the block's output for tokens (B, N, D), and the rows of the N - num_prefix tokens that follow."""
        attended, rows = self._attend(self.norm1(tokens), num_prefix=num_prefix, with_rows=with_rows)
        tokens = tokens + self.drop_path1(self.ls1(attended), noise)
        tokens = tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))), noise)
        return LayerOutput(tokens, rows)

    def _attend(self, tokens: Tensor, *, num_prefix: int, with_rows: bool) -> tuple[Tensor, Tensor | None]:
        attn = self.attn
        num_images, num_tokens, _ = tokens.shape
        qkv = attn.qkv(tokens).reshape(num_images, num_tokens, 3, attn.num_heads, -1)  # (B, N, 3, H, d)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, H, N, d) each
        queries, keys = attn.q_norm(queries), attn.k_norm(keys)
        mixed = F.scaled_dot_product_attention(queries, keys, values)  # (B, H, N, d)
        rows = cls_attention_rows(queries, keys, scale=attn.scale, num_prefix=num_prefix) if with_rows else None
        return attn.proj(mixed.transpose(1, 2).reshape(num_images, num_tokens, -1)), rows


class TimmVit(nn.Module):
    """The embedding, the layers and the final norm of a timm `VisionTransformer`.

    Attributes:
        dim: D.
        num_heads: H.
        num_prefix: CLS and register tokens, which stand before the patches.
        grid: rows, columns of patches.
        image_size: rows, columns in px.
        mean, std: the pixel statistics that the weights were trained with.
    """

    def __init__(self, vit: VisionTransformer, *, drop_path: float = 0.0) -> None:
        super().__init__()
        _check_vit(vit)
        self.embedding = TokenEmbedding(vit)
        depth = len(vit.blocks)
        self.layers = nn.ModuleList(
            VitLayer(block, drop_path=drop_path * i / max(depth - 1, 1), stream=i) for i, block in enumerate(vit.blocks)
        )
        self.norm: nn.Module = vit.norm
        self.dim: int = vit.embed_dim
        self.num_heads: int = vit.blocks[0].attn.num_heads
        self.num_prefix: int = vit.num_prefix_tokens
        self.grid: tuple[int, int] = tuple(vit.patch_embed.grid_size)
        self.image_size: tuple[int, int] = tuple(vit.patch_embed.img_size)
        self.mean: tuple[float, float, float] = tuple(vit.pretrained_cfg["mean"])
        self.std: tuple[float, float, float] = tuple(vit.pretrained_cfg["std"])

    @property
    def num_patches(self) -> int:
        """P."""
        return self.grid[0] * self.grid[1]

    def embed(self, images: Tensor) -> Tensor:
        """Return tokens (B, N, D) of images (B, 3, rows, columns), prefix tokens first."""
        return self.embedding(images)  # type: ignore[no-any-return]

    def detach_last_block(self) -> tuple[VitLayer, nn.Module]:
        """Remove and return the last layer and the final norm, from which the voting head's blocks start."""
        last = self.layers[-1]
        self.layers = self.layers[:-1]
        return last, self.take_norm()  # type: ignore[return-value]

    def take_norm(self) -> nn.Module:
        """Remove and return the final norm, for a head to own."""
        norm, self.norm = self.norm, nn.Identity()
        return norm


class TokenEmbedding(nn.Module):
    """Patches, prefix tokens and positions, as timm lays them out for this model."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.patch_embed = vit.patch_embed
        self.cls_token = vit.cls_token
        self.reg_token = vit.reg_token
        self.pos_embed = vit.pos_embed
        self.positions_on_patches_only: bool = vit.no_embed_class
        self.norm_pre = vit.norm_pre

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens (B, N, D) of images (B, 3, rows, columns)."""
        patches = self.patch_embed(images)  # (B, P, D)
        prefix = [token.expand(len(images), -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        positions = 0.0 if self.pos_embed is None else self.pos_embed
        if self.positions_on_patches_only:
            tokens = torch.cat([*prefix, patches + positions], dim=1)
        else:
            tokens = torch.cat([*prefix, patches], dim=1) + positions
        return self.norm_pre(tokens)  # type: ignore[no-any-return]


def _check_vit(vit: nn.Module) -> None:
    name = type(vit).__name__
    if not isinstance(vit, VisionTransformer):
        raise UnsupportedModelError(
            f"{name} is not a timm VisionTransformer: choose a vit_* model, whose CLS attention rows can be read"
        )
    if vit.cls_token is None:
        raise UnsupportedModelError(f"this {name} has no CLS token, so its heads cannot vote: choose one with a token")
    if vit.dynamic_img_size or vit.global_pool != "token":
        raise UnsupportedModelError(
            "dynamic_img_size and global_pool are not supported in model.backbone_args: the image size is "
            "data.image_size, and the class is read from the CLS token"
        )
    if not isinstance(vit.patch_drop, nn.Identity) or vit.pos_drop.p > 0:
        raise UnsupportedModelError(
            "patch_drop_rate and pos_drop_rate are not supported: use model.dropout and model.drop_path"
        )


def _check_block(block: Any) -> None:
    if type(block) is not Block:
        raise UnsupportedModelError(
            f"{type(block).__name__} is not supported: its attention cannot be read as CLS rows; "
            "choose a timm model of plain `Block`s"
        )
    if type(block.attn) is not Attention:
        raise UnsupportedModelError(
            f"attention {type(block.attn).__name__} is not supported: choose a timm model with plain `Attention`"
        )
    if getattr(block.attn, "gate", None) is not None or not isinstance(_output_norm(block.attn), nn.Identity):
        raise UnsupportedModelError("gated or output-normalised Attention is not supported: choose plain `Attention`")
    if any(isinstance(module, nn.Dropout) and module.p > 0 for module in block.modules()):
        raise UnsupportedModelError(
            "dropout inside blocks (attn_drop_rate, proj_drop_rate) is not supported: "
            "use model.dropout and model.drop_path"
        )


def _output_norm(attention: Any) -> Any:
    return getattr(attention, "norm", nn.Identity())  # older timm has no such norm
