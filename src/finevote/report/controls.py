"""What the figure is to be held against: the frozen backbone's probes, and the method with mechanisms left out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from finevote.evaluation.figure import Figure
from finevote.evaluation.probes import CHOSEN_ON_VALIDATION, ProbeName
from finevote.report.blocks import Block, Cell, Column, Commands, Note, Section, Table
from finevote.report.material import Material, place_in
from finevote.report.text import Values, describe_scale, p_value, placed_cells, scale_of, sentence


def controls(material: Material) -> Section:
    """Return probe and ablation rows; where there are none, how to get them."""
    blocks = [*_probe_blocks(material), *_study_blocks(material), *_how_to(material)]
    lead = "A figure alone says little: what does the backbone do as it was, and what is each mechanism worth?"
    return Section("controls", "What it is held against", "Controls", lead, blocks)


def _probe_blocks(material: Material) -> list[Block]:
    probes = material.report.get("probes")
    if not probes:
        return []
    top_1 = material.report["top_1"]
    model = Figure(top_1["value"], top_1["low"], top_1["high"])
    figures = [Figure(row["top_1"], row["low"], row["high"]) for row in probes["rows"]]
    scale = scale_of([*figures, model])
    heads = (
        Column(f"frozen {probes['backbone']}", is_number=False),
        Column("top-1"),
        Column(f"95% interval, on {describe_scale(scale)}"),
        Column("alone right"),
        Column("p (Holm)"),
    )
    rows = [
        [
            Cell(ProbeName(row["classifier"], "", row["features"], row["chosen"]).describe()),
            *placed_cells(found, scale),
            Cell(f"{row['only_probe']:,} : {row['only_model']:,}", row["only_probe"]),
            Cell(p_value(row["p_value_holm"]), row["p_value_holm"]),
        ]
        for row, found in zip(probes["rows"], figures, strict=True)
    ]
    rows.append([Cell("this model"), *placed_cells(model, scale), Cell(""), Cell("")])
    table = Table("Probes of the frozen backbone", heads, rows, marked=frozenset({len(rows) - 1}))
    note = "Alone right: images that the probe, and the model, names right and the other does not."
    if probes.get("was_chosen_here"):
        note += f" {sentence(CHOSEN_ON_VALIDATION)}"
    return [table, Note(note)]


def _study_blocks(material: Material) -> list[Block]:
    study = material.study
    return [] if study is None else study_blocks(study, marked=place_in(study, material.folder.path))


def _how_to(material: Material) -> list[Block]:
    """Return how to get what is missing."""
    data = str(material.data.get("data", "DATA"))
    ways = {
        "the frozen backbone was not probed": ("fit", data, "--set", "training.probe=on"),
        "no ablation is known": ("ablate", material.config.name, data, "--seeds", "3"),
    }
    there = (bool(material.report.get("probes")), material.study is not None)
    missing = [name for name, is_there in zip(ways, there, strict=True) if not is_there]
    if not missing:
        return []
    return [
        Commands(
            f"Of this run {' and '.join(missing)}. To have it:",
            [shlex.join(["finevote", *ways[name]]) for name in missing],
        )
    ]


def study_blocks(study: Values, *, marked: int | None = None) -> list[Block]:
    """Return the variants of an ablation or sweep with their intervals and differences to the first."""
    standings: Sequence[Values] = study["standings"]
    duels = {duel["other"]: duel for duel in study["duels"]}
    scale = scale_of([Figure(row["accuracy"], row["low"], row["high"]) for row in standings])
    heads = standing_heads("variant", scale)
    rows = [[*standing_cells(row, scale), *duel_cells(duels.get(row["name"]))] for row in standings]
    what = "Ablation" if study.get("stem") == "ablation" else "Sweep"
    caption = f"{what} on {study.get('num_images', 0):,} {study.get('split', '')} images"
    table = Table(caption, heads, rows, marked=frozenset() if marked is None else frozenset({marked}))
    note = f"Points are differences to {standings[0]['name']}; sd is between seeds."
    note += "" if marked is None else " This run is one of the seeds of the marked variant."
    return [table, Note(note)]


def standing_heads(first: str, scale: tuple[float, float]) -> tuple[Column, ...]:
    """Return the heads of what `standing_cells` and `duel_cells` give."""
    return (
        Column(first, is_number=False),
        Column("seeds"),
        Column("top-1"),
        Column(f"95% interval, on {describe_scale(scale)}"),
        Column("points"),
        Column("95% interval"),
        Column("p (Holm)"),
    )


def standing_cells(row: Values, scale: tuple[float, float]) -> list[Cell]:
    """Return name, seeds, accuracy and interval of a variant."""
    sd = "" if row.get("sd") is None else f"sd {row['sd'] * 100:.1f}"
    num_seeds = len(row.get("seeds") or row["runs"])
    placed = placed_cells(Figure(row["accuracy"], row["low"], row["high"]), scale)
    return [Cell(str(row["name"])), Cell(f"{num_seeds}", num_seeds, note=sd), *placed]


def duel_cells(duel: Values | None) -> list[Cell]:
    """Return difference, interval and p-value of a variant beside the first; blanks for None."""
    if duel is None:
        return [Cell(""), Cell(""), Cell("")]
    ends = f"{duel['low'] * 100:+.1f} to {duel['high'] * 100:+.1f}"
    points = Cell(f"{duel['difference'] * 100:+.1f}", duel["difference"])
    return [points, Cell(ends, duel["low"]), Cell(p_value(duel["p_adjusted"]), duel["p_adjusted"])]
