"""`finevote pull`: a bundle of the hub as a folder, every byte checked before it has its name."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finevote.bundle.checks import check_files
from finevote.bundle.manifest import MANIFEST_NAME, WEIGHTS_NAME, Manifest, read_manifest
from finevote.errors import HubError, StorageError
from finevote.files import atomic_folder, check_space
from finevote.sharing.connection import CARD_NAME, check_repository, connect, hub_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.(safetensors|json)")  # a plain name, of data that runs no code
_MOST_BYTES = {MANIFEST_NAME: 2**26, CARD_NAME: 2**20}


class Pulled(NamedTuple):
    """Where the bundle is now, of which commit, and the files of the repository that were left there."""

    folder: Path
    manifest: Manifest
    commit: str
    left: tuple[str, ...]


def pull(repository: str, folder: Path | None = None, *, revision: str | None = None) -> Pulled:
    """Fetch a bundle from the Hugging Face hub; the folder appears whole and checked, or not at all.

    Only bundle.json, the files that it lists and the card are fetched. They must have plain names and the size and
    SHA-256 that bundle.json states; what else the repository holds is left there.

    Args:
        repository: owner/name.
        folder: where to; None for the repository's name, here.
        revision: a branch, tag or commit; None for the newest.

    Raises:
        ArgumentError: it is no name of a repository.
        BundleError: what came is not the bundle that was written.
        HubError: the hub cannot be reached, has no such repository or revision, or what is there is no bundle.
        MissingExtraError: `huggingface_hub` is not installed.
        StorageError: the folder is taken, or cannot be written.
    """
    check_repository(repository)
    target = folder or Path(repository.rpartition("/")[2])
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise StorageError(f"{target} already exists: give another DIR, or remove it first")
    api = connect()
    named = repository if revision is None else f"{repository} at {revision}"
    with hub_errors(named, doing="fetch"):
        sizes, commit = _list(api, repository, revision)
    with atomic_folder(target) as temporary:
        with hub_errors(named, doing="fetch"):  # within, or its errors would be taken for those of the disk
            manifest = _fetch(api, repository, commit, sizes, temporary)
        shutil.rmtree(temporary / ".cache", ignore_errors=True)  # the client's notes on where files came from
        check_files(temporary, manifest)
    taken = {MANIFEST_NAME, CARD_NAME, ".gitattributes", *manifest.files}
    return Pulled(target, manifest, commit, tuple(sorted(sizes.keys() - taken)))


def _list(api: HfApi, repository: str, revision: str | None) -> tuple[dict[str, int | None], str]:
    """Return the files of a repository with their sizes, and the commit that is meant."""
    info = api.model_info(repository, revision=revision, files_metadata=True)
    if info.sha is None:
        raise HubError(f"the hub does not say which commit {repository} is at: give one by --revision")
    return {file.rfilename: file.size for file in info.siblings or ()}, info.sha


def _fetch(api: HfApi, repository: str, commit: str, sizes: Mapping[str, int | None], folder: Path) -> Manifest:
    def download(name: str) -> None:
        most = _MOST_BYTES.get(name)
        if most is not None and (sizes[name] or 0) > most:
            raise HubError(f"{repository} is refused: its {name} has {sizes[name]:,} bytes, at most {most:,} are read")
        api.hf_hub_download(repository, name, revision=commit, local_dir=folder)

    if MANIFEST_NAME not in sizes:
        raise HubError(f"{repository} is no bundle of finevote: it has no {MANIFEST_NAME}")
    download(MANIFEST_NAME)
    manifest = read_manifest(folder)
    _check_parts(manifest, sizes, repository)
    total = sum(entry.size_bytes for entry in manifest.files.values())
    check_space(folder, total, purpose=f"the bundle {repository}")
    for name in manifest.files:
        download(name)
    if CARD_NAME in sizes:
        download(CARD_NAME)
    return manifest


def _check_parts(manifest: Manifest, sizes: Mapping[str, int | None], repository: str) -> None:
    """Refuse names that could lead elsewhere, and what is told beforehand to be another file."""
    if strange := [name for name in manifest.files if name == MANIFEST_NAME or not _PART.fullmatch(name)]:
        raise HubError(
            f"{repository} is refused: its {MANIFEST_NAME} lists {strange[0]!r}, which is no part of a bundle"
        )
    if missing := sorted({WEIGHTS_NAME, *manifest.files} - sizes.keys()):
        raise HubError(f"{repository} is not whole: it lacks {', '.join(missing)}: ask its owner to push it again")
    for name, entry in manifest.files.items():
        if sizes[name] not in {None, entry.size_bytes}:
            raise HubError(
                f"{repository} is refused: its {name} has {sizes[name]:,} bytes instead of {entry.size_bytes:,}: ask "
                "its owner to push it again"
            )
