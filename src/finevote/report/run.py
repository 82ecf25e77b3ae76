"""`finevote report RUN`: a run's split as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finevote.report import further, inside, trust
from finevote.report.blocks import Page, Section
from finevote.report.classes import classes
from finevote.report.contrasts import explain_mistakes
from finevote.report.controls import controls
from finevote.report.headline import SPLITS, headline, protocol
from finevote.report.material import Material, gather
from finevote.report.others import others
from finevote.report.pictures import Explain, pictures
from finevote.report.provenance import audit, making
from finevote.report.render import Written, describe_making, write_page
from finevote.report.training_curves import training
from finevote.report.votes import votes

REPORT_NAME = "report.html"


def write_report(
    run: Path | str,
    *,
    split: str = "val",
    data: str | Path | None = None,
    out: Path | None = None,
    ablation: Path | None = None,
) -> Written:
    """Write what is known of a run's split as one HTML file of at most 8 MB that asks for nothing outside of itself.

    The split is measured first if that has not been done with the bundle that the run has now; on the test split that
    is entered in the ledger. What a run lacks is left out, with the command that makes it.

    Args:
        run: a folder that `finevote fit` has finished.
        split: "val" or "test".
        data: where the data set lies now, if it has moved.
        out: the file; None: `report.html` in the run.
        ablation: the folder of an ablation or sweep to show beside the run; None: the one that it lies in, if it does.

    Raises:
        RunError: `run` is no finished run, its report cannot be read, or `ablation` holds no ablation.
        StorageError: the file cannot be written.
        As `evaluate` does, for what has not been measured.
    """
    material = gather(run, split=split, data=data, ablation=ablation)
    return write_page(make_page(material, explain=explain_mistakes), out or material.folder.path / REPORT_NAME)


def make_page(material: Material, *, explain: Explain | None = None) -> Page:
    """Return the page of a measured run; `explain` tells why a mistake was made, None leaves that out."""
    report = material.report
    sections: list[Section | None] = [
        protocol(material),
        controls(material),
        *pictures(material, explain=explain),
        classes(material),
        trust.calibration(report),
        trust.selective(report),
        further.unknown(report),
        further.taxonomy(report),
        further.fusion(report),
        further.augmentation(report),
        further.retrieval(material),
        votes(material),
        inside.faithfulness(material),
        inside.layers(material),
        *others(report),
        training(material),
        audit(material),
        making(material),
    ]
    return Page(
        title=material.label,
        kicker="Report on a classifier",
        subtitle=_subtitle(report),
        headline=headline(material),
        sections=[section for section in sections if section is not None],
        footer=describe_making(),
        has_votes=material.has_votes and material.shelf is not None,
    )


def _subtitle(report: Mapping[str, Any]) -> str:
    data, split = Path(str(report["data"])).name, SPLITS[report["split"]]
    return f"{data}: {report['num_images']:,} {split} images of {report['num_classes']:,} classes"
