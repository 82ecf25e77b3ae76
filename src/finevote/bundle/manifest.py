"""bundle.json: what a bundle says of itself, sealed by a hash of its own content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from finevote.errors import BundleError
from finevote.types import Preprocessing, Taxonomy

FORMAT_VERSION = 1
MANIFEST_NAME, WEIGHTS_NAME, CALIBRATION_NAME = "bundle.json", "model.safetensors", "calibration.safetensors"
GALLERY_NAMES = ("gallery.safetensors", "gallery.json")
ADVICE = "copy the bundle again from where it came, or write it anew with `finevote fit`"


class Strict(BaseModel):
    """Values of a JSON file: an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(Strict):
    """What a file of the bundle must be."""

    size_bytes: int
    sha256: str


class Manifest(Strict):
    """The content of bundle.json."""

    format_version: int
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    config: dict[str, Any]
    versions: dict[str, str]
    details: dict[str, Any]
    files: dict[str, FileEntry]
    sha256: str
    taxonomy: Taxonomy | None = None

    @property
    def keep_rate(self) -> float:
        """Share of patches that each reducing layer keeps; 1 where the bundle is older than that."""
        return float(self.config["model"]["voting"].get("keep_rate", 1.0))


def read_manifest(folder: Path) -> Manifest:
    """Read and check bundle.json alone.

    Raises:
        BundleError: it is missing, cut, changed, or of another format.
    """
    content = read_content(folder)
    try:
        return Manifest.model_validate({**content, "sha256": content_hash(content)})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise BundleError(f"{folder / MANIFEST_NAME} is not valid ({problems}): {ADVICE}") from None


def read_content(folder: Path) -> dict[str, Any]:
    """Return what bundle.json holds, as it was written, but for its hash, which is checked; it may be sealed again.

    Raises:
        BundleError: it is missing, cut, changed, or of another format.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST_NAME}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {path} ({' '.join(str(error).split())}): {ADVICE}") from None
    if not isinstance(content, dict):
        raise BundleError(f"{path} is not a bundle description, it holds a {type(content).__name__}: {ADVICE}")
    if (found := content.get("format_version")) != FORMAT_VERSION:
        raise BundleError(
            f"{path} has format version {found}, but this finevote reads {FORMAT_VERSION}: "
            "install the finevote that wrote it, or write the bundle anew"
        )
    if content.pop("sha256", None) != content_hash(content):
        raise BundleError(f"{path} was changed after it was written: {ADVICE}")
    return content


def content_of(manifest: Manifest) -> dict[str, Any]:
    """Return what a manifest holds, to be changed and sealed again."""
    return manifest.model_dump(mode="json", exclude={"sha256"})


def sealed(content: Mapping[str, Any]) -> str:
    """Return the text of bundle.json: the content and the hash of it."""
    content = json.loads(json.dumps(content))  # as it will be read: tuples are lists, keys are strings
    text = json.dumps({**content, "sha256": content_hash(content)}, indent=1, ensure_ascii=False)
    return text + "\n"


def content_hash(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the manifest's content, whatever its layout and order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
