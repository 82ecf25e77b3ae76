"""The exception tree. Every message says what was wrong, what was got, what is allowed and what to do."""

import difflib
from collections.abc import Iterable


class FinevoteError(Exception):
    """Base of every error that a user can mend; the command prints its message on one line and exits 2."""


class ConfigError(FinevoteError):
    """A recipe, an option or a `--set` is not valid."""


class DataError(FinevoteError):
    """A data set is missing, empty, malformed, or has unreadable images."""


class WeightsError(FinevoteError):
    """A weight file is missing, of another model, or unsafe to read."""


class UnsupportedModelError(FinevoteError):
    """A timm model whose attention cannot be read as CLS rows."""


class BundleError(FinevoteError):
    """A bundle is incomplete, changed, or of another format."""


class RunError(FinevoteError):
    """A run folder is missing, busy, finished, or cannot be resumed."""


class StorageError(FinevoteError):
    """A file cannot be written: the disk is full, or the place is not writable."""


class ArgumentError(FinevoteError, ValueError):
    """A function was given a value outside what it accepts."""


class MissingExtraError(FinevoteError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'finevote[{extra}]'")


def suggest(got: str, allowed: Iterable[str]) -> str:
    """Return a clause that names the nearest allowed value, or all of them: `; did you mean 'lr'?`."""
    choices = sorted(allowed)
    near = difflib.get_close_matches(got, choices, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; allowed: {', '.join(choices)}" if choices else ""
