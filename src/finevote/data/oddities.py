"""What is unusual about an image file or its picture: nothing that stops training, all of it worth knowing."""

import io
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from finevote.data.images import open_quietly

SMALL_SIDE_PX = 64
LARGEST_ASPECT = 3.0
_CONSTANT_BELOW = 3.0  # standard deviation of the pixels, of 255
_GREY_CHROMA = 4  # largest difference of two channels that rounding in a JPEG leaves
_GREY_MODES = ("1", "L", "LA", "La", "I", "F")
_SAME_FORMAT = {"MPO": "JPEG"}  # several JPEGs in one file, as phones write them under .jpg


class Oddity(NamedTuple):
    """One thing that is unusual; `kind` is a key of `KINDS`."""

    kind: str
    detail: str


KINDS = {
    "grey": "no colours",
    "cmyk": "inks in place of light (CMYK)",
    "transparent": "transparent pixels, whose hidden colours are shown",
    "several_frames": "several frames, of which the first is read",
    "exif_rotated": "turned upright by its EXIF orientation only",
    "wrong_extension": "the name's ending is not of its format",
    "small": f"shorter side under {SMALL_SIDE_PX} px",
    "long": f"over {LARGEST_ASPECT:g} times as long as wide",
    "constant": "one colour all over",
}


def file_oddities(content: bytes, *, suffix: str) -> list[Oddity]:
    """Return what an image file's header and format say; `suffix` is the ending of its name, with the dot."""
    image = open_quietly(io.BytesIO(content))
    found = (_mode(image), _alpha(image), _frames(image), _orientation(image), _extension(image, suffix))
    return [oddity for oddity in found if oddity is not None]


def picture_oddities(size: tuple[int, int], thumbnail: NDArray[np.uint8]) -> list[Oddity]:
    """Return what the decoded picture shows: its width and height in px, and a thumbnail (rows, columns, 3)."""
    width, height = size
    found = []
    if min(size) < SMALL_SIDE_PX:
        found.append(Oddity("small", f"{width} x {height} px"))
    if max(size) > LARGEST_ASPECT * min(size):
        found.append(Oddity("long", f"{width} x {height} px"))
    if is_constant(thumbnail):
        red, green, blue = thumbnail.reshape(-1, 3).mean(axis=0).round().astype(int)
        found.append(Oddity("constant", f"red {red}, green {green}, blue {blue}"))
    elif np.ptp(thumbnail.astype(np.int16), axis=2).max() <= _GREY_CHROMA:
        found.append(Oddity("grey", "no pixel has a colour"))
    return found


def is_constant(thumbnail: NDArray[np.uint8]) -> bool:
    """Tell whether nothing can be seen in a picture: its channels hardly vary from pixel to pixel."""
    return bool(thumbnail.reshape(-1, 3).std(axis=0).max() < _CONSTANT_BELOW)


def _mode(image: Image.Image) -> Oddity | None:
    if image.mode in _GREY_MODES or image.mode.startswith("I;"):
        return Oddity("grey", f"stored as grey (mode {image.mode})")
    return Oddity("cmyk", "stored as CMYK") if image.mode == "CMYK" else None


def _alpha(image: Image.Image) -> Oddity | None:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return None
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    share = float((alpha < 255).mean())
    return Oddity("transparent", f"{share:.1%} of the pixels") if share else None


def _frames(image: Image.Image) -> Oddity | None:
    num_frames = 1 if image.format in _SAME_FORMAT else getattr(image, "n_frames", 1)
    return Oddity("several_frames", f"{num_frames} frames") if num_frames > 1 else None


def _orientation(image: Image.Image) -> Oddity | None:
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return Oddity("exif_rotated", f"orientation {orientation}") if orientation in range(2, 9) else None


def _extension(image: Image.Image, suffix: str) -> Oddity | None:
    named = Image.registered_extensions().get(suffix.lower())
    found = _SAME_FORMAT.get(str(image.format), image.format)
    if named is None or _SAME_FORMAT.get(named, named) == found:
        return None
    return Oddity("wrong_extension", f"{suffix} holds {found}")
