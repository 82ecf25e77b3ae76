"""How far the answers can be believed: calibration, sets, and selective answers."""

from __future__ import annotations

from collections.abc import Sequence

from finevote.report.blocks import Block, Cell, Chart, Column, Note, Row, Section, Table
from finevote.report.charts import Axis, Curve, as_percent, draw, legend_of
from finevote.report.text import Values, count, interval, number_cell, share, share_cell

_ERRORS = {
    "calibration_error": "Calibration error",
    "calibration_error_mass": "the same, bins of equal mass",
    "brier": "Brier score",
    "negative_log_likelihood": "Negative log-likelihood",
}
_VERSIONS = {"before": "as trained", "after": "calibrated"}


def calibration(report: Values) -> Section | None:
    """Return the reliability diagram, calibration errors and sets of classes."""
    trust = report.get("trust")
    if not trust:
        return None
    tables = [_errors(trust), *([_sets(trust)] if trust.get("sets") else [])]
    blocks: list[Block] = [Row([_reliability(trust), *tables[:1]]), *tables[1:]]
    blocks += [Note(text) for text in _calibration_notes(trust)]
    lead = "Whether a probability of 80% is right eight times in ten, and how many classes it takes to be safe."
    return Section("calibration", "Can its probabilities be believed?", "Calibration", lead, blocks)


def _reliability(trust: Values) -> Chart:
    curves = [Curve("no error", [(0.0, 0.0), (1.0, 1.0)], "muted")]
    for key, css in (("before", "s2"), ("after", "s1")):
        if trust.get(key):
            curves.append(_bins(trust[key]["bins"], _VERSIONS[key], css))
    error = (trust.get("after") or trust["before"])["calibration_error"]
    axis = Axis("how sure", 0.0, 1.0, as_percent)
    title = f"How sure it is and how often it is right lie {error['value'] * 100:.1f} points apart"
    label = f"Accuracy over confidence. {title}; on the diagonal there would be no error."
    svg = draw(curves, axis, axis._replace(label="how often right"), label=label)
    note = f"95% interval {interval(error)}. The area of a dot goes with the number of images."
    return Chart(title, svg, label, legend_of(curves), note, _bins_table(trust))


def _bins(bins: Sequence[Values], name: str, css: str) -> Curve:
    total = sum(row["num_images"] for row in bins) or 1
    radii = [2 + 11 * (row["num_images"] / total) ** 0.5 for row in bins]
    return Curve(name, [(row["confidence"], row["accuracy"]) for row in bins], css, radii)


def _bins_table(trust: Values) -> Table:
    key = "after" if trust.get("after") else "before"
    rows = [
        [Cell(share(row["confidence"])), Cell(share(row["accuracy"])), Cell(f"{row['num_images']:,}")]
        for row in trust[key]["bins"]
    ]
    return Table(f"Bins, {_VERSIONS[key]}", (Column("how sure"), Column("how often right"), Column("images")), rows)


def _errors(trust: Values) -> Table:
    there = [key for key in _VERSIONS if trust.get(key)]
    columns = [Column("", is_number=False), *(Column(_VERSIONS[key]) for key in there)]
    rows = [[Cell(name), *(_error_cell(trust[key][error], error) for key in there)] for error, name in _ERRORS.items()]
    return Table("Errors of probabilities, lower is better", columns, rows)


def _error_cell(values: Values, name: str) -> Cell:
    return share_cell(values) if name.startswith("calibration_error") else number_cell(values, digits=3)


def _sets(trust: Values) -> Table:
    columns = (Column("sets", is_number=False), Column("cover"), Column("classes in a set"))
    rows = [
        [
            Cell(f"{row['method']}{', a threshold for each class' if row['each_class'] else ''}"),
            share_cell(row["coverage"]),
            number_cell(row["mean_size"], digits=1),
        ]
        for row in trust["sets"]
    ]
    return Table(f"Sets that shall hold the true class of {trust['coverage']:.0%} of images", columns, rows)


def _calibration_notes(trust: Values) -> list[str]:
    if trust.get("temperature") is None:
        return ["Not calibrated: the model was fitted without validation images, or by an earlier finevote."]
    how = "; here each fifth of the split is judged by the other four" if trust.get("is_across") else ""
    images = count(trust["num_images"], "validation image")
    notes = [
        f"Calibrated at temperature {trust['temperature']:.3g}; promises rest on {images}, one of each subject{how}."
    ]
    low, high = trust.get("guarantee_low"), trust.get("guarantee_high")
    if low is not None and high is not None and low < trust["coverage"] - 0.05:
        notes.append(
            f"The guarantee of {trust['coverage']:.0%} is weak: it holds on average over calibrations, and one on "
            f"{trust['num_images']:,} images covers between {share(low)} and {share(high)}."
        )
    if trust.get("num_open_classes"):
        classes = count(trust["num_open_classes"], "class", "classes")
        notes.append(
            f"Sets with a threshold for each class always hold {classes}, of which there are too few validation images."
        )
    return notes


def selective(report: Values) -> Section | None:
    """Return the risk-coverage curve and the promises of a highest error."""
    found = report.get("selective")
    if not found:
        return None
    curves = [_best_order(found["curve"]), Curve("by its confidence", curve_points(found["curve"]), "s1")]
    blocks: list[Block] = [Row([risk_chart(curves, _risk_title(found)), _risk_table(found)])]
    promised = [row for row in found["promises"] if row["answered"]]
    if promised:
        blocks.append(_promises(promised))
    if open_ones := [f"{row['max_error']:.0%}" for row in found["promises"] if not row["answered"]]:
        images = count(found["num_calibrating"], "validation image")
        blocks.append(
            Note(
                f"{images}, one of each subject, cannot promise an error of {' or '.join(open_ones)} at any confidence."
            )
        )
    lead = "What is gained by leaving out the images of which it is least sure."
    return Section("selective", "Answering only where it is sure", "Selective answers", lead, blocks)


def curve_points(curve: Sequence[Values]) -> list[tuple[float, float]]:
    """Return the points of a risk-coverage curve."""
    return [(row["coverage"], row["risk"]) for row in curve]


def risk_chart(curves: Sequence[Curve], title: str) -> Chart:
    """Return curves of risk over coverage as a chart."""
    highest = max(risk for curve in curves for _, risk in curve.points)
    x = Axis("answered, the surest first", 0.0, 1.0, as_percent)
    y = Axis("wrong among the answered", 0.0, max(highest * 1.08, 0.01), as_percent)
    label = f"Share of wrong answers over the share of images answered. {title}."
    return Chart(title, draw(curves, x, y, label=label), label, legend_of(curves))


def _risk_title(found: Values) -> str:
    half, whole = found["risk_of_surest"][0], found["curve"][-1]["risk"]
    return f"{share(whole)} wrong of all, {share(half['value'])} of the surest {half['coverage']:.0%}"


def _best_order(curve: Sequence[Values]) -> Curve:
    """Return the curve of the same answers in the best order: all right ones before the wrong ones."""
    num_wrong = curve[-1]["risk"]
    answered = [number / 100 for number in range(1, 101)]
    return Curve("best order", [(some, max(some - (1 - num_wrong), 0.0) / some) for some in answered], "muted")


def _risk_table(found: Values) -> Table:
    rows = [[Cell(f"wrong of the surest {row['coverage']:.0%}"), share_cell(row)] for row in found["risk_of_surest"]]
    rows.append([Cell("area under the curve"), number_cell(found["area"], digits=4)])
    rows.append([Cell("above that of the best order"), number_cell(found["excess"], digits=4)])
    return Table("Risk, lower is better", (Column("", is_number=False), Column("figure, 95% interval")), rows)


def _promises(promised: Sequence[Values]) -> Table:
    rows = [
        [Cell(f"at most {row['max_error']:.0%} wrong"), share_cell(row["answered"]), share_cell(row["error"])]
        for row in promised
    ]
    heads = (Column("promised", is_number=False), Column("answered"), Column("wrong of these"))
    return Table("What became of promises", heads, rows)
