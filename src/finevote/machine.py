"""What the figures were measured on and with."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

_LIBRARIES = ("finevote", "torch", "timm")


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, threads, memory and GPU, as they are now."""
    return {
        "cpu": _cpu_name(),
        "num_cores": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that do the work."""
    return {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}}


def machine_line() -> str:
    """Return machine, versions and commit in a line for people."""
    machine, versions, commit = describe_machine(), describe_versions(), find_commit()
    gpu = machine["gpu"] or "no GPU"
    libraries = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f"{machine['num_cores']} cores of {machine['cpu']}, {gpu}; {libraries}" + (
        f"; commit {commit[:10]}{commit[40:]}" if commit else ""
    )


def find_commit() -> str | None:
    """Return the commit of the checkout that the package lies in, marked where files differ from it; None without."""
    folder = Path(__file__).parent
    try:
        tracked = _git(folder, "ls-files", Path(__file__).name)
        commit, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "-uno")
    except (OSError, subprocess.CalledProcessError):
        return None
    if not tracked:  # an installed package inside somebody else's repository
        return None
    return f"{commit} with changes" if changes else commit


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True)  # noqa: S603, S607
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None
