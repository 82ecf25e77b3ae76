"""Samples as Markdown: contenders side by side where they share a case, a line each elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finevote.bench.results import Sample

_CASE_FIELDS = {
    "backbone": "backbone",
    "size": "px",
    "num_tokens": "tokens",
    "batch": "batch",
    "num_classes": "classes",
    "action": "action",
    "precision": "precision",
    "mode": "mode",
    "device": "device",
}
_RATIO, _SHARE = " ratio", " share"  # stand behind the value that they are of


def markdown(about: Mapping[str, Any], samples: Sequence[Sample]) -> str:
    """Return everything measured as one page.

    Args:
        about: "machine", "versions" and "commit", with anything else left out.
        samples: in the order in which they were measured.
    """
    lines = ["# Benchmark", "", *_circumstances(about)]
    for what in dict.fromkeys(sample.what for sample in samples):
        members = [sample for sample in samples if sample.what == what]
        lines += ["", f"## {what}", "", *_shared(members), *_section(members)]
        notes = dict.fromkeys(f"- {sample.contender}: {sample.note}" for sample in members if sample.note)
        lines += ["", *notes] if notes else []
    return "\n".join(lines) + "\n"


def in_words(sample: Sample) -> str:
    """Return a sample's value with its unit, "-" where there is none."""
    if sample.value is None:
        return "-"
    if sample.unit == "s":
        return f"{_three_figures(1000 * sample.value)} ms" if sample.value < 1 else f"{_three_figures(sample.value)} s"
    if sample.unit == "%":
        return f"{100 * sample.value:.2f} %"
    if not sample.unit:
        number = f"{sample.value:.3f}"
        return f"{number} ({sample.low:.3f} to {sample.high:.3f})" if sample.raw and sample.low is not None else number
    return f"{_three_figures(sample.value)} {sample.unit}"


def _three_figures(value: float) -> str:
    """Return a number with three figures, or as a whole number where that takes more."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _circumstances(about: Mapping[str, Any]) -> list[str]:
    machine, versions = about["machine"], about["versions"]
    memory = f", {machine['memory_gib']} GiB" if machine["memory_gib"] else ""
    gpu = f"; {machine['gpu']}" if machine["gpu"] else ""
    threads = f"{machine['num_threads']} threads on {machine['num_cores']} cores"
    return [
        f"{machine['cpu']}, {threads}{memory}{gpu}; {machine['system']}.",
        f"{', '.join(f'{name} {text}' for name, text in versions.items())}; commit {about['commit'] or 'unknown'}.",
        "A ratio is the median of those to `plain` round by round, with their quartiles.",
    ]


def _shared(samples: Sequence[Sample]) -> list[str]:
    """Return the fields that are the same in all samples, in a line."""
    same = {
        title: values.pop()
        for name, title in _CASE_FIELDS.items()
        if len(values := {getattr(sample, name) for sample in samples}) == 1
    }
    told = ", ".join(f"{title} {value}" for title, value in same.items() if value not in {None, ""})
    return [f"All: {told}.", ""] if told else []


def _section(samples: Sequence[Sample]) -> list[str]:
    differing = [name for name in _CASE_FIELDS if len({getattr(sample, name) for sample in samples}) > 1]
    columns = list(dict.fromkeys(sample.contender for sample in samples))
    rows: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for sample in samples:
        quantity = sample.quantity.removesuffix(_RATIO).removesuffix(_SHARE)
        values = (getattr(sample, name) for name in differing)
        key = (*("" if value is None else str(value) for value in values), quantity, sample.part)
        cells = rows.setdefault(key, {})
        cells.setdefault(sample.contender, []).append(in_words(sample))
    titles = [*(_CASE_FIELDS[name] for name in differing), "quantity", "part", *columns]
    table = [[*key, *("; ".join(cells.get(column, [])) for column in columns)] for key, cells in rows.items()]
    return _table(titles, table)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    kept = [number for number in range(len(titles)) if any(row[number] for row in rows)]
    lines = [[titles[number] for number in kept], ["---"] * len(kept), *([row[n] for n in kept] for row in rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]
