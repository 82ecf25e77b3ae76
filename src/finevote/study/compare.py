"""`finevote compare`: runs on the same images, with what can be said of their differences, and what flipped."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from finevote.errors import ArgumentError, RunError
from finevote.evaluation.calibrator import told_probabilities
from finevote.evaluation.measurement import describe_unread
from finevote.evaluation.paired import class_changes, hierarchical_bootstrap, holm, paired_bootstrap, paired_test
from finevote.evaluation.shares import Groups, share
from finevote.explanation.figures import save_figure
from finevote.explanation.flips import Flip, flip_sheet
from finevote.files import atomic_write
from finevote.measure.examples import crop_to_view
from finevote.run_folder import next_run_path
from finevote.study.comparison import CONFIDENCE, ChangedClass, Comparison, Duel, Standing
from finevote.study.contestants import Album, Contestant, Measured, apart, by_recipe, load_measured, open_album

_NUM_DRAWN = 12  # flipped images of either kind
_SEED = 0  # of the bootstraps


def compare(
    runs: Sequence[Path | str],
    *,
    split: str = "val",
    data: str | Path | None = None,
    out: Path | None = None,
    on_comparison: Callable[[Comparison], object] | None = None,
) -> tuple[Comparison, Path]:
    """Compare the first of several runs with the others on the same images; return what was found, and its folder.

    Runs that differ in their seeds alone are one contestant, unless there is no other. Writes `comparison.json`,
    `classes.csv` and, for each pair of single runs, the images that flipped as `flipped_<number>.png`. A run that has
    not been measured is measured; on the test split that is entered in its ledger.

    Args:
        runs: at least two run folders.
        split: "val" or "test".
        data: where the data set lies now, if it has moved.
        out: a folder that does not exist yet; None makes `runs/compare-<n>`.
        on_comparison: called with what was found before it is written.

    Raises:
        ArgumentError: fewer than two runs, or one twice.
        DataError: the runs are of different data, splits or labels.
        RunError: one is no finished run, or `out` exists.
    """
    if len(runs) > 1 and out is not None and out.exists():
        raise RunError(f"{out} already exists: give another --out, or delete it")
    lined = line_up(runs, split=split, data=data)
    contestants, album = lined.contestants, lined.album
    comparison = compare_contestants(contestants, split=split, album=album, summary=lined.summary)
    if on_comparison is not None:
        on_comparison(comparison)
    folder = out or next_run_path(Path("runs"), "compare")
    atomic_write(folder / "comparison.json", json.dumps(comparison.to_dict(), indent=1, ensure_ascii=False) + "\n")
    atomic_write(folder / "classes.csv", comparison.class_table())
    if isinstance(album, Album):
        _draw_flips(contestants, album, folder)
    return comparison, folder


class LineUp(NamedTuple):
    """Contestants on the same images, those that only get a standing, and the images, or why they cannot be had."""

    contestants: Sequence[Contestant]
    summary: Sequence[Contestant]
    album: Album | str


def line_up(runs: Sequence[Path | str], *, split: str, data: str | Path | None = None) -> LineUp:
    """Return several runs as contestants; what has not been measured is measured. Raises as `compare` does."""
    paths = [Path(run) for run in runs]
    if len(paths) < 2:
        raise ArgumentError("there is nothing to compare: give at least two runs")
    measured = load_measured(paths, split=split, data=data)
    contestants = by_recipe(measured)
    album = open_album(paths[0], split=split, data=data)
    return LineUp(apart(measured), contestants, album) if len(contestants) == 1 else LineUp(contestants, (), album)


def compare_contestants(
    contestants: Sequence[Contestant], *, split: str, album: Album | str, summary: Sequence[Contestant] = ()
) -> Comparison:
    """Return the standing of every contestant, and the first beside each other one.

    Args:
        contestants: measured on the same images.
        split: whose they are.
        album: for the groups; a text says why they cannot be had.
        summary: further contestants that only get a standing.
    """
    runs = [run for contestant in contestants for run in contestant.runs]
    ids = runs[0].predictions.image_ids
    groups = album.groups(ids) if isinstance(album, Album) else None
    duels = [_duel(contestants[0], other, groups=groups) for other in contestants[1:]]
    adjusted = holm([duel.p_value for duel in duels])
    openings = {str(run.path): run.openings for run in runs} if split == "test" else {}
    notes = [] if isinstance(album, Album) else [f"no pictures, and images drawn one by one, for {album}"]
    if any(len(contestant.runs) == 1 for contestant in contestants) and len(contestants) > 1:
        notes.append("a single seed says nothing of how much another one would change: see `finevote sweep`")
    notes += [f"{run}: {describe_unread(opened.num_unread)}" for run, opened in openings.items() if opened.num_unread]
    notes += [
        f"{contestant.name}: a seed comes twice among its runs, so their spread is not that between seeds"
        for contestant in (*contestants, *summary)
        if len({run.seed for run in contestant.runs}) < len(contestant.runs)
    ]
    return Comparison(
        split=split,
        num_images=len(ids),
        num_groups=None if groups is None else len(set(groups)),
        standings=tuple(_standing(contestant, groups=groups) for contestant in (*contestants, *summary)),
        duels=tuple(duel._replace(p_adjusted=p_value) for duel, p_value in zip(duels, adjusted, strict=True)),
        settings={str(run.path): run.setting for run in runs},
        num_test_openings={run: opened.num for run, opened in openings.items()},
        notes=tuple(notes),
    )


def _standing(contestant: Contestant, *, groups: Groups | None) -> Standing:
    right = contestant.right
    names, seeds = tuple(str(run.path) for run in contestant.runs), tuple(run.seed for run in contestant.runs)
    if len(right) == 1:
        one = share(right[0], groups=groups, confidence=CONFIDENCE)
        return Standing(contestant.name, names, seeds, one.value, None, one.low, one.high, one.method)
    found = hierarchical_bootstrap(right, seed=_SEED, groups=groups, confidence=CONFIDENCE)
    what = f"seeds and {'images' if groups is None else 'subjects'}"
    low, high = max(found.low, 0.0), min(found.high, 1.0)
    return Standing(contestant.name, names, seeds, found.value, found.seed_sd, low, high, f"bootstrap of {what}")


def _duel(first: Contestant, other: Contestant, *, groups: Groups | None) -> Duel:
    if len(first.runs) == len(other.runs) == 1:
        return _duel_of_runs(first, other, groups=groups)
    found = hierarchical_bootstrap(first.right, other.right, seed=_SEED, groups=groups, confidence=CONFIDENCE)
    test = "hierarchical bootstrap of seeds and images"
    return Duel(first.name, other.name, found.value, found.low, found.high, found.p_value, found.p_value, test)


def _duel_of_runs(first: Contestant, other: Contestant, *, groups: Groups | None) -> Duel:
    one, two = first.runs[0], other.runs[0]
    found = paired_bootstrap(one.right, two.right, seed=_SEED, groups=groups, confidence=CONFIDENCE)
    exact = paired_test(one.right, two.right, groups=groups)
    labels = one.predictions.labels
    macro = paired_bootstrap(one.right, two.right, seed=_SEED, groups=groups, labels=labels, confidence=CONFIDENCE)
    changes = class_changes(one.right, two.right, labels, groups=groups)
    return Duel(
        first=first.name,
        other=other.name,
        difference=found.value,
        low=found.low,
        high=found.high,
        p_value=exact.p_value,
        p_adjusted=exact.p_value,
        test="McNemar, exact" if groups is None else "signs of subjects, exact",
        only_first=exact.only_first,
        only_other=exact.only_second,
        classes=tuple(ChangedClass(one.class_names[change.label], *change[1:]) for change in changes),
        macro=macro.figure,
    )


def _draw_flips(contestants: Sequence[Contestant], album: Album, folder: Path) -> None:
    first = contestants[0]
    for number, other in enumerate(contestants[1:], start=1):
        if len(first.runs) == len(other.runs) == 1:
            one, two = first.runs[0], other.runs[0]
            gained, lost = np.flatnonzero(two.right & ~one.right), np.flatnonzero(one.right & ~two.right)
            if len(gained) or len(lost):
                figure = flip_sheet(
                    [_flip(row, one, two, album) for row in _some(gained)],
                    [_flip(row, one, two, album) for row in _some(lost)],
                    first=first.name,
                    second=other.name,
                    num_gained=len(gained),
                    num_lost=len(lost),
                )
                save_figure(figure, folder / f"flipped_{number}.png")


def _some(rows: np.ndarray) -> list[int]:
    """Return up to twelve rows drawn at random, the same ones each time."""
    chosen = np.random.default_rng(_SEED).permutation(rows)[:_NUM_DRAWN]
    return sorted(int(row) for row in chosen)


def _flip(row: int, one: Measured, two: Measured, album: Album) -> Flip:
    record = album.records[one.predictions.image_ids[row]]
    answers = []
    for run in (one, two):
        probabilities = told_probabilities(run.predictions.logits[[row]], run.calibration)[0]
        label = int(probabilities.argmax())
        answers.append((run.class_names[label], float(probabilities[label])))
    image = crop_to_view(album.source.read(record), album.view)
    return Flip(image, one.class_names[int(one.predictions.labels[row])], *answers)
