"""What is known of a bundle and of the run that it is from, as far as it was stated or measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finevote.backbones.published import WeightsOrigin
from finevote.bundle.additions import load_added_names
from finevote.bundle.manifest import CALIBRATION_NAME, WEIGHTS_NAME, Manifest, read_manifest
from finevote.data.catalogue import DATASETS
from finevote.data.published import DatasetInfo
from finevote.data.registry import find_named, recognise
from finevote.errors import FinevoteError
from finevote.measure.opening import SPLITS, count_openings
from finevote.predictor import find_bundle
from finevote.run_folder import RunFolder

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facts:
    """All that a model card can tell.

    `reports` holds, by split, what was measured with these very weights; `data` is what data.json of the run says,
    empty where there is no run; `published` the data set, where it is one that is known by name; `added_names` the
    classes that were added to the trained ones.
    """

    folder: Path
    manifest: Manifest
    reports: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    num_test_openings: int | None = None
    published: DatasetInfo | None = None
    added_names: tuple[str, ...] = ()

    @property
    def is_calibrated(self) -> bool:
        """Whether validation images told how far the probabilities can be believed."""
        return CALIBRATION_NAME in self.manifest.files

    @property
    def weights(self) -> WeightsOrigin | None:
        """Where the pretrained weights came from; None where the bundle does not say."""
        try:
            return WeightsOrigin(**self.manifest.details["weights"])
        except (KeyError, TypeError):
            return None

    @property
    def data_name(self) -> str:
        """The data set without the folders that it lay in."""
        if self.published is not None:
            return self.published.title
        name = " ".join(str(self.manifest.details.get("data") or self.data.get("name") or "").split())
        return Path(name).name if "/" in name and not name.startswith("hf:") else name

    @property
    def soup(self) -> Mapping[str, Any] | None:
        """What the weights are the average of; None where they were trained."""
        found = self.manifest.details.get("soup")
        return found if isinstance(found, Mapping) else None


def gather_facts(run: Path | str) -> Facts:
    """Return what is known of a run, or of a bundle alone.

    Reports of other weights, or at another keep rate, are left out with a warning.

    Raises:
        BundleError: there is no bundle.
        RunError: a file of the run cannot be read.
    """
    place = find_bundle(Path(run))
    manifest = read_manifest(place)
    folder = _run_of(Path(run), place)
    added = load_added_names(place, manifest)
    if folder is None:
        return Facts(place, manifest, published=_find_published(manifest.details.get("data")), added_names=added)
    data = folder.read_json(folder.data_json)
    return Facts(
        folder=place,
        manifest=manifest,
        reports={split: report for split in SPLITS if (report := _read_report(folder, manifest, split))},
        data=data,
        num_test_openings=count_openings(folder).num,
        published=_find_published(data.get("data")) or _find_published(manifest.details.get("data")),
        added_names=added,
    )


def _run_of(path: Path, place: Path) -> RunFolder | None:
    """Return the run that a bundle is of; None where it lies by itself."""
    for folder in (RunFolder(path), RunFolder(place.absolute().parent)):
        if folder.data_json.is_file() and folder.bundle.is_dir() and folder.bundle.samefile(place):
            return folder
    return None


def _read_report(folder: RunFolder, manifest: Manifest, split: str) -> dict[str, Any] | None:
    path = folder.evaluation(split).report_json
    if not path.is_file():
        return None
    report = folder.read_json(path, advice=f"measure it again: finevote evaluate {folder.path} --split {split}")
    weights = manifest.files[WEIGHTS_NAME].sha256
    if report.get("weights_sha256") != weights or report.get("keep_rate") != manifest.keep_rate:
        _logger.warning("what was measured on %s is of other weights, or at another keep rate: it is left out", split)
        return None
    return report


def _find_published(data: object) -> DatasetInfo | None:
    """Return the published set that a data argument names, or that lies there."""
    if not isinstance(data, str) or not data:
        return None
    if (info := DATASETS.get(data)) is not None:
        return info
    try:
        named = find_named(data)
        if named is not None:
            return named.info
        found = recognise(Path(data)) if Path(data).is_dir() else None
    except FinevoteError:  # it has moved or is locked; the card does without
        return None
    return found and found[0]
