"""How each class fares: a table to sort and to search."""

from __future__ import annotations

from finevote.report.blocks import Block, Cell, Column, Note, Section, Table
from finevote.report.material import Material, taken_for
from finevote.report.text import Values, figure_of, placed_cells, share

NUM_SHOWN = 5_000


def classes(material: Material) -> Section:
    """Return accuracy and interval of every class, with what it is most often taken for."""
    heads = (
        Column("class", is_number=False),
        Column("images"),
        Column("right"),
        Column("accuracy"),
        Column("95% interval, on 0 to 100%"),
        Column("most often taken for", is_number=False),
    )
    mistaken = dict(zip(material.class_names, taken_for(material), strict=True))
    report = material.report
    rows = [_cells(row, mistaken.get(row["class_name"])) for row in report["per_class"]]
    shown = rows
    if len(rows) > NUM_SHOWN:
        shown = sorted(rows, key=lambda cells: 2.0 if cells[3].sort is None else cells[3].sort)[:NUM_SHOWN]
    blocks: list[Block] = [Table("Every class", heads, shown, search="Find a class", is_sortable=True)]
    if len(shown) < len(rows):
        text = f"The {len(shown):,} of {len(rows):,} classes with the lowest accuracy; classes.csv in the run has all."
        blocks.append(Note(text))
    return Section("classes", "Class by class", "Classes", _spread(report), blocks)


def _cells(row: Values, wrong: tuple[str, int] | None) -> list[Cell]:
    name, number, right = row["class_name"], row["num_images"], row["num_correct"]
    known = [Cell(name), Cell(f"{number:,}", number), Cell(f"{right:,}", right)]
    taken = Cell(f"{wrong[0]} ({wrong[1]:,})") if wrong else Cell("")
    if row["accuracy"] is None:
        return [*known, Cell(""), Cell(""), taken]
    return [*known, *placed_cells(figure_of({**row, "value": row["accuracy"]}), (0.0, 1.0)), taken]


def _spread(report: Values) -> str:
    accuracies = sorted(row["accuracy"] for row in report["per_class"] if row["accuracy"] is not None)
    full, none = (sum(value == end for value in accuracies) for end in (1.0, 0.0))
    middle = share(accuracies[len(accuracies) // 2])
    ends = f"of {full:,} every image is named right, of {none:,} none"
    return f"Half of the {len(accuracies):,} classes reach {middle}; {ends}."
