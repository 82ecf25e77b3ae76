"""Maps laid over photographs, as pictures: votes from transparent to bright, contributions in two colours."""

from functools import cache

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image

from finevote.explanation import style
from finevote.explanation.explained import Map
from finevote.explanation.vote_map import on_photograph
from finevote.types import Box

WHOLE = Box("view", 0.0, 0.0, 1.0, 1.0)
_PALE, _OPAQUE = 0.5, 0.8  # how much paint lies on the least and on the most of what is painted
_OUTSIDE = 0.6  # how much white lies on what the model does not see

Pixels = NDArray[np.float64]  # (rows, columns, 3) in [0, 1]


def vote_overlay(
    photograph: Image.Image,
    votes: Map,
    *,
    view: Box = WHOLE,
    outlined: NDArray[np.bool_] | None = None,
    most: float | None = None,
    side_px: int = 720,
) -> Image.Image:
    """Return the photograph in grey with votes in colour over it; what has none stays clear.

    Args:
        photograph: in its own proportions.
        votes: (rows, columns) on the patches.
        view: the part of the photograph that the patches lie on.
        outlined: patches (rows, columns) to be outlined together.
        most: votes of the brightest colour; the highest unless given.
        side_px: of the picture's longer side.
    """
    base = _in_grey(photograph, side_px)
    values = on_photograph(votes, view=view, size=base.shape[:2])
    strength = np.nan_to_num(values / max(most or float(votes.max()), 1e-12)).clip(0, 1)
    painted = _paint(base, colormaps[style.VOTE_MAP](0.12 + 0.88 * strength)[..., :3], strength)
    return _finish(painted, values, outlined, view=view)


def contrast_overlay(
    photograph: Image.Image, contributions: Map, *, view: Box = WHOLE, side_px: int = 720
) -> Image.Image:
    """Return the photograph in grey with what speaks for A in blue and what speaks for B in orange over it."""
    base = _in_grey(photograph, side_px)
    values = on_photograph(contributions, view=view, size=base.shape[:2])
    strength = np.nan_to_num(values / max(float(np.abs(contributions).max()), 1e-12)).clip(-1, 1)
    color = np.where(strength[..., None] > 0, to_rgb(style.RIGHT), to_rgb(style.WRONG))
    return _finish(_paint(base, color, np.abs(strength), faint=0.0), values, None, view=view)


def in_view(photograph: Image.Image, view: Box) -> Image.Image:
    """Return what the model sees of a photograph, cut out."""
    width, height = photograph.size
    sides = (view.left * width, view.top * height, view.right * width, view.bottom * height)
    left, top, right, bottom = (round(side) for side in sides)
    return photograph.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


def frame_view(photograph: Image.Image, view: Box, *, side_px: int = 720) -> Image.Image:
    """Return the photograph in colour, what the model does not see of it under a veil."""
    pixels = np.asarray(_resized(photograph, side_px), np.float64) / 255
    inside = on_photograph(np.zeros((1, 1)), view=view, size=pixels.shape[:2])
    return _finish(pixels, inside, None, view=view)


def _resized(photograph: Image.Image, side_px: int) -> Image.Image:
    scale = side_px / max(photograph.size)
    size = tuple(max(round(side * scale), 1) for side in photograph.size)
    return photograph.resize(size, Image.Resampling.LANCZOS)  # type: ignore[arg-type]


def _in_grey(photograph: Image.Image, side_px: int) -> Pixels:
    grey = np.asarray(_resized(photograph, side_px).convert("L"), np.float64) / 255
    return np.repeat(0.1 + 0.8 * grey[..., None], 3, axis=2)


def _paint(base: Pixels, color: Pixels, strength: NDArray[np.float64], *, faint: float = _PALE) -> Pixels:
    alpha = np.where(strength > 0, faint + (_OPAQUE - faint) * strength, 0.0)[..., None]
    return (1 - alpha) * base + alpha * color


def _finish(
    pixels: Pixels, values: NDArray[np.float64], outlined: NDArray[np.bool_] | None, *, view: Box
) -> Image.Image:
    """Veil what lies outside of the view, draw outlines, and return the picture."""
    outside = np.isnan(values)
    pixels = np.where(outside[..., None], (1 - _OUTSIDE) * pixels + _OUTSIDE, pixels)
    if outlined is not None:
        marked = np.nan_to_num(on_photograph(outlined.astype(float), view=view, size=values.shape)) > 0
        width = max(1, round(max(values.shape) / 300))
        edge = marked & ~_shrunk(marked, width)
        halo = ~marked & _grown(marked, width)
        pixels = np.where(halo[..., None], 0.05, np.where(edge[..., None], 1.0, pixels))
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def _grown(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    padded = np.pad(mask, width)
    rows, columns = mask.shape
    shifts = range(2 * width + 1)
    grown: NDArray[np.bool_] = np.logical_or.reduce(
        [padded[y : y + rows, x : x + columns] for y in shifts for x in shifts]
    )
    return grown


def _shrunk(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    return ~_grown(~mask, width)


@cache
def vote_colors() -> NDArray[np.float64]:
    """Return the colours of votes from few to most, (256, 3), for a key."""
    return np.asarray(colormaps[style.VOTE_MAP](np.linspace(0.12, 1, 256))[:, :3])
