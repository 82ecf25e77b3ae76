"""The command line: parse, call, print. Heavy libraries are imported inside the commands, so that help is quick."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import sys
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Never

import typer

from finevote.errors import ArgumentError, DataError, FinevoteError, plain_message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel

    from finevote.evaluation.report import Report
    from finevote.types import DataSource, Ranked, Record

DEFAULT_RECIPE = "flowers102_dinov2_s14"
OUT_SUFFIXES = (".csv", ".jsonl")
SHEET_IMAGES = 72  # on a contact sheet; more could not be looked at

app = typer.Typer(
    name="finevote",
    help="Fine-grained image classification by attention heads that vote for the telling patches.",
    epilog="Start with `finevote demo`, or with your own photographs: `finevote fit FOLDER`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Look at a data set before training.", no_args_is_help=True)
app.add_typer(data_app, name="data")


class Split(StrEnum):
    """The splits that a classifier can be measured on."""

    VAL = "val"
    TEST = "test"


# Paths are declared `readable=False` so that typer does not judge them: the commands have better messages.
Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", readable=False, file_okay=False, help="A run folder, as `finevote fit` makes it."),
]
SplitOption = Annotated[Split, typer.Option(help="Each look at the test split is entered in the run's ledger.")]
DataOption = Annotated[str | None, typer.Option(help="Where the data set lies now, if it has moved.")]


def main() -> None:
    """Run the command; a mistake of the user is a plain message and exit code 2, `--debug` shows the trace."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    logging.basicConfig(format="%(message)s")
    logging.getLogger("finevote").setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        app(arguments)
    except FinevoteError as error:
        if debug:
            raise
        _stop(plain_message(error), code=2)
    except PermissionError as error:
        if debug:
            raise
        _stop(f"cannot open {error.filename}: {error.strerror}: check its permissions", code=2)
    except Exception as error:
        if debug:
            raise
        text = " ".join(str(error).splitlines())
        _stop(f"unexpected {type(error).__name__}: {text} (run it again with --debug for the trace)", code=1)


def _stop(message: str, *, code: int) -> Never:
    typer.echo(f"error: {message}", err=True)
    sys.exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"finevote {version('finevote')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")] = False,
) -> None:
    del version, debug  # the one has acted by now, the other is read by `main` wherever it stands


@app.command()
def fit(
    data: Annotated[
        str | None,
        typer.Argument(
            help="A folder of class folders (or of train/, val/, test/ with those), a CSV with the columns path and "
            "label (and split, group), Flowers-102 as published, or `synthetic`.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help=f"A recipe's name or a YAML file; {DEFAULT_RECIPE} unless given.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting: training.epochs=10.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder; runs/RECIPE-DATA-N unless given.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="Processes to train with, one for each GPU.")] = 1,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out instead of stopping.")] = (
        False
    ),
) -> None:
    """Train a classifier.

    The best epoch on validation becomes the run's bundle. The test split is never opened.
    """
    is_first = os.environ.get("RANK", "0") == "0"  # torchrun runs this command in every process
    if resume is not None:
        _refuse_with_resume(recipe=recipe, set=overrides, out=out, skip_bad=skip_bad)
        from finevote.training import fit as training

        run = training.resume(resume, devices=devices, data=data)
    elif data is None:
        raise ArgumentError("fit needs DATA: a folder, a CSV or `synthetic`, e.g. finevote fit my_photographs")
    else:
        from finevote.config import load_config

        config = load_config(recipe or DEFAULT_RECIPE, overrides or ())
        if is_first:
            _check_places(data, out)
        from finevote.training import fit as training

        run = training.fit(config, data, out=out, devices=devices, skip_bad=skip_bad)
    if is_first:
        typer.echo(
            f"next: finevote evaluate {run}\n      finevote figure {run}\n      finevote predict {run} PHOTOGRAPHS"
        )


def _refuse_with_resume(**options: object) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise ArgumentError(f"--resume goes on with the run's own settings: leave out {', '.join(given)}")


def _check_places(data: str, out: Path | None) -> None:
    """Raise the error of missing data or of a run folder that is taken, before the slow imports of training."""
    from finevote.run_folder import RunFolder

    if out is not None:
        RunFolder.check_free(out)
    if data != "synthetic" and not Path(data).exists():
        from finevote.data.registry import open_source

        open_source(data, splits=("train", "val"))  # raises, and says what data can be


@app.command()
def evaluate(
    run: Run,
    split: SplitOption = Split.VAL,
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure a run on a split.

    Accuracies with 95% intervals, over all images and per class, and which classes are mistaken for which.
    """
    from finevote.measure import evaluate as measure

    def show(report: Report) -> None:
        if as_json:
            typer.echo(json.dumps(report.to_dict(), indent=2))
        else:
            _print_rich(report.table())

    measure(run, split=split.value, data=data, on_report=show)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", readable=False, help="A run folder or a bundle folder.")],
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUTS...", readable=False, help="Photographs, or folders of them.")
    ],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Write to a .csv or .jsonl file instead of printing.")] = None,
) -> None:
    """Name what is in photographs.

    Unreadable ones are reported and skipped.
    """
    if out is not None:
        _check_out(out, OUT_SUFFIXES)
    from finevote.files import atomic_write
    from finevote.predictor import Predictor, list_images
    from finevote.progress import Meter

    paths = list_images(inputs)
    predictor = Predictor.load(run, device="auto")
    with Meter("predict", total=len(paths)) as meter:
        answers, unreadable = predictor.predict_files(paths, top=top, advance=meter.advance)
    for path, reason in unreadable.items():
        typer.echo(f"skipped {path}: {reason}", err=True)
    if not answers:
        raise DataError(
            f"none of {len(paths):,} image files could be read" if len(paths) > 1 else "the image could not be read"
        )
    if out is None:
        _print_rich(_answer_table(answers))
    else:
        text = _as_csv(answers) if out.suffix == ".csv" else _as_jsonl(answers)
        atomic_write(out, text.encode("utf-8", "surrogateescape"))
        typer.echo(f"{len(answers)} predictions written to {out}", err=True)


def _check_out(out: Path, suffixes: Sequence[str]) -> None:
    """Raise ArgumentError unless a file of one of these kinds can be written there."""
    if out.suffix not in suffixes:
        raise ArgumentError(f"--out {out} has the ending {out.suffix!r}; allowed: {', '.join(suffixes)}")
    if out.is_dir():
        raise ArgumentError(f"--out {out} is a folder: give a file in it")
    if not out.parent.is_dir():
        raise ArgumentError(f"--out {out}: there is no folder {out.parent}: make it, or choose another")
    if not os.access(out.parent, os.W_OK):
        raise ArgumentError(f"--out {out}: the folder {out.parent} cannot be written: choose another")


@app.command()
def figure(run: Run, split: SplitOption = Split.VAL, data: DataOption = None) -> None:
    """Draw example predictions.

    Right and wrong ones are told apart by their borders.
    """
    from finevote.measure import draw_examples

    typer.echo(draw_examples(run, split=split.value, data=data))


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(help="The folder to work in; a new one in runs/ unless given.")] = None,
) -> None:
    """See it all on drawn birds, in minutes.

    Trains, measures and draws a classifier on the synthetic set, with no download and no GPU.
    """
    from finevote.demo import run_demo

    run_demo(out)


@app.command()
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Print every setting of this recipe, as YAML to start your own from.")
    ] = None,
) -> None:
    """List the recipes, or print one in full."""
    from finevote.config import list_recipes, load_config

    if name is not None:
        typer.echo("\n".join(_yaml_lines(load_config(name))))
        return
    for recipe in list_recipes():
        config = load_config(recipe)
        typer.echo(f"{recipe}\n    {config.source}\n    {config.hardware}")


@data_app.command("show")
def data_show(
    data: Annotated[str, typer.Argument(help="A folder, a CSV, Flowers-102 as published, or `synthetic`.")],
    out: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path("contact_sheet.png"),
    per_class: Annotated[int, typer.Option(min=1, help="Training images to draw of each class.")] = 3,
) -> None:
    """Count and draw a data set.

    Classes, images of each split, and a contact sheet of training images with their known parts boxed.
    """
    _check_out(out, (".png",))
    from finevote.explanation.figures import contact_sheet, save_figure

    source = _open_all_splits(data)
    counts = ", ".join(f"{len(records)} {split}" for split, records in source.splits.items())
    typer.echo(f"{source.name}: {len(source.class_names)} classes; images: {counts}")
    for note in source.notes:
        typer.echo(note)
    records = _sheet_records(source, per_class)
    sheet = contact_sheet(
        [source.read(record) for record in records],
        [source.class_names[record.label] for record in records],
        [record.parts for record in records],
        title=f"{source.name}: {len({record.label for record in records})} of {len(source.class_names)} classes",
        num_columns=6,
    )
    typer.echo(save_figure(sheet, out))


def _open_all_splits(data: str) -> DataSource:
    """Open train, val and test; where there is no test split, or it is not valid, a note says so."""
    from finevote.data.registry import open_source

    try:
        return open_source(data, splits=("train", "val", "test"))
    except DataError as error:
        source = open_source(data, splits=("train", "val"))
        is_absent = str(error).startswith(f"{source.name} has no test images")
        note = "there is no test split, which training does not need" if is_absent else f"the test split: {error}"
        return replace(source, notes=(*source.notes, note))


def _sheet_records(source: DataSource, per_class: int) -> list[Record]:
    """Return up to `per_class` training records of each class, of evenly spread classes if all are too many."""
    num_drawn = max(1, min(len(source.class_names), SHEET_IMAGES // per_class))
    labels = [number * len(source.class_names) // num_drawn for number in range(num_drawn)]
    by_class: dict[int, list[Record]] = {label: [] for label in labels}
    for record in source.splits["train"]:
        if len(by_class.get(record.label, range(per_class))) < per_class:
            by_class[record.label].append(record)
    return [record for records in by_class.values() for record in records]


def _answer_table(answers: Sequence[Ranked]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "class", "probability", box=None)
    for answer in answers:
        pairs = list(zip(answer.class_names, answer.probabilities, strict=True))
        table.add_row(
            Text(answer.image_id, overflow="fold"),
            Text("\n".join(name for name, _ in pairs)),
            Text("\n".join(f"{probability:.4f}" for _, probability in pairs)),
        )
    return table


def _as_csv(answers: Sequence[Ranked]) -> str:
    """Return one row an image: image, class_1, probability_1, class_2, ..."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    ranks = range(1, len(answers[0].class_names) + 1)
    writer.writerow(["image", *(f"{name}_{rank}" for rank in ranks for name in ("class", "probability"))])
    for answer in answers:
        pairs = zip(answer.class_names, answer.probabilities, strict=True)
        writer.writerow([answer.image_id, *(value for pair in pairs for value in pair)])
    return file.getvalue()


def _as_jsonl(answers: Sequence[Ranked]) -> str:
    """Return one JSON object a line: {"image": ..., "top": [{"class": ..., "probability": ...}, ...]}."""
    lines = []
    for answer in answers:
        pairs = zip(answer.class_names, answer.probabilities, strict=True)
        top = [{"class": name, "probability": probability} for name, probability in pairs]
        lines.append(json.dumps({"image": answer.image_id, "top": top}) + "\n")
    return "".join(lines)


def _yaml_lines(section: BaseModel, *, indent: str = "") -> list[str]:
    """Return a section's settings as YAML, each with its description behind it."""
    from pydantic import BaseModel

    lines = []
    values: Mapping[str, Any] = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        child = getattr(section, name)
        if isinstance(child, BaseModel):
            lines += [f"{indent}{name}:", *_yaml_lines(child, indent=indent + "  ")]
        else:
            about = f"  # {field.description}" if field.description else ""
            lines.append(f"{indent}{name}: {json.dumps(values[name], ensure_ascii=False)}{about}")
    return lines


def _print_rich(renderable: Any) -> None:
    from rich.console import Console

    Console().print(renderable)
