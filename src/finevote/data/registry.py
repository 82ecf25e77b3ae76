"""From the one string that names data everywhere to a data set; what lies at a path is seen from its content.

synthetic       the drawn birds
cub200          a published set by name, fetched when it is not there; a file or folder of that name comes first
cub200@         the published set, whatever lies here
cub200@FOLDER   the published set in FOLDER/cub200 or in FOLDER itself
hf:owner/name   a set of the Hugging Face hub, see `hub_argument`; hf:./folder for a local one in its formats
birds, a.csv    a path: a folder, a table, an archive of a folder
"""

import difflib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from finevote.data.archive_source import content_root, unpacked_folder
from finevote.data.archives import is_archive
from finevote.data.catalogue import DATASETS
from finevote.data.fetch import fetch
from finevote.data.folder import open_folder
from finevote.data.hub import open_hub
from finevote.data.hub_argument import is_hub_argument
from finevote.data.items import SPLIT_NAMES
from finevote.data.parquet import open_parquet
from finevote.data.published import DatasetInfo, choose_protocol, open_published
from finevote.data.tables import open_table
from finevote.data.taxonomy import with_taxonomy_beside
from finevote.errors import ArgumentError, DataError, suggest
from finevote.types import DataSource

_TABLES = {".csv": open_table, ".tsv": open_table, ".parquet": open_parquet}
_KINDS = (
    "a folder of class folders, a folder with train/ (val/, test/) of class folders, a zip or tar of one, "
    "a CSV or Parquet table with path,label[,split][,group], a published set in its own layout, "
    "the name of one (finevote data list), hf:owner/name, or the word synthetic"
)


class Named(NamedTuple):
    """A published set that was named, the folder that it belongs into, and the same from any working directory."""

    info: DatasetInfo
    folder: Path
    argument: str

    def find(self) -> Path | None:
        """Return where the set lies, in its folder or right in the one that holds it; None if it is not there."""
        return self.info.find(self.folder) or self.info.find(self.folder.parent)


def open_source(data: str | Path, *, splits: Sequence[str], protocol: str | None = None) -> DataSource:
    """Open a data set; only the splits that are asked for are looked at. A named one that is not there is fetched.

    A data set without splits is all "train". "val" is absent if the data set has none (see `with_validation`).

    Args:
        data: where the images are, as the top of this module lists.
        splits: of "train", "val" and "test".
        protocol: how a published set is divided; None: its first protocol.

    Raises:
        ArgumentError: an unknown split or protocol, or a protocol for a set that has none.
        DataError: nothing is there, it is of no known kind, or its content is not valid; or it cannot be fetched.
        StorageError: there is no room for what must be fetched.
    """
    unknown = [split for split in splits if split not in SPLIT_NAMES]
    if unknown:
        raise ArgumentError(f"unknown split {unknown[0]!r}{suggest(unknown[0], SPLIT_NAMES)}")
    named = find_named(data)
    if named is not None:
        root = find_or_fetch(named)
        source = open_info(named.info, root, name=named.info.name, splits=splits, protocol=protocol)
        return replace(source, argument=named.argument)
    found = None if data == "synthetic" else recognise(Path(data))
    if found is not None:
        return _with_shadow_note(data, open_info(*found, name=str(data), splits=splits, protocol=protocol))
    if protocol is not None:
        raise ArgumentError(f"{data} is divided in one way only: leave the protocol {protocol!r} out")
    return _with_shadow_note(data, _open_other(data, splits=splits))


def _open_other(data: str | Path, *, splits: Sequence[str]) -> DataSource:
    if data == "synthetic":
        from finevote.data.synthetic import synthetic_source

        return synthetic_source(splits=splits)
    if is_hub_argument(data):
        return open_hub(str(data), splits=splits)
    return _open_path(Path(data), splits=splits)


def protocol_for(data: str | Path, protocol: str | None) -> str | None:
    """Return the protocol of a run for data that may be given in another place: None unless that is a published set."""
    is_published = find_named(data) is not None or (data != "synthetic" and recognise(Path(data)) is not None)
    return protocol if is_published else None


def find_named(data: str | Path) -> Named | None:
    """Return the published set that is named; None if `data` names none, or is a path that is there."""
    name, at, folder = str(data).partition("@")
    info = DATASETS.get(name)
    if info is None or (not at and Path(data).exists()):
        return None
    if not folder:
        return Named(info, data_root() / info.folder, f"{name}@")
    root = Path(folder).expanduser().absolute()
    return Named(info, root / info.folder, f"{name}@{root}")


def recognise(path: Path) -> tuple[DatasetInfo, Path] | None:
    """Return the published set that lies at a path or in an archive there, by its content, and its root; else None.

    Raises:
        DataError: the path cannot be looked into, or the archive is damaged or unsafe.
        StorageError: there is no room to unpack it.
    """
    try:
        for folder in _folders_at(path):
            for info in DATASETS.values():
                root = info.find(folder)
                if root is not None:
                    return info, root
    except PermissionError as error:
        raise DataError(f"cannot look into {path}: {error.strerror}: check its permissions") from None
    return None


def _folders_at(path: Path) -> list[Path]:
    """Return the folders that a published set may lie in: the one at a path, or those of an archive there."""
    if path.is_file() and is_archive(path):
        folder = unpacked_folder(path)
        return [folder, content_root(folder)]
    return [path] if path.is_dir() else []


def open_info(
    info: DatasetInfo, root: Path, *, name: str, splits: Sequence[str], protocol: str | None = None
) -> DataSource:
    """Open a published set at its root; notes have its caveat, and where its numbers differ from the published ones.

    Raises:
        ArgumentError: it has no such protocol.
        DataError: as `open_published`.
    """
    chosen = choose_protocol(info.protocols, protocol, name=name)
    source = open_published(info.layout, root, name=name, protocol=chosen, splits=splits)
    return replace(source, notes=(*filter(None, [info.caveat]), *info.differences(source, chosen)))


def find_or_fetch(named: Named, *, console: Console | None = None) -> Path:
    """Return where a named set lies, fetching it first if it is not there.

    Raises:
        DataError: it cannot be fetched; how to bring it by hand is said.
        StorageError: there is no room for it.
    """
    root = named.find()
    if root is not None:
        return root
    console = console or Console(stderr=True)
    console.print(
        f"{named.info.title} is not in {named.folder} yet: fetching it", highlight=False, markup=False, soft_wrap=True
    )
    return get(named, console=console)


def get(named: Named, *, console: Console | None = None) -> Path:
    """Bring what is missing of a named set into its folder and return its root.

    One that lies right in the folder of all sets was unpacked there by hand: nothing is fetched for it.

    Raises:
        DataError: it cannot be fetched, or its files hold something else than they should.
        StorageError: there is no room for it.
    """
    if not named.folder.exists() and (root := named.info.find(named.folder.parent)) is not None:
        return root
    fetch(named.info.files, named.folder, console=console, instructions=named.info.instructions)
    root = named.info.find(named.folder)
    if root is None:
        raise DataError(
            f"{named.folder} has the files of {named.info.title}, but not its layout: remove it, get it again"
        )
    return root


def get_complete(named: Named, *, console: Console | None = None) -> list[DataSource]:
    """Bring a named set and open every split of it, under each protocol.

    Raises:
        DataError: as `get`; or classes or images are not as many as were published.
        StorageError: there is no room for it.
    """
    root = get(named, console=console)
    sources, differences = [], []
    for protocol in named.info.protocols:
        splits = tuple(protocol.lists)
        sources.append(open_info(named.info, root, name=named.info.name, splits=splits, protocol=protocol.name))
        differences += named.info.differences(sources[-1], protocol)
    if differences:
        raise DataError(f"{root} is not whole ({'; '.join(dict.fromkeys(differences))}): remove it and get it again")
    return sources


def data_root() -> Path:
    """Return the folder of all named sets: $FINEVOTE_DATA, or finevote in $XDG_DATA_HOME or ~/.local/share."""
    own, shared = os.environ.get("FINEVOTE_DATA"), os.environ.get("XDG_DATA_HOME")
    if own:
        return Path(own).expanduser().absolute()
    return (Path(shared) if shared else Path.home() / ".local" / "share") / "finevote"


def _with_shadow_note(data: str | Path, source: DataSource) -> DataSource:
    """Return the source of a path, with a note if the path has the name of a published set."""
    if str(data) not in DATASETS:
        return source
    note = f"{data} is the one in {Path.cwd()}; the published set of this name is {data}@"
    return replace(source, notes=(*source.notes, note))


def _open_path(path: Path, *, splits: Sequence[str]) -> DataSource:
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except PermissionError as error:
        raise DataError(f"cannot look into {path}: {error.strerror}: check its permissions") from None
    if is_folder:
        return with_taxonomy_beside(open_folder(path, splits=splits), path)
    if is_file and path.suffix.lower() in _TABLES:
        return with_taxonomy_beside(_TABLES[path.suffix.lower()](path, splits=splits), path)
    if is_file and is_archive(path):
        root = content_root(unpacked_folder(path))
        return with_taxonomy_beside(open_folder(root, name=str(path), splits=splits), root)
    if is_file:
        raise DataError(
            f"{path} is a file, but neither a table ({', '.join(_TABLES)}) nor an archive (zip, tar): give {_KINDS}"
        )
    near = difflib.get_close_matches(str(path).partition("@")[0], DATASETS, n=1)
    meant = f"; did you mean {near[0]!r}?" if near else ""
    raise DataError(f"{path} is not there{meant}: give {_KINDS}")
