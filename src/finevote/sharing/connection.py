"""The hub by way of `huggingface_hub`: quietly, and its errors as one line that says what to do."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from finevote.errors import ArgumentError, FinevoteError, HubError, MissingExtraError

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

CARD_NAME = "README.md"  # as the hub shows it
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
_OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS})
_OF_A_BREAK = ("Consistency check failed", "peer closed connection", "without sending complete message")
_ANSWERS = {
    403: "you have no right to write there: use a token that may, or another name",
    409: "it was changed at the same time: run it again",
    412: "it was changed at the same time: run it again",
    413: "a file is too large for it",
    429: "it was asked too often: wait a while",
}


def check_repository(name: str) -> str:
    """Return the name of a repository; raise ArgumentError unless it is owner/name."""
    if not _NAME.fullmatch(name) or ".." in name or "--" in name or name.endswith((".git", ".", "-")):
        raise ArgumentError(f"{name!r} is no name of a repository on the hub: give OWNER/NAME, e.g. me/my-flowers")
    return name


def connect() -> HfApi:
    """Return the way to the hub.

    Raises:
        MissingExtraError: `huggingface_hub` is not installed.
    """
    try:
        from huggingface_hub import HfApi, constants
    except ImportError:
        raise MissingExtraError("huggingface_hub", "hub") from None
    return HfApi(endpoint=constants.ENDPOINT, library_name="finevote")


@contextmanager
def hub_errors(repository: str, *, doing: str) -> Iterator[None]:
    """Turn what the client raises in the block into a HubError; `doing` says what was tried: "fetch", "write to".

    The client's log lines of each attempt are kept away, and its bars where nobody watches.
    """
    from huggingface_hub import errors

    no_connection = errors.HfHubHTTPError.__bases__[0]  # of the HTTP library, which is another one in each version
    with _quiet():
        try:
            yield
        except (no_connection, OSError, RuntimeError, ValueError) as error:
            is_told = isinstance(error, FinevoteError)
            if is_told or (isinstance(error, OSError) and error.errno in _OF_THE_DISK):
                raise
            raise HubError(_describe(error, repository, doing=doing, no_connection=no_connection)) from error


def _describe(error: Exception, repository: str, *, doing: str, no_connection: type[Exception]) -> str:
    """Return in a line what went wrong, and what to do."""
    from huggingface_hub import errors

    kinds = (
        (errors.GatedRepoError, f"{repository} asks for consent: give it on its page, then {LOG_IN}"),
        (errors.RevisionNotFoundError, f"{repository} has no such revision: give a branch, a tag or a commit of it"),
        (
            errors.RepositoryNotFoundError,
            f"there is no repository {repository} that you can see: check the name; if it is private, {LOG_IN}",
        ),
    )
    for kind, told in kinds:
        if isinstance(error, kind):
            return told
    if isinstance(error, errors.LocalTokenNotFoundError):
        reason = f"you are not logged in to the hub: {LOG_IN}"
    elif isinstance(error, errors.OfflineModeIsEnabled):
        reason = "HF_HUB_OFFLINE forbids it: unset it"
    elif isinstance(error, errors.HfHubHTTPError):
        reason = _answer(error)
    else:
        reason = _broken(error, no_connection)
    return f"cannot {doing} {repository}: {reason}"


def _answer(error: HfHubHTTPError) -> str:
    status = error.response.status_code
    if status == 401:
        return f"the hub does not take your token: {LOG_IN}"
    if status in _ANSWERS:
        return _ANSWERS[status]
    if status >= 500:
        return f"the hub answers {status}: try again later"
    return f"the hub answers {status} ({_first_line(error)})"


def _broken(error: BaseException, no_connection: type[BaseException]) -> str:
    """Say what failed below HTTP; uploads hide the reason behind an error of their own."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    links = [error]
    while (link := links[-1].__cause__) is not None:
        links.append(link)
    answered = next((link for link in links if isinstance(link, HfHubHTTPError)), None)
    if answered is not None:
        return _answer(answered)
    if any(sign in str(link) for link in links for sign in _OF_A_BREAK):
        return "the connection broke off in the middle of a file: run it again"
    if any(isinstance(link, (no_connection, ConnectionError, TimeoutError)) for link in links):
        return f"{constants.ENDPOINT} cannot be reached ({_first_line(links[-1])}): check the network"
    return _first_line(links[-1])


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    logger = logging.getLogger("huggingface_hub")
    level, hidden = logger.level, not are_progress_bars_disabled() and not sys.stderr.isatty()
    logger.setLevel(logging.CRITICAL)
    if hidden and not os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
        disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if hidden and not os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS"):
            enable_progress_bars()
