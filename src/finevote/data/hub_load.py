"""Fetching a data set through the `datasets` library, which keeps it in its own cache; no code of a set is run."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finevote.data.hub_argument import HubArgument
from finevote.errors import DataError, FinevoteError, MissingExtraError, StorageError

if TYPE_CHECKING:
    from datasets import Dataset

_FORMATS = ("parquet", "arrow", "imagefolder", "webdataset")
_FROM_CACHE = "cache"  # what the library calls a set that it fetched before and now cannot reach
_LOG_IN = "if it is private or asks for consent, log in with `hf auth login`"


@dataclass(frozen=True)
class HubTables:
    """The splits of a set by its own names, each opened when it is asked for; `revision` is a commit of the hub."""

    split_names: tuple[str, ...]
    open: Callable[[str], Dataset]
    revision: str | None = None


def load_tables(argument: HubArgument) -> HubTables:
    """Fetch a set, unless it is in the library's cache, or open a folder that the library saved.

    Raises:
        DataError: there is no such set, it is of another kind than images, or it cannot be fetched or read.
        MissingExtraError: the library is not installed.
        StorageError: the disk is full.
    """
    datasets = _import_library()
    place = _check_place(argument)
    folders = _saved_splits(place) if argument.is_local else {}
    if folders:
        return HubTables(tuple(folders), lambda split: _load_saved(argument, folders[split]))
    with _explained(argument), _bars_on_terminals_only(datasets):
        builder = datasets.load_dataset_builder(str(place), argument.config, revision=argument.revision)
        _check_builder(argument, builder)
        builder.download_and_prepare()
    return HubTables(
        tuple(str(split) for split in builder.info.splits),
        lambda split: _open_prepared(argument, builder, split),
        revision=None if argument.is_local else builder.hash,
    )


def _load_saved(argument: HubArgument, folder: Path) -> Dataset:
    with _explained(argument):
        return _import_library().load_from_disk(str(folder))


def _open_prepared(argument: HubArgument, builder: Any, split: str) -> Dataset:
    with _explained(argument):
        return builder.as_dataset(split=split)


def _import_library() -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", "hub") from None
    return datasets


def _check_place(argument: HubArgument) -> Path:
    """Return the folder, or the name of a repository; the library would take a folder of that name for it."""
    if argument.is_local:
        folder = Path(argument.place).expanduser().absolute()
        if not folder.is_dir():
            raise DataError(f"{argument.name}: there is no folder {folder}: give hf:owner/name for a set of the hub")
        return folder
    if Path(argument.place).exists():
        raise DataError(
            f"{argument.name} could mean the folder {argument.place} here: give hf:./{argument.place} for it, or work "
            "elsewhere for the one on the hub"
        )
    return Path(argument.place)


def _saved_splits(folder: Path) -> dict[str, Path]:
    """Return {split: folder} of what `save_to_disk` wrote; empty if it did not write this folder."""
    if (folder / "state.json").is_file():
        return {"train": folder}
    index = folder / "dataset_dict.json"
    if not index.is_file():
        return {}
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["splits"]
        return {name: folder / Path(name).name for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"cannot read {index}: {error}: save the data set again") from None


def _check_builder(argument: HubArgument, builder: Any) -> None:
    if builder.name == _FROM_CACHE:
        if argument.revision and not str(builder.hash).startswith(argument.revision):
            raise DataError(
                f"{argument.name}: the hub cannot be reached, and the cache has revision {builder.hash}, not "
                f"{argument.revision}: connect to fetch it"
            )
    elif builder.name not in _FORMATS:
        raise DataError(
            f"{argument.name} holds {builder.name} files, which give no images; allowed are {', '.join(_FORMATS)}"
        )


@contextmanager
def _explained(argument: HubArgument) -> Iterator[None]:
    """Turn whatever the library raises into one line of this package's errors."""
    try:
        yield
    except FinevoteError:
        raise
    except Exception as error:  # the library's own exceptions have no common base
        chain = _chain(error)
        full = next((link for link in chain if _is_disk_full(link)), None)
        if full is not None:
            reason = getattr(full, "strerror", None) or _first_lines(full)
            raise StorageError(
                f"no room for {argument.name}: {reason}: free some space, or set HF_HOME to a larger disk"
            ) from error
        reason, hint = _first_lines(_telling(chain)), _hint(argument, chain)
        raise DataError(f"cannot load {argument.name}: {reason}{f': {hint}' if hint else ''}") from error


def _chain(error: BaseException) -> list[BaseException]:
    links: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in links:
        links.append(link)
        link = link.__cause__ or link.__context__
    return links


def _telling(chain: list[BaseException]) -> BaseException:
    """Return what went wrong, past the library's notice that something did."""
    return next((link for link in chain if type(link).__name__ != "DatasetGenerationError"), chain[0])


def _is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and (error.errno == errno.ENOSPC or "Not enough disk space" in str(error))


def _hint(argument: HubArgument, chain: list[BaseException]) -> str:
    """Say what to do; the kinds are told by name, for only the library knows its classes."""
    kinds = {kind.__name__ for link in chain for kind in type(link).__mro__}
    if "DatasetNotFoundError" in kinds:
        return f"check the name; {_LOG_IN}"
    if kinds & {"ConnectionError", "OfflineModeIsEnabled", "ConnectError", "TimeoutException"}:
        return "connect once, and it stays in the library's cache"
    if "onfig" in str(chain[0]):
        return f"choose one with hf:{argument.place}:CONFIG"
    return ""


def _first_lines(error: BaseException) -> str:
    """Return the sentence of an error and the next, which often lists what there is; examples of use come after."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]).rstrip(".:") or type(error).__name__


@contextmanager
def _bars_on_terminals_only(datasets: Any) -> Iterator[None]:
    was_disabled = datasets.are_progress_bars_disabled()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not was_disabled:
            datasets.enable_progress_bars()
