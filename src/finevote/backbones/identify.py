"""Which backbone a weight file is of."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import Tensor

from finevote.backbones.anatomy import Anatomy, dissect
from finevote.backbones.catalogue import create_vit
from finevote.backbones.layouts import recognise
from finevote.backbones.published import PUBLISHED
from finevote.backbones.weight_files import read_weight_file
from finevote.errors import WeightsError


@dataclass(frozen=True)
class Identity:
    """layout: how the file names its tensors; names: the backbones, by short name, that its weights fit."""

    layout: str
    anatomy: Anatomy
    names: tuple[str, ...]


def identify(path: Path) -> Identity:
    """Tell what a weight file is of, whatever it is called.

    Raises:
        WeightsError: it cannot be read, or is not of a vision transformer in a layout that is known.
    """
    tensors = read_weight_file(path).tensors
    recognised = recognise(tensors)
    if recognised is not None:
        layout, prefix = recognised
        anatomy = anatomy_of(layout.to_timm(tensors, prefix=prefix))
        if anatomy is not None:
            return Identity(layout.title, anatomy, names_of(anatomy))
    raise WeightsError(f"{path} is in no layout of a vision transformer that is known (docs/backbones.md lists them)")


def anatomy_of(tensors: Mapping[str, Tensor]) -> Anatomy | None:
    """Return the anatomy of tensors under timm's names; None where they are no vision transformer's."""
    return dissect({key: tuple(tensor.shape) for key, tensor in tensors.items()})


def names_of(anatomy: Anatomy) -> tuple[str, ...]:
    """Return the backbones, by short name, that take weights of this anatomy."""
    return tuple(
        name
        for name, info in PUBLISHED.items()
        if anatomy.patch == (info.patch_px, info.patch_px) and _published_anatomy(info.timm_name) == anatomy
    )


@cache
def _published_anatomy(timm_name: str) -> Anatomy | None:
    return anatomy_of(create_vit(timm_name, image_size=None, timm_args={}, device="meta").state_dict())
