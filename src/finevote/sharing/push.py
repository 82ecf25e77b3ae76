"""`finevote push`: a bundle and its card, as one commit of a repository on the hub."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from finevote.bundle.manifest import MANIFEST_NAME
from finevote.errors import HubError
from finevote.sharing.connection import check_repository, connect, hub_errors
from finevote.sharing.parcel import Parcel, pack

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo


class Pushed(NamedTuple):
    """What was given, and where: `commit` and `address` are None where nothing was sent."""

    parcel: Parcel
    commit: str | None = None
    address: str | None = None


def push(
    run: Path | str,
    repository: str,
    *,
    private: bool = False,
    message: str | None = None,
    with_gallery: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Upload a run's bundle with a model card to the Hugging Face hub; the repository is made where there is none.

    All files arrive in one commit, or none. Files of an older bundle that the new one lacks are removed by it; others
    of the repository stay.

    Args:
        run: a finished run, or a bundle.
        repository: owner/name.
        private: make the repository for its owner alone; one that is public is refused.
        message: of the commit.
        with_gallery: give away the gallery too; see `pack`.
        dry_run: send nothing, and ask the hub nothing.

    Raises:
        ArgumentError: it is no name of a repository.
        BundleError, RunError: as `pack`.
        HubError: the hub cannot be reached, or refuses.
        MissingExtraError: `huggingface_hub` is not installed.
    """
    check_repository(repository)
    parcel = pack(run, repository=repository, with_gallery=with_gallery)
    if dry_run:
        return Pushed(parcel)
    api = connect()
    with hub_errors(repository, doing="write to"):
        api.whoami()
        known = _find(api, repository)
        if known is None:
            api.create_repo(repository, private=private or None)
        elif private and not known.private:
            raise HubError(f"{repository} is public already: make it private on its page, or leave out --private")
        return _commit(api, parcel, repository, known, message=message)


def _commit(api: HfApi, parcel: Parcel, repository: str, known: ModelInfo | None, *, message: str | None) -> Pushed:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    stale = set() if known is None else _files_of_bundle(api, repository, known) - parcel.files.keys()
    done = api.create_commit(
        repository,
        operations=[
            *(CommitOperationAdd(name, file) for name, file in parcel.files.items()),
            *(CommitOperationDelete(name) for name in sorted(stale)),
        ],
        commit_message=message or f"Upload the bundle {parcel.manifest.sha256[:12]}",
        parent_commit=None if known is None else known.sha,
    )
    return Pushed(parcel, done.oid, f"{api.endpoint}/{repository}")


def _find(api: HfApi, repository: str) -> ModelInfo | None:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(repository)
    except RepositoryNotFoundError:
        return None


def _files_of_bundle(api: HfApi, repository: str, known: ModelInfo) -> set[str]:
    """Return the files that the repository has of an older bundle; none where what is there is no bundle."""
    there = {file.rfilename for file in known.siblings or ()}
    if MANIFEST_NAME not in there:
        return set()
    with tempfile.TemporaryDirectory() as folder:
        path = api.hf_hub_download(repository, MANIFEST_NAME, revision=known.sha, local_dir=folder)
        try:
            return there & set(json.loads(Path(path).read_bytes())["files"])
        except (ValueError, KeyError, TypeError):
            return set()
