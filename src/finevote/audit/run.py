"""The audit as a whole: one look at every image of every split, then what follows from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from finevote.audit.findings import Audit, ImageRef, count_leaked
from finevote.audit.inspection import (
    describe_label_errors,
    find_copies,
    find_odd,
    find_similar,
    find_split_groups,
    find_uneven,
    find_unreadable,
    refs_of,
    units_of,
)
from finevote.audit.probe import check_backbone, code_patches, embed, judge
from finevote.audit.sheet import draw_findings
from finevote.data.fingerprints import take_fingerprints
from finevote.data.known_leaks import KnownLeaks, keep_leaks
from finevote.data.opening import data_argument, open_every_split
from finevote.errors import DataError, StorageError
from finevote.explanation.figures import save_figure
from finevote.files import atomic_write
from finevote.progress import Meter
from finevote.types import DataSource

REPORT_NAME, SHEET_NAME = "audit.json", "audit.png"


def audit(
    data: str | Path,
    *,
    protocol: str | None = None,
    out: Path | None = None,
    backbone: str | None = None,
    weights: str | None = None,
) -> tuple[Audit, Path]:
    """Audit a data set, write `audit.json` and `audit.png` and return what was found and the folder of both.

    Every split is opened, the test split too: looking for copies in it measures nothing, and no ledger is touched.
    What is found about copies across splits is kept in the user's cache, where `fit` looks it up.

    Args:
        data: what `open_source` takes.
        protocol: how a published set is divided; None: its first protocol.
        out: the folder; None: `audit-<name>` here. An earlier audit in it is replaced, anything else is left alone.
        backbone: judge labels and look for likenesses by its embeddings; None: labels by patch features.
        weights: of the backbone; None: the published ones.

    Raises:
        ArgumentError: weights without a backbone, or a backbone with random ones.
        DataError: the data set is missing or malformed, or none of its images can be read.
        StorageError: `out` is taken by something else or cannot be written.
    """
    check_backbone(backbone, weights)
    source = open_every_split(data, protocol=protocol)
    folder = out or Path(f"audit-{_slug(source.name)}")
    check_folder(folder)
    argument = data_argument(data, source)
    found = audit_source(source, data=argument, backbone=backbone, weights=weights)
    report = folder / REPORT_NAME
    sheet = draw_findings(found, source)
    if sheet is None:
        (folder / SHEET_NAME).unlink(missing_ok=True)
    else:
        save_figure(sheet, folder / SHEET_NAME)
    atomic_write(report, json.dumps(found.to_dict(), indent=1, ensure_ascii=False) + "\n")
    fitted = [record.image_id for split in ("train", "val") for record in source.splits.get(split, ())]
    keep_leaks(argument, fitted, KnownLeaks(found.num_leaked, found.num_images, str(report.absolute())))
    return found, folder


def audit_source(
    source: DataSource, *, data: str | None = None, backbone: str | None = None, weights: str | None = None
) -> Audit:
    """Return what is found in an open data set; `data` is what opens it, its name unless given.

    Raises:
        DataError: none of its images can be read.
    """
    check_backbone(backbone, weights)
    records = [record for split in source.splits.values() for record in split]
    all_refs = _refs(source)
    with Meter("look at images", total=len(records)) as meter:
        taken = take_fingerprints(records, read=source.read, advance=meter.advance)
    if not taken.rows:
        raise DataError(f"{source.name}: none of its {len(records):,} images can be read")
    refs, readable = refs_of(taken, all_refs), [records[row] for row in taken.rows]
    copies, numbers = find_copies(refs, taken.prints)
    findings = [*find_unreadable(all_refs, taken.unreadable), *copies]
    if backbone is None:
        views, features = code_patches(taken.prints), "patch features of 64 px thumbnails"
    else:
        embeddings = embed(source, readable, backbone=backbone, weights=weights or "auto")
        findings += find_similar(refs, embeddings, numbers)
        views, features = embeddings[None], f"embeddings of {backbone}"
    labels = np.array([record.label for record in readable], np.int64)
    judgement = judge(views, labels, units_of(refs, numbers), num_classes=len(source.class_names))
    findings += find_split_groups(all_refs)
    findings += describe_label_errors(judgement.errors, refs, source.class_names)
    findings += [*find_uneven(all_refs, source.class_names), *find_odd(refs, taken.prints)]
    return Audit(
        data=data or source.name,
        num_images={split: len(some) for split, some in source.splits.items()},
        num_classes=len(source.class_names),
        findings=tuple(findings),
        features=features,
        judgement=judgement,
        num_leaked=count_leaked(findings),
        notes=source.notes,
    )


def check_folder(folder: Path) -> None:
    """Raise StorageError unless `folder` is free, empty, or holds an earlier audit."""
    if folder.exists() and not (folder / REPORT_NAME).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StorageError(f"{folder} is there and holds no audit: give another --out")


def _refs(source: DataSource) -> list[ImageRef]:
    return [
        ImageRef(record.image_id, split, source.class_names[record.label], record.group)
        for split, records in source.splits.items()
        for record in records
    ]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).stem or name).strip("-") or "data"
