"""The argument that names a data set of the hub, `hf:owner/name[:config][,option=value]...`, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from finevote.errors import ArgumentError, suggest

PREFIX = "hf:"
SPLIT_OPTIONS = ("train", "val", "test")
OPTIONS = ("image", "label", "group", "revision", *SPLIT_OPTIONS)
GRAMMAR = (
    f"hf:owner/name[:config] or hf:./folder, with any of {', '.join(f',{option}=' for option in OPTIONS)} behind it"
)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_LOCAL = re.compile(r"[./~\\]|[A-Za-z]:[/\\]")


@dataclass(frozen=True)
class HubArgument:
    """A repository of data sets (`owner/name`) or a local folder, with what was chosen in it.

    `image`, `label` and `group` are columns; `revision` is a commit, tag or branch; `train`, `val` and `test` are
    names of the set's own splits. None: found out from the set.
    """

    place: str
    is_local: bool
    config: str | None = None
    image: str | None = None
    label: str | None = None
    group: str | None = None
    revision: str | None = None
    train: str | None = None
    val: str | None = None
    test: str | None = None

    def __str__(self) -> str:
        config = f":{self.config}" if self.config else ""
        chosen = [f",{option}={value}" for option in OPTIONS if (value := getattr(self, option)) is not None]
        return f"{PREFIX}{self.place}{config}{''.join(chosen)}"

    @property
    def name(self) -> str:
        """Return the argument without its options, for messages and reports."""
        return f"{PREFIX}{self.place}{f':{self.config}' if self.config else ''}"

    def absolute(self) -> HubArgument:
        """Return the argument so that it means the same from any working directory."""
        return replace(self, place=str(Path(self.place).expanduser().absolute())) if self.is_local else self


def is_hub_argument(data: str | Path) -> bool:
    """Tell whether `data` names a data set of the hub."""
    return isinstance(data, str) and data.startswith(PREFIX)


def parse_hub_argument(data: str) -> HubArgument:
    """Take an argument apart.

    Raises:
        ArgumentError: it is not of the form above.
    """
    body = data.removeprefix(PREFIX)
    place, *pairs = re.split(r",(?=\w+=)", body)
    options: dict[str, str] = {}
    for pair in pairs:
        option, _, value = pair.partition("=")
        if option not in OPTIONS:
            raise ArgumentError(f"{data}: unknown option {option!r}{suggest(option, OPTIONS)}")
        if not value or option in options:
            raise ArgumentError(f"{data}: {option}= {'is given twice' if option in options else 'has no value'}")
        options[option] = value
    is_local = bool(_LOCAL.match(place))
    if is_local and "revision" in options:
        raise ArgumentError(f"{data}: a local folder has no revisions: leave the option out")
    place, config = _split_config(place, is_local=is_local)
    if not is_local and not _REPOSITORY.fullmatch(place):
        raise ArgumentError(f"{data!r} names no data set of the hub: give {GRAMMAR}")
    return HubArgument(place, is_local, config, **options)


def _split_config(place: str, *, is_local: bool) -> tuple[str, str | None]:
    """Return the place without `:config`; a colon in the name of a folder that is there belongs to the folder."""
    head, colon, tail = place.rpartition(":")
    if not colon or not head or (is_local and (Path(place).expanduser().is_dir() or "/" in tail or "\\" in tail)):
        return place, None
    return head, tail or None
