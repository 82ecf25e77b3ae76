"""Parts of a bundle that are replaced while the weights stay; the bundle changes as a whole or not at all."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from finevote.bundle.calibration import save_calibration
from finevote.bundle.checks import describe
from finevote.bundle.manifest import CALIBRATION_NAME, MANIFEST_NAME, content_of, read_manifest, sealed
from finevote.evaluation.calibrator import Calibration
from finevote.files import atomic_folder, atomic_write
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
    content = content_of(read_manifest(folder))
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
    content = content_of(read_manifest(folder))
    if taxonomy is not None:
        content["taxonomy"] = taxonomy.to_dict()
    _replace_calibration(folder, content, calibration)


def _replace_calibration(folder: Path, content: dict[str, Any], calibration: Calibration) -> None:
    _replace_file(folder, content, CALIBRATION_NAME, lambda place: save_calibration(place, calibration))


def _replace_file(folder: Path, content: dict[str, Any], replaced: str, write: Callable[[Path], None]) -> None:
    """Write the bundle anew beside itself, its other files linked where the file system can, and exchange the two.

    Args:
        folder: of the bundle.
        content: of its manifest.
        replaced: the name of the file that `write` puts into the folder that it is given.
        write: see there.
    """
    with atomic_folder(folder, replace=True) as temporary:
        for name in content["files"].keys() - {replaced}:
            _link_or_copy(folder / name, temporary / name)
        write(temporary)
        content["files"][replaced] = describe(temporary / replaced).model_dump()
        (temporary / MANIFEST_NAME).write_text(sealed(content), encoding="utf-8")


def _link_or_copy(path: Path, copy: Path) -> None:
    try:
        copy.hardlink_to(path)
    except OSError:
        shutil.copy2(path, copy)
