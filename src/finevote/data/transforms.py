"""From a photograph to a normalised tensor: one fixed resize, then the random part, then the backbone's own scale.

The resize is in integers, so it gives the same bytes on every machine; its result is what caches hold.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode, v2

from finevote.data.resizing import check_interpolation, decode, resize_pixels
from finevote.errors import ArgumentError, suggest
from finevote.types import Batch, Preprocessing

Transform = Callable[[Tensor], Tensor]


def read_resized(read: Callable[[], Image.Image], preprocessing: Preprocessing) -> Tensor:
    """Return the RGB image that `read` gives, squashed to `preprocessing.resize`; uint8 (3, rows, columns).

    Raises:
        ArgumentError: `preprocessing` names an unknown way of decoding or interpolating.
    """
    image, resize, interpolation = decode(read, preprocessing), preprocessing.resize, preprocessing.interpolation
    if preprocessing.decoding == "exact":
        return resize_image(image, resize, interpolation)
    return _resize_fast(image, resize, interpolation)


def resize_image(image: Image.Image, resize: tuple[int, int], interpolation: str) -> Tensor:
    """Squash an RGB image to `resize` (rows, columns) with antialiasing; return uint8 (3, rows, columns).

    Raises:
        ArgumentError: `interpolation` is neither bilinear nor bicubic.
    """
    return torch.from_numpy(resize_pixels(image, resize, interpolation)).permute(2, 0, 1).contiguous()


def eval_transform(preprocessing: Preprocessing) -> Transform:
    """Return uint8 (3, h, w) -> float32 (3, H, W): centre crop and normalise."""
    _check_sizes(preprocessing)
    return _chain([v2.CenterCrop(preprocessing.image_size), to_model_scale(preprocessing)])


def to_model_scale(preprocessing: Preprocessing) -> nn.Module:
    """Return uint8 (..., 3, H, W) -> float32 (..., 3, H, W): into [0, 1], then normalised."""
    return nn.Sequential(_to_float(), _normalize(preprocessing))


def train_transform(
    preprocessing: Preprocessing,
    *,
    crop: Literal["random", "random_resized", "center"],
    crop_scale: tuple[float, float],
    flip: float,
    color_jitter: float,
    randaugment: int,
    randaugment_magnitude: int,
    random_erasing: float,
) -> Transform:
    """Return uint8 (3, h, w) -> float32 (3, H, W): crop, flip, change colours, normalise, erase.

    Random numbers come from torch's default CPU generator.

    Args:
        preprocessing: sizes and normalisation.
        crop: how the image is cut to `preprocessing.image_size`.
        crop_scale: area share kept by `random_resized`.
        flip: probability of a horizontal flip.
        color_jitter: strength of brightness, contrast and saturation changes; 0: off.
        randaugment: operations an image (Cubuk et al. 2020); 0: off.
        randaugment_magnitude: 0 to 30.
        random_erasing: probability of erasing a rectangle to the mean colour (Zhong et al. 2020).

    Raises:
        ArgumentError: unknown `crop`, or the resized image is smaller than the crop.
    """
    _check_sizes(preprocessing)
    steps: list[nn.Module] = [_crop(preprocessing, crop=crop, crop_scale=crop_scale)]
    if flip:
        steps.append(v2.RandomHorizontalFlip(flip))
    if randaugment:
        steps.append(v2.RandAugment(randaugment, randaugment_magnitude, interpolation=InterpolationMode.BILINEAR))
    steps.append(_to_float())
    if color_jitter:  # in float: no rounding between its three steps, and measured faster than in uint8
        steps.append(v2.ColorJitter(color_jitter, color_jitter, color_jitter))
    steps.append(_normalize(preprocessing))
    if random_erasing:
        steps.append(v2.RandomErasing(random_erasing))
    return _chain(steps)


def mix_batch(batch: Batch, *, num_classes: int, mixup: float, cutmix: float, seed: int) -> Batch:
    """Blend each image with its neighbour by mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019).

    `mixup` and `cutmix` are Beta parameters, 0: off; with both on, one of them is drawn for the batch. Labels become
    soft targets (B, num_classes). Without either the batch is returned as it came. The result depends on `seed` only.
    """
    mixes = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
    mixes += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
    if not mixes:
        return batch
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        images, targets = v2.RandomChoice(mixes)(batch.images, batch.labels)
    return batch._replace(images=images, targets=targets)


def _resize_fast(image: Image.Image, resize: tuple[int, int], interpolation: str) -> Tensor:
    """Do as `resize_image` by torch, whose filter has coefficients of 16 bits: few pixels differ, and by little."""
    check_interpolation(interpolation)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # (1, 3, rows, columns), channels last
    return F.interpolate(pixels, resize, mode=interpolation, antialias=True)[0].contiguous()


def _to_float() -> nn.Module:
    """Return uint8 in [0, 255] -> float32 in [0, 1]."""
    step: nn.Module = v2.ToDtype(torch.float32, scale=True)
    return step


def _normalize(preprocessing: Preprocessing) -> nn.Module:
    """Return (x - mean) / std, in place on the copy that `_to_float` made."""
    step: nn.Module = v2.Normalize(preprocessing.mean, preprocessing.std, inplace=True)
    return step


def _chain(steps: list[nn.Module]) -> Transform:
    chain: Transform = v2.Compose(steps)
    return chain


def _crop(preprocessing: Preprocessing, *, crop: str, crop_scale: tuple[float, float]) -> nn.Module:
    size, mode = preprocessing.image_size, InterpolationMode(preprocessing.interpolation)
    crops: dict[str, nn.Module] = {
        "random": v2.RandomCrop(size),
        "random_resized": v2.RandomResizedCrop(size, scale=crop_scale, interpolation=mode, antialias=True),
        "center": v2.CenterCrop(size),
    }
    if crop not in crops:
        raise ArgumentError(f"unknown crop {crop!r}{suggest(crop, crops)}")
    return crops[crop]


def _check_sizes(preprocessing: Preprocessing) -> None:
    rows, columns = preprocessing.image_size
    if preprocessing.resize[0] < rows or preprocessing.resize[1] < columns:
        raise ArgumentError(
            f"resize={preprocessing.resize} is smaller than image_size={preprocessing.image_size}: enlarge resize"
        )
