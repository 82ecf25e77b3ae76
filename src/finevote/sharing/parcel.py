"""What is given away of a run: its bundle as plain files, and the card. Any place that keeps files can hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from finevote.bundle.additions import added_files
from finevote.bundle.checks import check_files
from finevote.bundle.manifest import GALLERY_NAMES, MANIFEST_NAME, Manifest, content_of, sealed
from finevote.sharing.card import write_card
from finevote.sharing.connection import CARD_NAME
from finevote.sharing.facts import gather_facts


@dataclass(frozen=True)
class Parcel:
    """Files by name, as paths or content; `notes` tell what to know before they are public."""

    files: Mapping[str, Path | bytes]
    manifest: Manifest
    notes: tuple[str, ...] = ()

    def num_bytes(self, name: str) -> int:
        """Return the size of one file."""
        file = self.files[name]
        return len(file) if isinstance(file, bytes) else file.stat().st_size

    @property
    def card(self) -> str:
        """The model card."""
        content = self.files[CARD_NAME]
        return content.decode() if isinstance(content, bytes) else content.read_text(encoding="utf-8")


def pack(run: Path | str, *, repository: str | None = None, with_gallery: bool = False) -> Parcel:
    """Return what to give away of a run or bundle, every file of it checked.

    The gallery holds ids, paths and perhaps thumbnails of training images, so it stays here unless it is asked for;
    bundle.json then says nothing of it.

    Args:
        run: a finished run, or a bundle.
        repository: where it goes, for the card.
        with_gallery: give the gallery too.

    Raises:
        BundleError: there is no bundle, or it is not as it was written.
        RunError: a file of the run cannot be read.
    """
    facts = gather_facts(run)
    check_files(facts.folder, facts.manifest)
    content = content_of(facts.manifest)
    left_out = [] if with_gallery else [name for name in GALLERY_NAMES if name in content["files"]]
    content["files"] = {name: entry for name, entry in content["files"].items() if name not in left_out}
    text = sealed(content).encode() if left_out else (facts.folder / MANIFEST_NAME).read_bytes()
    manifest = Manifest.model_validate_json(text)
    files: dict[str, Path | bytes] = {name: facts.folder / name for name in manifest.files}
    files[MANIFEST_NAME] = text
    title = repository.rpartition("/")[2] if repository else _name_of(Path(run))
    files[CARD_NAME] = write_card(facts, manifest, name=title, repository=repository).encode()
    return Parcel(files, manifest, notes=tuple(_notes(manifest, left_out=left_out, with_gallery=with_gallery)))


def _name_of(path: Path) -> str:
    place = path.absolute()
    return place.parent.name if place.name == "bundle" else place.name


def _notes(manifest: Manifest, *, left_out: list[str], with_gallery: bool) -> list[str]:
    notes = []
    if left_out:
        notes.append("the gallery stays here, since it tells of training images: --with-gallery gives it too")
    elif with_gallery and set(GALLERY_NAMES) & manifest.files.keys():
        notes.append("the gallery goes along: names, places and thumbnails of training images become readable")
    if added_files(manifest.files):
        notes.append("the added classes go along: names and places of their photographs become readable")
    place = str(manifest.details.get("data") or "")
    if place.startswith(("/", "~")) or "\\" in place:
        notes.append(f"bundle.json says where the data lay on this machine: {place}")
    weights = manifest.details.get("weights")
    if isinstance(weights, Mapping) and weights.get("obligations"):
        notes.append(f"the weights: {weights['obligations']}")
    return notes
