"""Kinds of figures that some runs have: the unknown, a taxonomy, several photographs or views, retrieval."""

from __future__ import annotations

import shlex

from finevote.report.blocks import Cell, Column, Commands, Note, Row, Section, Table
from finevote.report.charts import Curve
from finevote.report.material import Material
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


def retrieval(material: Material) -> Section | None:
    """Return how well images find training images of their class; how to measure it where that was not done."""
    found = material.report.get("retrieval")
    title, lead = (
        "Finding photographs of the same class",
        "Whether the nearest training photographs are of an image's class.",
    )
    if not found:
        line = shlex.join(["finevote", "gallery", str(material.folder.path)])
        about = "Not measured: the bundle had no gallery of training photographs. To make one, and measure again:"
        more = [] if material.split == "val" else ["--split", material.split]
        again = shlex.join(["finevote", "evaluate", str(material.folder.path), *more])
        return Section("retrieval", title, "Retrieval", lead, [Commands(about, [line, again])])
    names = {
        "recall_at_1": "the nearest is of its class",
        "recall_at_5": "one of the nearest five is",
        "mean_average_precision": "mean average precision",
    }
    rows = [[Cell(about), share_cell(found[name])] for name, about in names.items() if found.get(name)]
    table = Table("Against the training photographs", (Column("", is_number=False), Column("share")), rows)
    looked = (
        f"{count(found['num_queries'], 'image')} of the split against {found['num_gallery']:,} training photographs in "
        f"the bundle, by {words(str(found['metric']))} distance."
    )
    if found.get("num_left_out"):
        looked += f" {found['num_left_out']:,} are of classes that have no other photograph there, and do not count."
    return Section("retrieval", title, "Retrieval", lead, [table, Note(looked)])
