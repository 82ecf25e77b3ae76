"""A timm vision transformer as an embedding, layers that give tokens and CLS rows, and a final norm."""

from typing import Any

import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from finevote.backbones.layer import VitLayer, check_block
from finevote.backbones.rotary import rotations_of
from finevote.errors import UnsupportedModelError

_READABLE = (VisionTransformer, VisionTransformerDistilled, Eva)


class TimmVit(nn.Module):
    """The embedding, the layers and the final norm of a timm `VisionTransformer` or `Eva`.

    A model without CLS token is given a summary token in its place (docs/method.md, 1).

    Attributes:
        dim: D.
        num_heads: H.
        num_prefix: CLS (or summary) and register tokens, which stand before the patches.
        grid: rows, columns of patches.
        image_size: rows, columns in px.
        mean, std: the pixel statistics that the weights were trained with.
    """

    def __init__(self, vit: Any, *, drop_path: float = 0.0) -> None:
        super().__init__()
        check_vit(vit)
        self.embedding = TokenEmbedding(vit)
        depth, has_cls = len(vit.blocks), vit.cls_token is not None
        self.layers = nn.ModuleList(
            VitLayer(
                block,
                rotation=rotation,
                cls_is_key=has_cls,
                drop_path=drop_path * i / max(depth - 1, 1),
                stream=i,
            )
            for i, (block, rotation) in enumerate(zip(vit.blocks, rotations_of(vit), strict=True))
        )
        self.norm: nn.Module = final_norm(vit)
        self.dim: int = vit.embed_dim
        self.num_heads: int = vit.blocks[0].attn.num_heads
        self.num_prefix: int = vit.num_prefix_tokens + (not has_cls)
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
    """Patches, prefix tokens and positions, as timm lays them out for this model.

    Without CLS token the mean of the patch tokens comes first, as the summary token.
    """

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.patch_embed = vit.patch_embed
        self.cls_token = vit.cls_token
        self.dist_token = getattr(vit, "dist_token", None)
        self.reg_token = vit.reg_token
        self.pos_embed = vit.pos_embed
        self.positions_on_patches_only: bool = vit.no_embed_class
        self.norm_pre = vit.norm_pre

    def forward(self, images: Tensor) -> Tensor:
        """Return tokens (B, N, D) of images (B, 3, rows, columns)."""
        patches = self.patch_embed(images)  # (B, P, D)
        given = (self.cls_token, self.dist_token, self.reg_token)
        prefix = [token.expand(images.shape[0], -1, -1) for token in given if token is not None]
        positions = 0.0 if self.pos_embed is None else self.pos_embed
        if self.positions_on_patches_only:
            tokens = torch.cat([*prefix, patches + positions], dim=1)
        else:
            tokens = torch.cat([*prefix, patches], dim=1) + positions
        tokens = self.norm_pre(tokens)
        if self.cls_token is not None:
            return tokens  # type: ignore[no-any-return]
        summary = tokens[:, -patches.shape[1] :].mean(1, keepdim=True)  # (B, 1, D)
        return torch.cat([summary, tokens], dim=1)


def final_norm(vit: Any) -> nn.Module:
    """Return the norm that timm applies last before the classifier reads a token: `norm`, or else `fc_norm`."""
    norm: nn.Module = vit.fc_norm if isinstance(vit.norm, nn.Identity) else vit.norm
    return norm


def check_vit(vit: Any) -> None:
    """Raise UnsupportedModelError, naming what is in the way, unless a timm model's CLS rows can be read."""
    if type(vit) not in _READABLE:
        raise UnsupportedModelError(
            f"{type(vit).__name__} is not a timm {' or '.join(f'`{kind.__name__}`' for kind in _READABLE)}: choose a "
            "vit_*, deit* or eva* model, whose CLS attention rows can be read"
        )
    drops_patches = vit.patch_drop is not None and not isinstance(vit.patch_drop, nn.Identity)
    if drops_patches or vit.pos_drop.p > 0:
        raise UnsupportedModelError(
            "patch_drop_rate and pos_drop_rate are not supported: use model.dropout and model.drop_path"
        )
    for block in vit.blocks:
        check_block(block)
