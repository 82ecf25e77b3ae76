"""What goes on inside: whether the voted patches matter, how alike layers are, and who carries the votes."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from finevote.errors import RunError
from finevote.evaluation.faithfulness_figures import DELETION, INSERTION
from finevote.report.blocks import Block, Cell, Chart, Column, Commands, Note, Row, Section, Table
from finevote.report.charts import Axis, Curve, as_percent, draw, heat_map, legend_of
from finevote.report.headline import SPLITS
from finevote.report.material import Material
from finevote.report.text import Values, count, figure_of, number_cell, sentence, share, share_cell

_logger = logging.getLogger(__name__)
_ORDERS = {"votes": "s1", "rollout": "s2", "random": "muted"}
_LEADS = {
    DELETION: "Patches are taken away: the faster the probability falls, the more they mattered",
    INSERTION: "Patches are brought in: the faster the probability rises, the more they matter",
}
_MINUS = "\N{MINUS SIGN}"


def faithfulness(material: Material) -> Section | None:
    """Return deletion and insertion curves; how to measure them where they were not; None for a plain model."""
    found = material.report.get("faithfulness")
    title = "Do the voted patches matter?"
    if not found:
        if not material.has_votes:
            return None
        more = [] if material.split == "val" else ["--split", material.split]
        line = shlex.join(["finevote", "evaluate", str(material.folder.path), *more, "--faithfulness"])
        about = "Not measured for this page. Taking voted patches away, against random ones, tells:"
        return Section("faithfulness", title, "Faithfulness", "", [Commands(about, [line])])
    charts = [_faithful_chart(found, kind) for kind in (DELETION, INSERTION)]
    lead = "The probability of the class that is named, over the share of patches that are changed in order."
    looked = f"{count(found['num_images'], 'image')}, {found['num_steps']} steps"
    looked += f"; random: the mean of {found['num_draws']} draws."
    blocks: list[Block] = [Row(charts), Row([_area_table(found), _difference_table(found)]), Note(looked)]
    return Section("faithfulness", title, "Faithfulness", lead, blocks)


def _faithful_chart(found: Values, kind: str) -> Chart:
    rows = [row for row in found["curves"] if row["kind"] == kind]
    curves = [
        Curve(row["order"], list(zip(found["shares"], row["scores"], strict=True)), _ORDERS.get(row["order"], "s3"))
        for row in rows
    ]
    highest = max(score for row in rows for score in row["scores"])
    x = Axis("patches changed", 0.0, 1.0, as_percent)
    y = Axis("probability", 0.0, min(highest * 1.05 or 1.0, 1.0), as_percent)
    areas = ", ".join(f"{row['order']} {row['area']['value']:.3f}" for row in rows)
    title = f"{kind.capitalize()}, area under the curve: {areas}"
    label = f"{_LEADS[kind]}. {title}."
    return Chart(title, draw(curves, x, y, label=label), label, legend_of(curves), f"{_LEADS[kind]}.")


def _area_table(found: Values) -> Table:
    areas = {(row["order"], row["kind"]): row["area"] for row in found["curves"]}
    orders = dict.fromkeys(row["order"] for row in found["curves"])
    rows = [
        [Cell(order), *(number_cell(areas.get((order, kind)), digits=3) for kind in (DELETION, INSERTION))]
        for order in orders
    ]
    heads = (Column("patches by", is_number=False), Column(DELETION), Column(INSERTION))
    return Table("Area under the curve", heads, rows)


def _difference_table(found: Values) -> Table:
    rows = [
        [
            Cell(f"{row['kind']}: {row['order']} {_MINUS} {row['versus']}"),
            _signed(row["difference"]),
            Cell(row["shown"]),
        ]
        for row in found["differences"]
    ]
    heads = (Column("", is_number=False), Column("difference"), Column("", is_number=False))
    return Table("Differences of areas", heads, rows)


def _signed(values: Values) -> Cell:
    value, low, high = figure_of(values)
    return Cell(f"{value:+.3f}", value, note=f"{low:+.3f} to {high:+.3f}")


def layers(material: Material) -> Section:
    """Return how alike layers are and who carries the votes, as `finevote similarity` found; or how to find it."""
    title = "What the layers do"
    found = _read(material)
    if found is not None:
        try:
            return _layers_found(found, title)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            _logger.warning("left out of the report: similarity.json is not as it was written (%r)", error)
    line = shlex.join(["finevote", "similarity", str(material.folder.path)])
    about = "How alike the layers are, and which layers and heads carry the votes, is measured by:"
    return Section("layers", title, "Layers", "", [Commands(about, [line])])


def _layers_found(found: Values, title: str) -> Section:
    """Return what was found; any error of a part that is missing or of another kind is left to the caller."""
    blocks: list[Block] = [Row([_cka_chart(found), *([_vote_table(found)] if found.get("votes") else [])])]
    if found.get("votes"):
        area = f"{found['votes']['area']:.0%}"
        blocks.append(
            Note(
                "Shares of the tokens that are offered to the head and of the key tokens that win the second vote; the "
                f"best head casts most of its votes for patches of key tokens, which take {area} of the area."
            )
        )
    blocks += [Note(sentence(note)) for note in found.get("notes", ())]
    name = str(found["split"])
    split = SPLITS.get(name, name)
    lead = f"How alike they are, and what each gives to the answer, on {count(found['num_images'], split + ' image')}."
    return Section("layers", title, "Layers", lead, blocks)


def _read(material: Material) -> Mapping[str, Any] | None:
    """Return what is there of these weights at this keep rate; None without, or if it cannot be read."""
    path = material.folder.similarity / "similarity.json"
    try:
        found = material.folder.read_json(path)
        is_ours = found["weights_sha256"] == material.report.get("weights_sha256")
        return found if is_ours and found["keep_rate"] == material.report.get("keep_rate") else None
    except (RunError, KeyError):
        return None


def _cka_chart(found: Values) -> Chart:
    values: Sequence[Sequence[float | None]] = found["cka"]["cls"]["minibatch"]
    names = [str(name) for name in found["layers"]]
    steps = [(row[number + 1], number) for number, row in enumerate(values[:-1]) if row[number + 1] is not None]
    title = "How alike CLS is after each two layers"
    if steps:
        least, number = min(steps, key=lambda step: step[0] or 0.0)
        title = f"CLS changes most from {names[number]} to {names[number + 1]}: CKA {least:.2f}"
    label = f"Likeness (CKA, unbiased) of CLS after each pair of layers, 1 for alike. {title}."
    return Chart(title, heat_map(values, names, label=label), label, note="Linear CKA, unbiased; 1 is alike.")


def _vote_table(found: Values) -> Table:
    votes = found["votes"]
    rows = []
    for number, (offered, key, heads) in enumerate(zip(votes["offered"], votes["key"], votes["heads"], strict=True)):
        best = max(range(len(heads)), key=lambda head: heads[head])
        told = Cell(f"head {best + 1}", note=f"{heads[best]:.0%} of votes")
        rows.append([Cell(f"layer {number + 1}"), Cell(share(offered), offered), share_cell(key), told])
    heads_of = (Column("", is_number=False), Column("offered"), Column("key tokens"), Column("best head"))
    caption = "Who carries the votes"
    return Table(caption, heads_of, rows)
