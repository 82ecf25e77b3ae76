"""Which kinds of figures a report has beside its headline, and their pictures. A new kind takes its place here."""

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure

from finevote.evaluation.added_figures import AddedNote
from finevote.evaluation.augmentation import measure_augmentation
from finevote.evaluation.calibrator import Calibration, appoint_judges
from finevote.evaluation.faithfulness import FaithfulnessCurves
from finevote.evaluation.faithfulness_figures import (
    DELETION,
    INSERTION,
    MINUS,
    Faithfulness,
    measure_faithfulness,
    signed,
)
from finevote.evaluation.figure import number, percent
from finevote.evaluation.fusion import measure_fusion
from finevote.evaluation.gallery import Gallery
from finevote.evaluation.metrics import check_predictions
from finevote.evaluation.probes import ProbeAnswers, compare_probes
from finevote.evaluation.report import Report
from finevote.evaluation.retrieval import measure_retrieval
from finevote.evaluation.section import Section
from finevote.evaluation.selective_figures import Selective, measure_selective
from finevote.evaluation.taxonomy_figures import TaxonomyFigures, measure_taxonomy
from finevote.evaluation.trust import Trust, measure_trust
from finevote.evaluation.unknown_figures import measure_unknowns
from finevote.explanation.faithfulness import Band, Panel, faithfulness_plot
from finevote.explanation.reliability import reliability_diagram
from finevote.explanation.risk_coverage import risk_coverage_plot
from finevote.types import Predictions, Taxonomy

CALIBRATING_SPLIT = "val"
_TITLES = {"val": "Validation", "test": "Test"}


def find_sections(
    predictions: Predictions,
    calibration: Calibration | None,
    *,
    split: str,
    unknown: Predictions | None = None,
    taxonomy: Taxonomy | None = None,
    probes: ProbeAnswers | None = None,
    curves: FaithfulnessCurves | None = None,
    gallery: Gallery | None = None,
    seen: Mapping[str, str] | None = None,
    added: Sequence[str] = (),
) -> dict[str, Section]:
    """Return the sections of a split's report by name, from what is saved alone.

    Args:
        predictions: of the split.
        calibration: of the bundle at the keep rate of the predictions; None where there is none.
        split: "val", on which the bundle was calibrated, or "test".
        unknown: of the split's images of classes that were held out of training; None where there are none.
        taxonomy: of the classes, where it is known.
        probes: what the run's probes said of the split; None where it has none.
        curves: of deletion and insertion, where they were measured.
        gallery: of the bundle at the keep rate of the predictions; None where there is none.
        seen: images whose very file the model was fitted to, to that one.
        added: the classes that were added to the trained ones.

    Raises:
        ArgumentError: there are no images, an image's class is not known, or a logit is not finite.
    """
    check_predictions(predictions.logits, predictions.labels)
    is_across = split == CALIBRATING_SPLIT
    temperature = 1.0 if calibration is None else calibration.temperature
    judges = None if calibration is None else appoint_judges(predictions, calibration, is_across=is_across)
    sections: dict[str, Section | None] = {
        "probes": None if probes is None else compare_probes(predictions, probes, was_chosen_here=is_across),
        "trust": measure_trust(predictions, judges),
        "selective": measure_selective(predictions, judges),
        "taxonomy": measure_taxonomy(predictions, calibration, taxonomy),
        "unknown": measure_unknowns(predictions, judges, unknown=unknown),
        "fusion": measure_fusion(predictions, temperature=temperature),
        "augmentation": measure_augmentation(predictions),
        "faithfulness": None if curves is None else measure_faithfulness(curves, predictions),
        "retrieval": measure_retrieval(predictions, gallery, seen=seen),
        "added": AddedNote(tuple(added)) if added else None,
    }
    return {name: section for name, section in sections.items() if section is not None}


def draw_sections(report: Report) -> Iterator[tuple[str, Figure]]:
    """Yield the pictures of a report's sections, each with the name of its file."""
    trust = report.sections["trust"]
    if isinstance(trust, Trust):
        yield "reliability.png", _draw_reliability(trust, num_images=report.num_images, split=report.split)
    selective = report.sections["selective"]
    if isinstance(selective, Selective):
        yield "risk_coverage.png", _draw_risk(selective, report)
    faithfulness = report.sections.get("faithfulness")
    if isinstance(faithfulness, Faithfulness):
        yield "faithfulness.png", _draw_faithfulness(faithfulness, split=report.split)


def _draw_reliability(trust: Trust, *, num_images: int, split: str) -> Figure:
    curves = {"as trained": trust.before.bins}
    error = (trust.after or trust.before).calibration_error
    if trust.after is not None:
        curves["calibrated"] = trust.after.bins
    return reliability_diagram(
        curves,
        title=f"{_TITLES[split]}: sure and right {error.value * 100:.1f} points apart",
        subtitle=f"calibration error {percent(error)}, 95% interval; {_count(num_images)}; dashed: no error",
    )


def _draw_risk(selective: Selective, report: Report) -> Figure:
    curves = {"by its confidence": selective.curve}
    taxonomy = report.sections.get("taxonomy")
    if isinstance(taxonomy, TaxonomyFigures):
        curves = {row.level: row.curve for row in taxonomy.levels}
    half, whole = selective.risk_of_surest[0], selective.curve[-1].risk
    return risk_coverage_plot(
        curves,
        title=f"{_TITLES[report.split]}: {whole:.1%} wrong, {half.value:.1%} of the surest half",
        subtitle=f"{_count(report.num_images)}; wrong of the surest half {percent(half)}, "
        f"area under the curve {number(selective.area, digits=4)}, 95% intervals",
    )


def _draw_faithfulness(found: Faithfulness, *, split: str) -> Figure:
    headings = {
        DELETION: "Patches taken away: the lower, the better",
        INSERTION: "Patches brought in: the higher, the better",
    }
    panels = [
        Panel(
            heading,
            [
                f"{row.order} {MINUS} {row.versus}: {signed(row.difference)}, {row.shown}"
                for row in found.differences
                if row.kind == kind
            ],
            {
                curve.order: Band(curve.scores, curve.low, curve.high, curve.area.value)
                for curve in found.curves
                if curve.kind == kind
            },
        )
        for kind, heading in headings.items()
    ]
    return faithfulness_plot(
        panels,
        found.shares,
        title=f"{_TITLES[split]}: {found.headline()}",
        subtitle=f"{_count(found.num_images)}; areas under the curves and their differences with 95% intervals",
    )


def _count(num_images: int) -> str:
    return "1 image" if num_images == 1 else f"{num_images:,} images"
