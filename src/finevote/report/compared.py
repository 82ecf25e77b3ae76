"""`finevote report RUN RUN...`: several runs on the same images as one HTML file."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from finevote.evaluation.calibrator import told_probabilities
from finevote.evaluation.figure import Figure
from finevote.report.blocks import (
    RIGHT,
    Block,
    Cell,
    Chart,
    Column,
    Commands,
    Facts,
    Gallery,
    Note,
    Page,
    Photo,
    Row,
    Section,
    Table,
)
from finevote.report.charts import Axis, Curve, as_percent, draw, legend_of
from finevote.report.controls import duel_cells, standing_cells, standing_heads
from finevote.report.headline import SPLITS
from finevote.report.material import read_epochs
from finevote.report.photographs import Shelf, describe_votes, discs_of, votes_of
from finevote.report.render import Written, describe_making, write_page
from finevote.report.text import count, p_value, scale_of, sentence, share
from finevote.report.training_curves import epoch_axis, thin
from finevote.run_folder import RunFolder
from finevote.study.compare import LineUp, compare, compare_contestants, line_up
from finevote.study.comparison import Comparison, Duel, verdict
from finevote.study.contestants import Album, Contestant, Measured

_NUM_DRAWN = 8  # images of either kind
_SEED = 0


def write_comparison(
    runs: Sequence[Path | str], *, split: str = "val", data: str | Path | None = None, out: Path | None = None
) -> Written:
    """Write what `finevote compare` finds of several runs as one HTML file of at most 8 MB.

    Args:
        runs: at least two run folders; the first is compared with the others.
        split: "val" or "test"; what has not been measured is measured, and on test entered in the ledger.
        data: where the data set lies now, if it has moved.
        out: the file; None: `report.html` in the folder `runs/compare-<n>` that `compare` writes.

    Raises:
        As `compare` does.
    """
    lined = line_up(runs, split=split, data=data)
    if out is None:
        comparison, folder = compare(runs, split=split, data=data)
        out = folder / "report.html"
    else:
        comparison = compare_contestants(lined.contestants, split=split, album=lined.album, summary=lined.summary)
    return write_page(make_page(lined, comparison, runs=[str(run) for run in runs]), out)


def make_page(lined: LineUp, comparison: Comparison, *, runs: Sequence[str]) -> Page:
    """Return the page of a comparison."""
    names = short_names([standing.name for standing in comparison.standings])
    sections = [
        _verdict(comparison, names),
        *(_duel(duel, lined, number, names) for number, duel in enumerate(comparison.duels, start=1)),
        _training(lined, names),
        _settings(lined, names),
        _protocol(comparison, runs),
    ]
    has_votes = any(run.predictions.final_votes is not None for one in lined.contestants for run in one.runs)
    return Page(
        title=" and ".join(names.values()) if len(names) < 4 else f"{len(names)} variants",
        kicker="Runs compared",
        subtitle=f"on the same {comparison.num_images:,} {SPLITS[comparison.split]} images",
        headline=None,
        sections=[section for section in sections if section is not None],
        footer=describe_making(),
        has_votes=has_votes and isinstance(lined.album, Album),
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Return each name without the folder that all of them are in, if they are paths; as it is otherwise."""
    if len(names) > 1 and all(os.sep in name for name in names):
        above = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120  # names, not files
        return {name: os.path.relpath(name, above) if above else name for name in names}
    return {name: Path(name).name if os.sep in name else name for name in names}


def _verdict(comparison: Comparison, names: Mapping[str, str]) -> Section:
    standings = [row._asdict() | {"name": names[row.name]} for row in comparison.standings]
    scale = scale_of([Figure(row.accuracy, row.low, row.high) for row in comparison.standings])
    first = names[comparison.standings[0].name]
    heads = (*standing_heads("", scale), Column("", is_number=False))
    duels = {names[duel.other]: duel for duel in comparison.duels}
    rows = []
    for row in standings:
        duel = duels.get(row["name"])
        told = Cell(verdict(duel)) if duel else Cell("")
        rows.append([*standing_cells(row, scale), *duel_cells(duel and duel._asdict()), told])
    table = Table(f"Points are differences to {first}", heads, rows)
    blocks: list[Block] = [table, *(Note(sentence(note)) for note in comparison.notes)]
    lead = " ".join(_sentence(duel, names) for duel in comparison.duels)
    return Section("verdict", "Which is better?", "Verdict", lead, blocks)


def _sentence(duel: Duel, names: Mapping[str, str]) -> str:
    found = f"{duel.difference * 100:+.1f} points, 95% interval {duel.low * 100:+.1f} to {duel.high * 100:+.1f}"
    first, other, told = names[duel.first], names[duel.other], verdict(duel)
    if told == "no difference shown":
        excludes_zero = duel.low > 0 or duel.high < 0
        exact = f"; the exact test decides, p {p_value(duel.p_adjusted)} after Holm" if excludes_zero else ""
        return f"No difference is shown between {first} and {other} ({found}{exact})."
    return f"{other} is {told} than {first} ({found}, p {p_value(duel.p_adjusted)} after Holm)."


def _duel(duel: Duel, lined: LineUp, number: int, names: Mapping[str, str]) -> Section | None:
    """Return what flips between the first contestant and another; None where one has several seeds."""
    first, other = lined.contestants[0], lined.contestants[number]
    if duel.only_first is None or duel.only_other is None:
        return None
    one, two = names[duel.first], names[duel.other]
    lead = f"{one} alone names {count(duel.only_first, 'image')} right, {two} alone {duel.only_other:,} ({duel.test})."
    changed = [row for row in duel.classes if row.gained or row.lost]
    blocks: list[Block] = []
    if isinstance(lined.album, Album):
        blocks += _flips(first, other, lined.album, names)
    if changed:
        heads = (Column("class", is_number=False), *map(Column, ("images", "gained", "lost", "p (Holm)")))
        rows = [
            [
                Cell(row.class_name),
                *(Cell(f"{value:,}", value) for value in (row.num_images, row.gained, row.lost)),
                Cell(p_value(row.p_value), row.p_value),
            ]
            for row in sorted(changed, key=lambda row: (-abs(row.gained - row.lost), row.class_name))
        ]
        blocks.append(Table(f"Classes that {two} changes", heads, rows, search="Find a class", is_sortable=True))
    return Section(f"flips-{number}", f"What changes from {one} to {two}", two, lead, blocks)


def _flips(first: Contestant, other: Contestant, album: Album, names: Mapping[str, str]) -> list[Block]:
    one, two = first.runs[0], other.runs[0]
    shelf = Shelf(album.source, album.records, album.view)
    show = partial(_flip, one=one, two=two, shelf=shelf, names=(names[first.name], names[other.name]))
    blocks: list[Block] = []
    for winner, rows in ((other, two.right & ~one.right), (first, one.right & ~two.right)):
        chosen = np.random.default_rng(_SEED).permutation(np.flatnonzero(rows))[:_NUM_DRAWN]
        photos = [show(int(row), winner=two if winner is other else one) for row in chosen]
        if found := [photo for photo in photos if photo is not None]:
            about = "Drawn at random" + ("; discs are its final votes." if any(photo.discs for photo in found) else ".")
            blocks.append(Gallery(f"Only {names[winner.name]} names these right", about, found))
    return blocks


def _flip(
    row: int, *, one: Measured, two: Measured, winner: Measured, shelf: Shelf, names: tuple[str, str]
) -> Photo | None:
    image = shelf.read(one.predictions.image_ids[row])
    if image is None:
        return None
    true_name = one.class_names[int(one.predictions.labels[row])]
    answers = []
    for run, name in zip((one, two), names, strict=True):
        probabilities = told_probabilities(run.predictions.logits[[row]], run.calibration)[0]
        said = int(probabilities.argmax())
        answers.append(f"{name}: {run.class_names[said]}, {share(probabilities[said])}")
    votes = votes_of(winner.predictions, row)
    alt = f"{true_name}; {'; '.join(answers)}{describe_votes(votes)}"
    return Photo(image, alt, true_name, RIGHT, lines=answers, discs=discs_of(votes, image.size))


def _training(lined: LineUp, names: Mapping[str, str]) -> Section | None:
    curves = []
    for number, contestant in enumerate(lined.contestants):
        for run in contestant.runs:
            rows = read_epochs(RunFolder(run.path))
            points = [(float(row["epoch"]), float(row["val_top1"])) for row in rows if row.get("val_top1") is not None]
            if points:
                curves.append(Curve(names[contestant.name], thin(points), f"s{number % 6 + 1}"))
    if not curves:
        return None
    highest = max(value for curve in curves for _, value in curve.points)
    last = max(curve.points[-1][0] for curve in curves)
    y = Axis("validation top-1", 0.0, min(highest * 1.05 or 1.0, 1.0), as_percent)
    title = f"Validation top-1 comes up to {share(highest)}"
    label = f"Validation accuracy over the epochs, by run. {title}."
    legend = list(dict(legend_of(curves)).items())
    chart = Chart(title, draw(curves, epoch_axis(last), y, label=label), label, legend)
    return Section("training", "How they were trained", "Training", "", [Row([chart])])


def _settings(lined: LineUp, names: Mapping[str, str]) -> Section:
    settings = {names[one.name]: one.runs[0].settings for one in lined.contestants}
    every = sorted({key for values in settings.values() for key in values})
    differing = [key for key in every if len({json.dumps(values.get(key)) for values in settings.values()}) > 1]
    if not differing:
        return Section("settings", "What differs", "Settings", "All settings are the same.", [])
    rows = [[Cell(key), *(Cell(_write(values.get(key))) for values in settings.values())] for key in differing]
    heads = [Column("setting", is_number=False), *(Column(name, is_number=False) for name in settings)]
    lead = "Settings that are not the same for all, by the first run of each."
    return Section("settings", "What differs", "Settings", lead, [Table("Settings", heads, rows)])


def _write(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _protocol(comparison: Comparison, runs: Sequence[str]) -> Section:
    tests = sorted({duel.test for duel in comparison.duels})
    rows = [
        ("Measured on", f"{SPLITS[comparison.split]}: {count(comparison.num_images, 'image')}"),
        ("Subjects", "" if comparison.num_groups is None else f"{comparison.num_groups:,}, drawn whole"),
        ("Tests", f"{'; '.join(tests)}; p-values adjusted by Holm"),
        ("Intervals", "; ".join(sorted({row.method for row in comparison.standings}))),
        *((run, setting) for run, setting in comparison.settings.items()),
    ]
    openings = [f"{number:,} with {run}" for run, number in comparison.num_test_openings.items()]
    rows.append(("Test split opened", ", ".join(openings)))
    more = [] if comparison.split == "val" else ["--split", comparison.split]
    commands = [shlex.join(["finevote", command, *runs, *more]) for command in ("compare", "report")]
    blocks: list[Block] = [Facts([row for row in rows if row[1]]), Commands("To make it again:", commands)]
    return Section("protocol", "Protocol", "Protocol", "", blocks)
