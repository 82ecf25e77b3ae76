"""The main job on drawn birds: train, measure and draw, beside two controls that keep the figures honest."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from finevote.config import Config, load_config
from finevote.data.registry import open_source
from finevote.errors import FinevoteError, RunError
from finevote.evaluation.controls import color_histogram_accuracy
from finevote.evaluation.intervals import wilson_interval
from finevote.evaluation.report import Report
from finevote.explanation.figures import contact_sheet, save_figure
from finevote.files import atomic_write
from finevote.measure.evaluate import evaluate
from finevote.measure.examples import draw_examples
from finevote.report.run import write_report
from finevote.run_folder import next_run_path
from finevote.study.ablate import PLAIN
from finevote.training.fit import fit
from finevote.types import DataSource, Record

DATA = "synthetic"
_NUM_DRAWN_PER_CLASS = 3


class DemoFigures(NamedTuple):
    """What the demo found on the test split; seconds are of training."""

    voting: Report
    plain: Report
    color_histogram: float
    voting_s: float
    plain_s: float


def run_demo(out: Path | None = None) -> Path:
    """Fit, measure and draw a voting classifier and its plain control on `synthetic`; return the folder of both.

    Writes `voting/` and `plain/` (runs), `birds.png`, `demo.json`.

    Args:
        out: a folder that does not exist yet; None makes `runs/demo-<n>`.

    Raises:
        RunError: `out` exists.
    """
    folder = _free_folder(out)
    console = Console()
    console.print("Drawing 12 species of 4 genera; those of a genus differ in one or two small parts.")
    source = open_source(DATA, splits=("train", "test"))
    birds = _draw_birds(source, folder / "birds.png")
    console.print("\n[bold]1 of 2: the voting classifier[/bold]")
    voting_s = _fit(load_config("demo"), folder / "voting")
    console.print("\n[bold]2 of 2: its control, the plain backbone under the same budget[/bold]")
    plain_s = _fit(load_config("demo", PLAIN), folder / "plain")
    figures = DemoFigures(
        voting=evaluate(folder / "voting", split="test"),
        plain=evaluate(folder / "plain", split="test"),
        color_histogram=_color_control(source),
        voting_s=voting_s,
        plain_s=plain_s,
    )
    atomic_write(folder / "demo.json", json.dumps(_as_dict(figures), indent=1) + "\n")
    console.print("", _table(figures))
    console.print(_vote_sentence(figures.voting), "\n")
    examples = draw_examples(folder / "voting", split="test")
    _write_report(console, folder / "voting")
    _print_next(console, folder, pictures=[birds, folder / "voting" / "curves.png", examples])
    return folder


def _free_folder(out: Path | None) -> Path:
    if out is None:
        return next_run_path(Path("runs"), "demo")
    if out.exists():
        raise RunError(f"{out} already exists: give another --out, or delete it")
    return out


def _draw_birds(source: DataSource, path: Path) -> Path:
    seen: dict[int, list[Record]] = {}
    for record in source.splits["train"]:
        seen.setdefault(record.label, []).append(record)
    records = [record for rows in seen.values() for record in rows[:_NUM_DRAWN_PER_CLASS]]
    sheet = contact_sheet(
        [source.read(record) for record in records],
        [source.class_names[record.label] for record in records],
        [source.regions(record).parts for record in records],
        title="Species of one genus differ in the boxed parts only",
        num_columns=2 * _NUM_DRAWN_PER_CLASS,
    )
    return save_figure(sheet, path)


def _fit(config: Config, run: Path) -> float:
    """Train, and return how many seconds it took."""
    start = time.monotonic()
    fit(config, DATA, out=run)
    return time.monotonic() - start


def _color_control(source: DataSource) -> float:
    def images_and_labels(records: Sequence[Record]) -> tuple[list[object], list[int]]:
        return [source.read(record) for record in records], [record.label for record in records]

    train, test = (images_and_labels(source.splits[split]) for split in ("train", "test"))
    return color_histogram_accuracy(*train, *test)


def _table(figures: DemoFigures) -> Table:
    table = Table("on the test split", box=None, title_justify="left")
    for heading in ("top-1", "95% interval", "training"):
        table.add_column(heading, justify="right")
    for name, report, seconds in (
        ("voting classifier", figures.voting, figures.voting_s),
        ("plain backbone, same budget", figures.plain, figures.plain_s),
    ):
        low, high = report.top_1.low, report.top_1.high
        table.add_row(name, f"{report.top_1.value:.1%}", f"{low:.1%} to {high:.1%}", f"{seconds:.0f} s")
    num_images = figures.voting.num_images
    low, high = wilson_interval(round(figures.color_histogram * num_images), num_images)
    table.add_row("colour histograms alone", f"{figures.color_histogram:.1%}", f"{low:.1%} to {high:.1%}", "")
    table.add_row("chance", f"{1 / figures.voting.num_classes:.1%}", "", "")
    return table


def _vote_sentence(report: Report) -> str:
    if report.pointing is None:
        return "No final votes were cast."
    votes, area, lift, _ = report.pointing
    sentence = (
        f"{votes:.1%} of the final votes fall in the telling parts, which cover {area:.1%} of the view: "
        f"{lift:.1f} times as many as by area."
    )
    if report.pointing_game is None:
        return sentence
    game = report.pointing_game
    return (
        f"{sentence} The most-voted patch lies in one of them in {game.hit_share:.1%} of the images, "
        f"{game.lift:.1f} times as often as by area ({game.lift_low:.1f} to {game.lift_high:.1f})."
    )


def _as_dict(figures: DemoFigures) -> dict[str, object]:
    return {
        "voting": figures.voting.to_dict(),
        "plain": figures.plain.to_dict(),
        "color_histogram_top_1": figures.color_histogram,
        "training_s": {"voting": figures.voting_s, "plain": figures.plain_s},
    }


def _write_report(console: Console, run: Path) -> None:
    """Write the run's report; what goes wrong is told, and nothing else is lost by it."""
    try:
        written = write_report(run, split="test")
    except (FinevoteError, OSError) as error:
        console.print(f"the report is left out: {error}", markup=False, soft_wrap=True)
    else:
        console.print(f"Report, for a browser:\n  {written.path}", markup=False, soft_wrap=True)


def _print_next(console: Console, folder: Path, *, pictures: Sequence[Path]) -> None:
    console.print("Pictures:")
    for picture in pictures:
        console.print(f"  {picture}", soft_wrap=True)
    console.print("\nTry next:")
    for command in (
        f"finevote evaluate {folder / 'voting'} --split test",
        "finevote data show YOUR_FOLDER          (one sub-folder of photographs a class)",
        "finevote fit YOUR_FOLDER --recipe flowers102_dinov2_s14",
        "finevote recipes",
    ):
        console.print(f"  {command}", soft_wrap=True, markup=False)
