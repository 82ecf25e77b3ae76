"""Kinds of figures that some runs have: the unknown, a taxonomy, several photographs or views, retrieval."""

from __future__ import annotations

from finevote.report.blocks import Cell, Column, Note, Row, Section, Table
from finevote.report.charts import Curve
from finevote.report.text import Values, count, number_cell, points_cell, share, share_cell, words
from finevote.report.trust import curve_points, risk_chart


def unknown(report: Values) -> Section | None:
    """Return how images of none of the classes are told."""
    found = report.get("unknown")
    if not found:
        return None
    columns = [Column("score", is_number=False), Column("false alarms")]
    has_unknown = bool(found.get("num_unknown"))
    if has_unknown:
        columns += [Column("area under ROC"), Column("pass as known"), Column("found")]
    rows = []
    for row in found["scores"]:
        cells = [Cell(words(row["method"])), share_cell(row["false_alarms"])]
        if has_unknown:
            cells += [number_cell(row["auroc"], digits=3), share_cell(row["passed"]), share_cell(row["found"])]
        rows.append(cells)
    table = Table(f"Scores, at {found['stated']:.0%} false alarms asked for", columns, rows)
    told = (
        f"{count(found['num_unknown'], 'image')} of classes held out of training stand for the unknown."
        if has_unknown
        else "No classes were held out of training, so only false alarms can be told; "
        "finevote fit DATA --hold-out-classes 10 lets the others be measured."
    )
    lead = "A classifier names everything; these scores say when an image is of none of its classes."
    return Section("unknown", "Images of none of the classes", "The unknown", lead, [table, Note(told)])


def taxonomy(report: Values) -> Section | None:
    """Return how right and how sure the model is, level by level."""
    found = report.get("taxonomy")
    if not found:
        return None
    levels = found["levels"]
    heads = (Column("level", is_number=False), *map(Column, ("right", "answered", "wrong of these")))
    rows = [
        [
            Cell(f"{row['level']}, one of {row['num_taxa']:,}"),
            *(share_cell(row[name]) for name in ("accuracy", "answered", "error")),
        ]
        for row in levels
    ]
    rows.append([Cell("any level"), Cell(""), share_cell(found["answered"]), share_cell(found["error"])])
    table = Table(f"Answers that are at least {found['sure']:.0%} sure, at the deepest level that is", heads, rows)
    curves = [
        Curve(row["level"], curve_points(row["curve"]), f"s{number % 6 + 1}") for number, row in enumerate(levels)
    ]
    title = ", ".join(f"{row['level']} {share(row['accuracy']['value'])}" for row in levels)
    chart = risk_chart(curves, f"Named right: {title}")
    return Section("taxonomy", "Level by level", "Taxonomy", "Where the species is open, the genus may be sure.", [
        Row([chart, table])
    ])  # fmt: skip


def fusion(report: Values) -> Section | None:
    """Return what several photographs of one subject gain."""
    found = report.get("fusion")
    if not found:
        return None
    rows = [[Cell("one photograph alone"), share_cell(found["single"]), Cell("")]]
    rows += [
        [Cell(f"all together ({row['method']})"), share_cell(row["accuracy"]), points_cell(row["gain"])]
        for row in found["pools"]
    ]
    table = Table("Of a subject", (Column("", is_number=False), Column("right"), Column("gain in points")), rows)
    average = f"{found['photographs_per_subject']:.1f} photographs on average"
    left_out = [
        f"{found[key]:,} {what}"
        for key, what in (("num_alone", "with one photograph"), ("num_mixed", "with different labels"))
        if found.get(key)
    ]
    note = f"{count(found['num_subjects'], 'subject')} with {average}"
    note += f"; left out are {' and '.join(left_out)}." if left_out else "."
    lead = "What is gained by looking at all photographs of a subject instead of one."
    return Section("together", "Several photographs of one subject", "Together", lead, [table, Note(note)])


def augmentation(report: Values) -> Section | None:
    """Return what averaged views of each image gain, and cost."""
    found = report.get("augmentation")
    if not found:
        return None
    heads = (Column("views", is_number=False), *map(Column, ("passes", "right", "gain in points", "p (Holm)")))
    rows = [[Cell("plain"), Cell("1", 1), share_cell(found["plain"]), Cell(""), Cell("")]]
    rows += [
        [
            Cell(row["views"]),
            Cell(f"{row['num_passes']}", row["num_passes"]),
            share_cell(row["accuracy"]),
            points_cell(row["gain"]),
            Cell(f"{row['p_value']:.3g}", row["p_value"]),
        ]
        for row in found["views"]
    ]
    lead = "What it gains, and costs in forward passes, to average several views of each image."
    return Section("views", "Several views of one image", "Views", lead, [Table("Averaged views", heads, rows)])
