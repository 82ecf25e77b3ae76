"""Are the files of a bundle those that were written? And what to do where they are not."""

import re
from collections.abc import Set as AbstractSet
from pathlib import Path

from finevote.bundle.manifest import (
    ADVICE,
    CALIBRATION_NAME,
    GALLERY_NAMES,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    FileEntry,
    Manifest,
)
from finevote.errors import BundleError
from finevote.files import is_temporary, sha256_of
from finevote.run_folder import RunFolder

_LEFT_BY_SYSTEMS = frozenset(
    {
        *(".DS_Store", "Thumbs.db", "desktop.ini"),  # file managers put them into any folder
        *("README.md", ".gitattributes", ".git", ".cache"),  # and hubs into what is fetched from them
    }
)
_REMEDIES = {CALIBRATION_NAME: "calibrate", **dict.fromkeys(GALLERY_NAMES, "gallery")}  # commands that make it anew
REPLACEABLE = frozenset(_REMEDIES)

ADDED_NAME = re.compile(r"added-[1-9][0-9]*\.safetensors")  # classes added by `finevote add-class`


def describe(path: Path) -> FileEntry:
    """Return what the manifest says of a file."""
    return FileEntry(size_bytes=path.stat().st_size, sha256=sha256_of(path))


def check_files(folder: Path, manifest: Manifest, *, passed_over: AbstractSet[str] = frozenset()) -> None:
    """Raise BundleError naming every file that is not as it was written, but for those that are passed over."""
    left_behind = {item.name for item in folder.iterdir() if _is_left_behind(item.name)} - manifest.files.keys()
    found = {item.name for item in folder.iterdir()} - {MANIFEST_NAME} - _LEFT_BY_SYSTEMS - left_behind - passed_over
    expected = manifest.files.keys() - passed_over
    problems = dict.fromkeys(sorted({*expected, WEIGHTS_NAME} - passed_over - found), "is missing")
    problems |= dict.fromkeys(sorted(found - expected), f"is not listed in {MANIFEST_NAME}: remove it")
    for name in sorted(found & expected):
        if problem := _find_change(folder / name, manifest.files[name]):
            problems[name] = problem
    if problems:
        told = "; ".join(f"{name} {problem}" for name, problem in problems.items())
        raise BundleError(
            f"the bundle {folder} is not as it was written ({told}): {advice_on(folder, problems.keys())}"
        )


def advice_on(folder: Path, names: AbstractSet[str]) -> str:
    """Return what to do where these files of a bundle are damaged: commands, where they can make all of them anew."""
    if all(ADDED_NAME.fullmatch(name) for name in names):
        return f"take the classes back with `finevote add-class {folder.parent} --undo`, and add them again"
    if not RunFolder(folder.parent).config_yaml.is_file() or not names <= _REMEDIES.keys():
        return ADVICE
    remedies = sorted({_REMEDIES[name] for name in names})
    commands = " and ".join(f"`finevote {remedy} {folder.parent}`" for remedy in remedies)
    return f"make it anew with {commands}, or {ADVICE}"


def _is_left_behind(name: str) -> bool:
    """Tell whether a file that is not listed may be what a process left that was killed while it changed the bundle."""
    return ADDED_NAME.fullmatch(name) is not None or is_temporary(name)


def _find_change(path: Path, entry: FileEntry) -> str | None:
    try:
        size_bytes = path.stat().st_size
        if size_bytes != entry.size_bytes:
            return f"has {size_bytes:,} bytes instead of {entry.size_bytes:,}"
        return None if sha256_of(path) == entry.sha256 else "was changed (its SHA-256 differs)"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
