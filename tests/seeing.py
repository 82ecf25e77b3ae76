"""A classifier whose heads vote for bright patches, so that it is known where votes must go."""

import numpy as np
import torch
from PIL import Image

from finevote.types import Box
from tests.models import NARROW, tiny_model


def light_seeker(*, num_registers=0, **changes):
    """Each head has one vote and gives it to the brightest patch, in every layer and in the second vote."""
    voting = {"num_votes_per_head": 1, "num_selected": 6, "num_key_tokens": 2}
    model = tiny_model(
        model__backbone_args=NARROW | {"reg_tokens": num_registers},
        **{f"model__voting__{name}": value for name, value in voting.items()},
        **changes,
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "classifier" not in name:
                parameter.zero_()
            if ".norm" in name and name.endswith("weight"):
                parameter.fill_(1.0)
        embedding = model.backbone.embedding
        embedding.patch_embed.proj.weight[0] = 0.01  # channel 0 is light, channel 1 a constant
        embedding.patch_embed.proj.bias[1] = 2.0
        dim = model.backbone.dim
        for layer in [*model.backbone.layers, model.head.refine.layer, model.head.key.layer]:
            layer.attn.qkv.bias[:dim] = 1.0  # every query asks for
            layer.attn.qkv.weight[dim : 2 * dim, 0] = 1.0  # light
    return model


def spot(width, height, *, x, y, radius_px):
    """A dark photograph with a bright square around the point x, y, in fractions of its sides."""
    pixels = np.full((height, width, 3), 20, np.uint8)
    row, column = round(y * height), round(x * width)
    pixels[max(row - radius_px, 0) : row + radius_px, max(column - radius_px, 0) : column + radius_px] = 250
    return Image.fromarray(pixels)


def patch_box(patch, *, grid, view):
    """Return where a patch, numbered row by row, lies in the photograph."""
    row, column = divmod(patch, grid[1])
    height, width = (view.bottom - view.top) / grid[0], (view.right - view.left) / grid[1]
    left, top = view.left + column * width, view.top + row * height
    return Box(f"patch {patch}", left, top, left + width, top + height)
