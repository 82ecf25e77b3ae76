"""Where files that can be made again are kept for the user."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """Return the user's cache folder for one kind of files: $XDG_CACHE_HOME or ~/.cache, then finevote/KIND."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "finevote" / kind
