"""Parts of a bundle that are replaced while the weights stay; the bundle changes as a whole or not at all."""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from finevote.bundle.calibration import save_calibration
from finevote.bundle.checks import describe
from finevote.bundle.gallery import save_gallery
from finevote.bundle.manifest import (
    CALIBRATION_NAME,
    GALLERY_NAMES,
    MANIFEST_NAME,
    WEIGHTS_NAME,
    content_of,
    read_manifest,
    sealed,
)
from finevote.evaluation.calibrator import Calibration
from finevote.evaluation.gallery import Gallery
from finevote.files import atomic_folder, atomic_write, exclusive, remove_temporaries
from finevote.types import Taxonomy


def record_keep_rate(
    folder: Path, keep_rate: float, *, details: Mapping[str, Any], calibration: Calibration | None = None
) -> None:
    """Make a keep rate the bundle's own, with what it was chosen by; the bundle changes as a whole or not at all.

    Args:
        folder: of the bundle.
        keep_rate: share of patches that each reducing layer keeps.
        details: ready for JSON; kept under "keep_rate" in the bundle's details.
        calibration: of the model at that keep rate; None leaves the one that is there, which holds at its own alone.

    Raises:
        BundleError: as `read_manifest`.
    """
    with _alone(folder) as content:
        content["config"]["model"]["voting"]["keep_rate"] = keep_rate
        content["details"]["keep_rate"] = dict(details)
        if calibration is None:
            atomic_write(folder / MANIFEST_NAME, sealed(content))
        else:
            _replace_calibration(folder, content, calibration)


def record_calibration(folder: Path, calibration: Calibration, *, taxonomy: Taxonomy | None = None) -> None:
    """Put a calibration in the place of the bundle's; the bundle changes as a whole or not at all.

    Args:
        folder: of the bundle.
        calibration: of its model.
        taxonomy: of its classes, to put in the place of the bundle's; None leaves what is there.

    Raises:
        BundleError: as `read_manifest`.
    """
    with _alone(folder) as content:
        if taxonomy is not None:
            content["taxonomy"] = taxonomy.to_dict()
        _replace_calibration(folder, content, calibration)


def record_gallery(folder: Path, gallery: Gallery | None) -> None:
    """Put a gallery of the bundle's model in the place of the bundle's, or none; the bundle changes as a whole.

    Raises:
        BundleError: as `read_manifest`.
    """
    with _alone(folder) as content:
        sha256 = content["files"][WEIGHTS_NAME]["sha256"]

        def write(place: Path) -> None:
            if gallery is not None:
                save_gallery(place, gallery, weights_sha256=sha256)

        _replace_files(folder, content, GALLERY_NAMES, write)


@contextmanager
def _alone(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the content of the manifest while no other process changes the bundle; what killed ones left goes."""
    read_manifest(folder)  # raises before anything is made beside a folder that is no bundle
    with exclusive(folder.parent):
        remove_temporaries(folder.parent, of=folder.name)
        yield content_of(read_manifest(folder))


def _replace_calibration(folder: Path, content: dict[str, Any], calibration: Calibration) -> None:
    _replace_files(folder, content, (CALIBRATION_NAME,), lambda place: save_calibration(place, calibration))


def _replace_files(
    folder: Path, content: dict[str, Any], replaced: Collection[str], write: Callable[[Path], None]
) -> None:
    """Write the bundle anew beside itself, its other files linked where the file system can, and exchange the two.

    Args:
        folder: of the bundle.
        content: of its manifest.
        replaced: the names of all files that `write` may put into the folder that it is given.
        write: see there.
    """
    kept = {name: entry for name, entry in content["files"].items() if name not in replaced}
    with atomic_folder(folder, replace=True) as temporary:
        write(temporary)
        made = {path.name: describe(path).model_dump() for path in temporary.iterdir()}
        for name in kept:
            _link_or_copy(folder / name, temporary / name)
        (temporary / MANIFEST_NAME).write_text(sealed({**content, "files": kept | made}), encoding="utf-8")


def _link_or_copy(path: Path, copy: Path) -> None:
    """Give a file a second name, or copy it; one that is missing stays so, for whoever reads the bundle to tell."""
    try:
        copy.hardlink_to(path)
    except FileNotFoundError:
        return
    except OSError:
        shutil.copy2(path, copy)
