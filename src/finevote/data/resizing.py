"""From a photograph to the pixels that a model sees, in NumPy alone: what other runtimes do before they predict."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finevote.data.images import enough_pixels
from finevote.errors import ArgumentError, suggest
from finevote.types import Preprocessing

INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_DECODINGS = ("exact", "fast")
_SPARE = 2  # "fast" decodes so many pixels a side for each one wanted: with fewer the decoder's own filter would show
_REACH = {"bilinear": 1, "bicubic": 2}  # of a filter to either side, in pixels of the smaller image
_MAX_WEIGHT = 2**15  # weights have 16 bits, one of them the sign


def read_pixels(read: Callable[[], Image.Image], preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Return the RGB image that `read` gives, squashed to `preprocessing.resize`, uint8 (rows, columns, 3).

    The same bytes as `transforms.read_resized` gives by torch.

    Raises:
        ArgumentError: `preprocessing` names an unknown way of decoding or interpolating.
    """
    image, resize, interpolation = decode(read, preprocessing), preprocessing.resize, preprocessing.interpolation
    if preprocessing.decoding == "exact":
        return resize_pixels(image, resize, interpolation)
    return resize_in_16_bits(np.array(image), resize, interpolation)


def decode(read: Callable[[], Image.Image], preprocessing: Preprocessing) -> Image.Image:
    """Return the image that `read` gives, with as many pixels as `preprocessing.resize` takes where decoding is fast.

    Raises:
        ArgumentError: `preprocessing` names an unknown way of decoding.
    """
    if preprocessing.decoding not in _DECODINGS:
        raise ArgumentError(f"unknown decoding {preprocessing.decoding!r}{suggest(preprocessing.decoding, _DECODINGS)}")
    if preprocessing.decoding == "exact":
        return read()
    rows, columns = preprocessing.resize
    with enough_pixels((_SPARE * rows, _SPARE * columns)):
        return read()


def resize_pixels(image: Image.Image, resize: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """Squash an RGB image to `resize` (rows, columns) with antialiasing; return uint8 (rows, columns, 3).

    In integers, so it gives the same bytes on every machine.

    Raises:
        ArgumentError: `interpolation` is neither bilinear nor bicubic.
    """
    check_interpolation(interpolation)
    rows, columns = resize
    return np.array(image.resize((columns, rows), INTERPOLATIONS[interpolation]))


class _Taps(NamedTuple):
    """Which pixels make up each of the new ones, and how much of each: (new, taps) both; weights are whole numbers."""

    places: NDArray[np.int64]
    weights: NDArray[np.int32]
    precision: int  # weights are of 2 ** precision


def resize_in_16_bits(pixels: NDArray[np.uint8], resize: tuple[int, int], interpolation: str) -> NDArray[np.uint8]:
    """Squash pixels (rows, columns, 3) with antialiasing by filters whose weights are whole numbers of 16 bits.

    The columns first, then the rows, rounding after each, as torch resizes uint8: bit for bit.

    Raises:
        ArgumentError: `interpolation` is neither bilinear nor bicubic.
    """
    check_interpolation(interpolation)
    rows, columns = resize
    narrow = _resample(pixels, columns, interpolation, axis=1)
    return _resample(narrow, rows, interpolation, axis=0)


def _resample(pixels: NDArray[np.uint8], size: int, interpolation: str, *, axis: int) -> NDArray[np.uint8]:
    if pixels.shape[axis] == size:
        return pixels
    taps = _taps(pixels.shape[axis], size, interpolation)
    shape = [1, 1, 1]
    shape[axis] = size
    total = np.full([size if at == axis else side for at, side in enumerate(pixels.shape)], 1 << taps.precision - 1)
    for places, weights in zip(taps.places.T, taps.weights.T, strict=True):
        total += np.take(pixels, places, axis=axis).astype(np.int32) * weights.reshape(shape)
    return np.asarray((total >> taps.precision).clip(0, 255), np.uint8)


def _taps(old: int, new: int, interpolation: str) -> _Taps:
    scale = old / new
    reach = _REACH[interpolation] * max(scale, 1.0)
    centres = scale * (np.arange(new) + 0.5)
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)  # (new,)
    counts = np.minimum((centres + reach + 0.5).astype(np.int64), old) - first
    places = first[:, None] + np.arange(counts.max())  # (new, taps)
    weights = _FILTERS[interpolation]((places - centres[:, None] + 0.5) / max(scale, 1.0))
    weights = np.where(np.arange(counts.max()) < counts[:, None], weights, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    precision = 0
    while precision < 22 and int(0.5 + weights.max() * 2 ** (precision + 1)) < _MAX_WEIGHT:
        precision += 1
    whole = np.trunc(weights * 2**precision + np.where(weights < 0, -0.5, 0.5))
    return _Taps(np.minimum(places, old - 1), whole.astype(np.int32), precision)


def _triangle(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(distance), 0.0)


def _keys_cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cubic convolution kernel with a = -0.5 (Keys 1981, equation 15)."""
    x, a = np.abs(distance), -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_FILTERS = {"bilinear": _triangle, "bicubic": _keys_cubic}


def check_interpolation(interpolation: str) -> None:
    """Raise ArgumentError unless images can be resized in this way."""
    if interpolation not in INTERPOLATIONS:
        raise ArgumentError(f"unknown interpolation {interpolation!r}{suggest(interpolation, INTERPOLATIONS)}")


def model_input(pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return the centre of resized pixels (..., h, w, 3) at the model's scale, (..., 3, H, W), bit for bit as in torch.

    Args:
        pixels: uint8, of `preprocessing.resize`.
        preprocessing: the size that is cut, mean and standard deviation.
    """
    rows, columns = preprocessing.image_size
    top, left = (round((whole - kept) / 2.0) for whole, kept in zip(pixels.shape[-3:-1], (rows, columns), strict=True))
    view = np.moveaxis(pixels[..., top : top + rows, left : left + columns, :], -1, -3)
    mean, std = (_column(values) for values in (preprocessing.mean, preprocessing.std))
    scaled: NDArray[Any] = view.astype(np.float32) * np.float32(1.0 / 255)  # as torchvision does
    return np.asarray((scaled - mean) / std, np.float32)


def _column(values: tuple[float, float, float]) -> NDArray[np.float32]:
    return np.asarray(values, np.float32)[:, None, None]
