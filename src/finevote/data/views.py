"""The views of an image that test-time augmentation looks at: its centre, its corners, and their mirror images."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from finevote.data.transforms import to_model_scale
from finevote.errors import ArgumentError, suggest
from finevote.types import PLAIN, Preprocessing

Cut = Callable[[Tensor], Tensor]

CENTRE = "centre"
_CROPS = ("top left", "top right", "bottom left", "bottom right", CENTRE)  # torchvision's order
_PLACES = (CENTRE, *_CROPS[:-1])


class View(NamedTuple):
    """What is cut from the resized image, at its centre or in a corner, and whether left and right are exchanged."""

    place: str
    is_mirrored: bool = False

    @property
    def name(self) -> str:
        """What it is called in saved predictions."""
        return f"{self.place}, mirrored" if self.is_mirrored else self.place


_FIVE = tuple(View(place) for place in _PLACES)
VIEWS = {
    PLAIN: (View(CENTRE),),
    "flip": (View(CENTRE), View(CENTRE, is_mirrored=True)),
    "five-crop": _FIVE,
    "ten-crop": (*_FIVE, *(View(place, is_mirrored=True) for place in _PLACES)),
}


def views_of(kind: str) -> tuple[View, ...]:
    """Return the views of a kind, the plain one first; raises ArgumentError if there is no such kind."""
    if kind not in VIEWS:
        raise ArgumentError(f"there are no views {kind!r}{suggest(kind, VIEWS)}")
    return VIEWS[kind]


def view_cuts(preprocessing: Preprocessing, *, views: str) -> dict[str, Cut]:
    """Return the views of a kind by name, the plain one first.

    Each is a function from resized images, uint8 (..., 3, h, w), to what the model takes, float32 (..., 3, H, W).
    "plain" is the centre alone, as everywhere; "flip" adds its mirror image, "five-crop" the four corners, "ten-crop"
    both, and the corners' mirror images.

    Raises:
        ArgumentError: there is no such kind, or the resized image has no corners beyond the centre.
    """
    wanted = views_of(views)
    if preprocessing.resize == preprocessing.image_size and len({view.place for view in wanted}) > 1:
        raise ArgumentError(
            f"the model sees all of the resized image, {preprocessing.resize} px, so that its corners are its centre: "
            "take the views 'flip', or train with a larger data.resize"
        )
    return {view.name: partial(cut_view, view=view, preprocessing=preprocessing) for view in wanted}


def cut_view(images: Tensor, *, view: View, preprocessing: Preprocessing) -> Tensor:
    """Return one view of resized images: uint8 (..., 3, h, w) -> float32 (..., 3, H, W), cut, mirrored, normalised."""
    crops = dict(zip(_CROPS, F.five_crop(images, list(preprocessing.image_size)), strict=True))
    cut = to_model_scale(preprocessing)(crops[view.place])
    return torch.flip(cut, (-1,)) if view.is_mirrored else cut


def as_resized(image: Tensor) -> Tensor:
    """Return the resized image as it is, for a loader whose images are cut into views later."""
    return image
