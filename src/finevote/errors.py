"""The exception tree. Every message says what was wrong, what was got, what is allowed and what to do."""

import difflib
import re
from collections.abc import Iterable


class FinevoteError(Exception):
    """Base of every error that a user can mend; the command prints its message, mostly of one line, and exits 2."""


class ConfigError(FinevoteError):
    """A recipe, an option or a `--set` is not valid."""


class DataError(FinevoteError):
    """A data set is missing, empty, malformed, or has unreadable images."""


class DownloadError(FinevoteError):
    """A published file cannot be had from any of its addresses, or what is there is not that file."""


class ArchiveError(FinevoteError):
    """An archive is damaged, or refused because it is unsafe to unpack."""


class WeightsError(FinevoteError):
    """A weight file is missing, of another model, or unsafe to read."""


class UnsupportedModelError(FinevoteError):
    """A timm model whose attention cannot be read as CLS rows."""


class BundleError(FinevoteError):
    """A bundle is incomplete, changed, or of another format."""


class RunError(FinevoteError):
    """A run folder is missing, busy, finished, or cannot be resumed."""


class ExportError(FinevoteError):
    """A classifier cannot be exported, or the exported program does not answer as it does."""


class HubError(FinevoteError):
    """The hub cannot be reached, refuses, or has something else than a bundle."""


class ServingError(FinevoteError):
    """A server cannot start, cannot be reached, or refused a request.

    `status` is the status of HTTP that a server refused with, None where it was not asked or did not answer.
    """

    status: int | None = None


class StorageError(FinevoteError):
    """A file cannot be written: the disk is full, or the place is not writable."""


class ArgumentError(FinevoteError, ValueError):
    """A function was given a value outside what it accepts."""


class MissingExtraError(FinevoteError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'finevote[{extra}]'")


def find_known_error(trace: str) -> FinevoteError | None:
    """Return the error of this package that ended another process, from the text of its trace."""
    last_of_chain = r".*^finevote\.errors\.(\w+): (?!.*^Traceback )(.*)\Z"
    match = re.match(last_of_chain, trace, re.MULTILINE | re.DOTALL)
    kinds = {kind.__name__: kind for kind in FinevoteError.__subclasses__()}
    if match is None or match.group(1) not in kinds:
        return None
    kind = kinds[match.group(1)]
    return kind.__new__(kind, match.group(2).strip())  # without `__init__`, which may put a message together


def plain_message(error: FinevoteError) -> str:
    """Return the message alone of an error that may come, with its trace for a message, from a loader process."""
    return str(find_known_error(str(error)) or error)


def suggest(got: str, allowed: Iterable[str], *, prefix: str = "") -> str:
    """Return a clause that names the nearest allowed value, behind `prefix`, or all: `; did you mean 'optim.lr'?`."""
    choices = sorted(allowed)
    near = difflib.get_close_matches(got, choices, n=1)
    if near:
        return f"; did you mean {prefix + near[0]!r}?"
    return f"; allowed: {', '.join(choices)}" if choices else ""
