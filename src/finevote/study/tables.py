"""A comparison of variants as Markdown, as CSV, and as a plot."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from finevote.explanation.figures import save_figure
from finevote.explanation.forest import ForestRow, forest_plot
from finevote.files import atomic_write
from finevote.machine import describe_machine, describe_versions, find_commit, machine_line
from finevote.study.comparison import Comparison, Duel, Standing, describe_p, describe_points, verdict
from finevote.study.contestants import Contestant

_COLUMNS = (
    "variant",
    "seeds",
    "accuracy",
    "sd",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "p_holm",
    "test",
)


def write_tables(
    comparison: Comparison, contestants: Sequence[Contestant], folder: Path, *, title: str, stem: str
) -> list[Path]:
    """Write `{stem}.md`, `{stem}.csv`, `{stem}.json` and `{stem}.png`; return their paths, the plot's last."""
    paths = [folder / f"{stem}.{suffix}" for suffix in ("md", "csv", "json", "png")]
    markdown, table, values, plot = paths
    atomic_write(markdown, as_markdown(comparison, title=title))
    atomic_write(table, as_csv(comparison))
    about = {"machine": describe_machine(), "versions": describe_versions(), "commit": find_commit()}
    atomic_write(values, json.dumps({**about, **comparison.to_dict()}, indent=1, ensure_ascii=False) + "\n")
    save_figure(forest_plot(_forest_rows(comparison, contestants), title=title, subtitle=_subtitle(comparison)), plot)
    return paths


def as_markdown(comparison: Comparison, *, title: str) -> str:
    """Return one table with intervals and paired tests, and below it what must stand beside it."""
    first = comparison.standings[0].name
    lines = [
        f"# {title}",
        "",
        f"{_subtitle(comparison)}. Differences are in points, to {first}; sd is between seeds.",
        "",
        "| variant | seeds | top-1 | sd | 95% interval | difference | 95% interval | p | p (Holm) | |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for standing, duel in _pairs(comparison):
        sd = "" if standing.sd is None else f"{standing.sd * 100:.2f}"
        interval = f"{standing.low * 100:.1f} to {standing.high * 100:.1f}%"
        cells = [standing.name, str(len(standing.seeds)), f"{standing.accuracy:.2%}", sd, interval, *_duel_cells(duel)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {note}" for note in _notes(comparison)), f"- put together on {machine_line()}"]
    return "\n".join(lines) + "\n"


def as_csv(comparison: Comparison) -> str:
    """Return one row a variant; shares are fractions, and cells of the first variant's differences are empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for standing, duel in _pairs(comparison):
        own = (standing.name, len(standing.seeds), standing.accuracy, standing.sd, standing.low, standing.high)
        compared = (
            (duel.difference, duel.low, duel.high, duel.p_value, duel.p_adjusted, duel.test) if duel else ("",) * 6
        )
        writer.writerow((*own, *compared))
    return file.getvalue()


def _pairs(comparison: Comparison) -> list[tuple[Standing, Duel | None]]:
    return list(zip(comparison.standings, (None, *comparison.duels), strict=True))


def _duel_cells(duel: Duel | None) -> list[str]:
    if duel is None:
        return [""] * 5
    interval = f"{describe_points(duel.low)} to {describe_points(duel.high)}"
    p_values = describe_p(duel.p_value), describe_p(duel.p_adjusted)
    return [describe_points(duel.difference), interval, *p_values, verdict(duel)]


def _notes(comparison: Comparison) -> list[str]:
    tests = sorted({duel.test for duel in comparison.duels})
    notes = [f"test: {test}; p-values adjusted by Holm" for test in tests]
    return [*notes, *comparison.all_notes()]


def _subtitle(comparison: Comparison) -> str:
    seeds = sorted({len(standing.seeds) for standing in comparison.standings})
    counts = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    noun = "seed" if seeds == [1] else "seeds"
    return f"{comparison.split} split, {comparison.num_images:,} images, {counts} {noun}"


def _forest_rows(comparison: Comparison, contestants: Sequence[Contestant]) -> list[ForestRow]:
    return [
        ForestRow(
            name=standing.name,
            value=standing.accuracy,
            low=standing.low,
            high=standing.high,
            points=tuple(float(row.mean()) for row in contestant.right),
            difference=None if duel is None else (duel.difference, duel.low, duel.high),
            stands_out=duel is not None and verdict(duel) in {"better", "worse"},
        )
        for (standing, duel), contestant in zip(_pairs(comparison), contestants, strict=True)
    ]
