"""Weights from where they were first published, or from any address, in the cache that torch.hub and timm share.

Meta and Google publish no hashes of these files. Those of DINOv2 come from the community and agree in several
independent places; a file with another hash is refused. Where none is known, the file's own format has to tell that it
is whole.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urldefrag, urlsplit

import torch

from finevote.errors import DownloadError, WeightsError
from finevote.remote.download import RemoteFile, download

_SCHEMES = ("https", "http", "file")
_DINOV2_SHA256 = {
    "vits14": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "vitb14": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "vitl14": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "vitg14": "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
    "vits14_reg4": "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
    "vitl14_reg4": "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51",
}
_DINOV2_BYTES = {"vits14": 88_283_115, "vitb14": 346_378_731}
_TIMM_SIZES = {"s": "small", "b": "base", "l": "large", "g": "giant"}


def _dinov2(size: str, suffix: str) -> RemoteFile:
    folder = f"dinov2_vit{size}14"
    name = f"vit{size}14{suffix}"
    return RemoteFile(
        f"{folder}{suffix}_pretrain.pth",
        (f"https://dl.fbaipublicfiles.com/dinov2/{folder}/{folder}{suffix}_pretrain.pth",),
        num_bytes=_DINOV2_BYTES.get(name),
        sha256=_DINOV2_SHA256.get(name),
    )


OFFICIAL: Mapping[str, RemoteFile] = {
    **{
        f"vit_{timm_size}_patch14{suffix}_dinov2.lvd142m": _dinov2(size, suffix)
        for size, timm_size in _TIMM_SIZES.items()
        for suffix in ("", "_reg4")
    },
    "vit_base_patch16_224.orig_in21k": RemoteFile(
        "ViT-B_16.npz", ("https://storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz",)
    ),
}  # by timm's name of the backbone


def is_remote(weights: str) -> bool:
    """Say whether `model.weights` asks for a file to be fetched: "official", or an address."""
    return weights == "official" or urlsplit(weights).scheme in _SCHEMES


def fetch_weights(weights: str, *, timm_name: str) -> Path:
    """Return the file that `model.weights` asks for, from the cache or the net.

    Args:
        weights: "official", or an address, with `#sha256=...` behind it where the hash is known.
        timm_name: of the backbone.

    Raises:
        WeightsError: nothing is published for this backbone, or the file cannot be had, or is another one.
    """
    file, folder = _locate(weights, timm_name)
    try:
        return download(file, folder)
    except DownloadError as error:
        raise WeightsError(
            f"{error}\nBring the file by hand as {folder / file.name}, or give one by --set model.weights=PATH"
        ) from None


def address_of(weights: str, *, timm_name: str) -> str:
    """Return where `fetch_weights` has, or would have, the file from.

    Raises:
        WeightsError: as `fetch_weights`, but nothing is fetched.
    """
    file, _ = _locate(weights, timm_name)
    return file.urls[0]


def _locate(weights: str, timm_name: str) -> tuple[RemoteFile, Path]:
    return _official(timm_name) if weights == "official" else _addressed(weights)


def _official(timm_name: str) -> tuple[RemoteFile, Path]:
    if timm_name not in OFFICIAL:
        raise WeightsError(
            f"no official file is known for {timm_name}: use weights=auto, or give a file or its address; "
            f"known for {', '.join(sorted(OFFICIAL))}"
        )
    return OFFICIAL[timm_name], _cache()


def _addressed(address: str) -> tuple[RemoteFile, Path]:
    """Return the file at an address, and its place: files of one name from other addresses are kept apart."""
    url, fragment = urldefrag(address)
    kind, _, digits = fragment.partition("=")
    if fragment and kind != "sha256":
        raise WeightsError(f"the address {address} ends in #{fragment}: only #sha256=DIGITS is understood there")
    name = unquote(PurePosixPath(urlsplit(url).path).name)
    if not name:
        raise WeightsError(f"the address {address} names no file: give that of the weight file itself")
    known = {remote.urls[0]: remote for remote in OFFICIAL.values()}.get(url)
    if known is not None and not digits:
        return known, _cache()
    return RemoteFile(name, (url,), sha256=digits or None), _cache() / hashlib.sha256(url.encode()).hexdigest()[:16]


def _cache() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"
