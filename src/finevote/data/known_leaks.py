"""What an audit found out about copies across splits, kept for `fit`, which may not look at the test split itself."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from finevote.files import atomic_write

_FORMAT = 1


class KnownLeaks(NamedTuple):
    """`num_leaked`: how many images of a split have a copy in another, {"test": {"train": 3}}; `report` tells which."""

    num_leaked: Mapping[str, Mapping[str, int]]
    num_images: Mapping[str, int]
    report: str


def keep_leaks(data: str, image_ids: Iterable[str], leaks: KnownLeaks) -> None:
    """Keep what was found in the data that `data` opens and whose training and validation images are `image_ids`.

    Raises:
        StorageError: the user's cache cannot be written.
    """
    content = {"format": _FORMAT, "data": data, **leaks._asdict()}
    atomic_write(_entry(data, image_ids), json.dumps(content, indent=1) + "\n", durable=False)


def recall_leaks(data: str, image_ids: Iterable[str]) -> KnownLeaks | None:
    """Return what an audit of the same data with the same images found; None if none is known of."""
    try:
        content: dict[str, Any] = json.loads(_entry(data, image_ids).read_text(encoding="utf-8"))
        if content.pop("format") != _FORMAT or content.pop("data") != data:
            return None
        return KnownLeaks(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a broken entry is as good as none


def _entry(data: str, image_ids: Iterable[str]) -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "finevote" / "audits"
    key = hashlib.sha256("\0".join([data, *sorted(image_ids)]).encode())
    return folder / f"{key.hexdigest()}.json"
