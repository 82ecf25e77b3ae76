"""What is said of a contender that could not be measured, and the bound that keeps it from taking the machine along."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finevote.data.cache import free_bytes

try:
    import resource
except ImportError:  # not on Windows, where nothing bounds a process
    resource = None  # type: ignore[assignment]

DOES_NOT_FIT = "does not fit into memory"
_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|Cannot allocate memory", re.IGNORECASE)
_KEPT_FREE_BYTES = 2**28
_LONGEST = 200


def describe_failure(error: BaseException) -> str:
    """Return an error in a line; one for want of memory as "does not fit into memory"."""
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return DOES_NOT_FIT
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:_LONGEST]


@contextmanager
def bounded_memory(device: str) -> Iterator[None]:
    """Let allocations of the block fail where they exceed what is free now, instead of having the system kill somebody.

    Only for work on the CPU, on Linux; elsewhere nothing is bounded.
    """
    used = status_bytes("VmData")
    if resource is None or used is None or device != "cpu":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    bound = used + max(free_bytes() - _KEPT_FREE_BYTES, 0)
    resource.setrlimit(resource.RLIMIT_DATA, (bound if hard == resource.RLIM_INFINITY else min(bound, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def status_bytes(name: str) -> int | None:
    """Return a figure of this process, such as VmRSS or VmHWM; None where the system does not say."""
    try:
        match = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(match.group(1)) if match else None
