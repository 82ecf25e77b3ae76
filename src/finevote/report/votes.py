"""Where the votes fall, and how their budget moved between the layers."""

from __future__ import annotations

from collections.abc import Sequence

from finevote.report.blocks import Block, Cell, Chart, Column, Note, Row, Section, Table
from finevote.report.charts import Axis, Curve, as_whole, draw, legend_of
from finevote.report.material import Material
from finevote.report.text import Values, share
from finevote.report.training_curves import NUM_SERIES, Epochs, epoch_axis, highest, thin

_PLACES = {"pointing": "telling parts", "on_subject": "subject"}
_GAMES = {"pointing_game": "telling parts", "subject_game": "subject"}


def votes(material: Material) -> Section | None:
    """Return where the votes fall and how the budget moved; None for a model without votes."""
    report, blocks = material.report, list[Block]()
    budgets = _budgets(material.epochs)
    if not budgets and not material.has_votes:
        return None
    if budgets:
        blocks.append(Row([_budget_chart(budgets), _budget_table(budgets)]))
    rows = [_votes_row(report[key], where) for key, where in _PLACES.items() if report.get(key)]
    rows += [_game_row(report[key], where) for key, where in _GAMES.items() if report.get(key)]
    if rows:
        heads = (Column("", is_number=False), *map(Column, ("found", "of the area", "times as many", "images")))
        blocks.append(Table("Final votes where it matters", heads, rows))
    elif material.has_votes:
        text = (
            "Whether votes fall on what tells classes apart is measured where a data set knows boxes of parts or of "
            "subjects, as cub200, dogs and synthetic do; this one knows none."
        )
        blocks.append(Note(text))
    lead = "Each head of each layer votes for patches; the layers share a budget of tokens that they forward."
    return Section("votes", "Where the votes fall", "Votes", lead, blocks)


def _votes_row(figure: Values, where: str) -> list[Cell]:
    """Return the share of all votes that lie in a place."""
    return [
        Cell(f"votes on the {where}"),
        Cell(share(figure["vote_share"]), figure["vote_share"]),
        Cell(share(figure["area_share"]), figure["area_share"]),
        Cell(f"{figure['lift']:.1f}", figure["lift"]),
        Cell(f"{figure['num_images']:,}", figure["num_images"]),
    ]


def _game_row(figure: Values, where: str) -> list[Cell]:
    """Return how often the most-voted patch lies in a place."""
    low, high = figure["low"] * 100, figure["high"] * 100
    lifts = f"{figure['lift_low']:.1f} to {figure['lift_high']:.1f}"
    return [
        Cell(f"most-voted patch on the {where}"),
        Cell(share(figure["hit_share"]), figure["hit_share"], note=f"{low:.1f} to {high:.1f}%"),
        Cell(share(figure["area_share"]), figure["area_share"]),
        Cell(f"{figure['lift']:.1f}", figure["lift"], note=lifts),
        Cell(f"{figure['num_images']:,}", figure["num_images"]),
    ]


def _budgets(epochs: Epochs) -> list[tuple[float, Sequence[int]]]:
    found = [(float(row["epoch"]), row["budget"]) for row in epochs if row.get("budget")]
    return [row for row in found if len(row[1]) == len(found[0][1])]


def _budget_chart(budgets: Sequence[tuple[float, Sequence[int]]]) -> Chart:
    last = budgets[-1][1]
    curves = [
        Curve(f"layer {layer + 1}", thin([(epoch, float(row[layer])) for epoch, row in budgets]), f"s{layer % 6 + 1}")
        for layer in range(len(last))
    ]
    most = max(range(len(last)), key=lambda layer: last[layer])
    title = f"Layer {most + 1} forwards most: {last[most]} of {sum(last)} tokens"
    label = f"Tokens that each layer forwards, over the epochs. {title}."
    y = Axis("tokens forwarded", 0.0, highest(curves) * 1.1 or 1.0, as_whole)
    legend = legend_of(curves) if len(curves) <= NUM_SERIES else []
    return Chart(title, draw(curves, epoch_axis(budgets[-1][0]), y, label=label), label, legend)


def _budget_table(budgets: Sequence[tuple[float, Sequence[int]]]) -> Table:
    first, last = budgets[0][1], budgets[-1][1]
    heads = (Column("layer"), Column("first epoch"), Column("last epoch"), Column("share"))
    rows = [
        [Cell(str(number)), Cell(str(before)), Cell(str(after)), Cell(share(after / (sum(last) or 1)))]
        for number, (before, after) in enumerate(zip(first, last, strict=True), start=1)
    ]
    return Table("Budget per layer, in tokens", heads, rows)
