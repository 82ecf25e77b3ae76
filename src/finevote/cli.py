"""The command line: parse, call, print. Heavy libraries are imported inside the commands, so that help is quick."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, Never

import typer

from finevote.cli_add import add_class
from finevote.cli_bench import bench
from finevote.cli_calibrate import calibrate
from finevote.cli_data import data_app
from finevote.cli_evaluate import evaluate, figure
from finevote.cli_explain import explain
from finevote.cli_export import export
from finevote.cli_gallery import gallery
from finevote.cli_hub import card, pull, push
from finevote.cli_options import HoldOutOption, SkipBadOption, hold_out_setting
from finevote.cli_output import backbone_list, backbone_sheet, yaml_lines
from finevote.cli_predict import predict
from finevote.cli_probe import probe
from finevote.cli_report import report, report_of_fit
from finevote.cli_serve import serve
from finevote.cli_similarity import similarity
from finevote.cli_soup import soup
from finevote.cli_speed import tune_speed
from finevote.cli_study import ablate, compare, sweep
from finevote.errors import ArgumentError, FinevoteError, plain_message

DEFAULT_RECIPE = "flowers102_dinov2_s14"
_LEFT_OUT = frozenset({"torch", "torchvision", "timm", "lightning"})  # where finevote only runs exported files
_INSTALL = "pip install finevote"
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # typer's own or click's, depending on its version

app = typer.Typer(
    name="finevote",
    help="Fine-grained image classification by attention heads that vote for the telling patches.",
    epilog="Start with `finevote demo`, or with your own photographs: `finevote fit FOLDER`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command; a mistake of the user is a plain message and exit code 2, `--debug` shows the trace."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    logging.basicConfig(format="%(message)s")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # of broken EXIF and the like: what cannot be read is an error
    logging.getLogger("finevote").setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        sys.exit(app(arguments, prog_name="finevote", standalone_mode=False))
    except _UsageError as error:
        _stop_usage(error)
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
        _stop_unexpected(error)


def _stop(message: str, *, code: int) -> Never:
    typer.echo(f"error: {message}", err=True)
    sys.exit(code)


def _stop_unexpected(error: Exception) -> Never:
    if isinstance(error, ModuleNotFoundError) and error.name in _LEFT_OUT:
        _stop(f"{error.name} is not installed, and only an exported .onnx file can do without: {_INSTALL}", code=2)
    text = " ".join(str(error).splitlines())
    _stop(f"unexpected {type(error).__name__}: {text} (run it again with --debug for the trace)", code=1)


def _stop_usage(error: Any) -> Never:
    message = error.format_message()
    if "\n" in message:  # it is the help, which a group of commands without one of them gives
        typer.echo(message, err=True)
        sys.exit(2)
    text = message.replace("Value error, ", "").rstrip(".")
    _stop(f"{text[:1].lower()}{text[1:]} (see `{error.ctx.command_path} --help`)", code=2)


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
            help="A folder of class folders (or of train/, val/, test/ with those), a zip or tar of one, a CSV or "
            "Parquet table with the columns path and label (and split, group), a published set by name or as it is "
            "published, hf:OWNER/NAME for one of the hub, or `synthetic`.",
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
    skip_bad: SkipBadOption = False,
    taxonomy: Annotated[
        Path | None,
        typer.Option(
            readable=False,
            help="A table of class, parent, grandparent, ...; the taxonomy.csv beside the data unless given "
            "(data.taxonomy).",
        ),
    ] = None,
    hold_out_classes: HoldOutOption = None,
) -> None:
    """Train a classifier.

    The best epoch on validation becomes the run's bundle. The test split is never opened.
    """
    is_first = os.environ.get("RANK", "0") == "0"  # torchrun runs this command in every process
    if resume is not None:
        _refuse_with_resume(
            recipe=recipe,
            set=overrides,
            out=out,
            skip_bad=skip_bad,
            taxonomy=taxonomy,
            hold_out_classes=hold_out_classes,
        )
        from finevote.training import fit as training

        run = training.resume(resume, devices=devices, data=data)
    elif data is None:
        raise ArgumentError(
            "fit needs DATA: a folder, an archive, a table, a name or `synthetic`, e.g. finevote fit my_photographs"
        )
    else:
        from finevote.config import load_config

        kinds = [] if taxonomy is None else [f"data.taxonomy={json.dumps(str(taxonomy.absolute()))}"]
        config = load_config(
            recipe or DEFAULT_RECIPE, [*(overrides or ()), *hold_out_setting(hold_out_classes), *kinds]
        )
        if is_first:
            _check_places(data, out)
        from finevote.training import fit as training

        run = training.fit(config, data, out=out, devices=devices, skip_bad=skip_bad)
    if is_first:
        typer.echo(_next_steps(run))
        report_of_fit(run)


def _next_steps(run: Path) -> str:
    from finevote.run_folder import RunFolder

    folder = RunFolder(run)
    split = "" if "val" in folder.read_json(folder.split_json)["splits"] else " --split test"
    return (
        f"next: finevote evaluate {run}{split}\n      finevote report {run}{split}\n"
        f"      finevote predict {run} PHOTOGRAPHS"
    )


def _refuse_with_resume(**options: object) -> None:
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise ArgumentError(f"--resume goes on with the run's own settings: leave out {', '.join(given)}")


def _check_places(data: str, out: Path | None) -> None:
    """Raise the error of missing data or of a run folder that is taken, before the slow imports of training.

    A published set that is not there is fetched now.
    """
    from finevote.run_folder import RunFolder

    if out is not None:
        RunFolder.check_free(out)
    if data == "synthetic" or Path(data).exists():
        return
    from finevote.data.registry import find_named, find_or_fetch, open_source

    named = find_named(data)
    if named is not None:
        find_or_fetch(named)
    else:
        open_source(data, splits=("train", "val"))  # raises, and says what data can be


@app.command("import")
def import_(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="FILE", readable=False, help="A checkpoint.bin of the earlier project.")
    ],
    out: Annotated[Path, typer.Option(help="The bundle folder to write.")],
    classes: Annotated[
        Path | None,
        typer.Option(readable=False, help="A text file with one class name a line, in the order of labels."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="The data set that it was trained on, for its class names.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="What the file cannot say: model.voting.dilations=[1]."),
    ] = None,
) -> None:
    """Turn a checkpoint of the earlier project into a bundle.

    Its pickled code is never run; what the file does not say is listed.
    """
    if classes is not None and data is not None:
        raise ArgumentError("--classes and --data both give the class names: leave out one")
    from finevote.legacy import import_checkpoint

    names = _read_names(classes) if classes is not None else _names_of_data(data) if data is not None else None
    imported = import_checkpoint(checkpoint, out, class_names=names, overrides=overrides or ())
    typer.echo(f"{imported.summary}\n{imported.folder}")
    for note in imported.notes:
        typer.echo(f"note: {note}", err=True)


def _read_names(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"cannot read the class names in {path}: {error}") from None
    return [line.strip() for line in lines if line.strip()]


def _names_of_data(data: str) -> tuple[str, ...]:
    from finevote.data.registry import open_source

    return open_source(data, splits=("train",)).class_names


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
        typer.echo("\n".join(yaml_lines(load_config(name))))
        return
    for recipe in list_recipes():
        config = load_config(recipe)
        typer.echo(f"{recipe}\n    {config.source}\n    {config.hardware}")


@app.command()
def backbones(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME|FILE", help="Describe this one, or any ViT of timm, or tell what a file is of."),
    ] = None,
) -> None:
    """List the backbones that have a short name, describe one, or tell which one a weight file is of.

    How large they are, under which licence their weights are, and whether these are at hand. Nothing is fetched.
    """
    if name is not None and Path(name).exists():
        from finevote.backbones.identify import identify

        found = identify(Path(name))
        typer.echo(f"{found.anatomy}, in {found.layout}")
        typer.echo(
            f"fits {' or '.join(found.names)}" if found.names else "no backbone with a short name is of this size"
        )
        return
    from finevote.backbones.published import PUBLISHED, weights_at_hand

    if name is None:
        at_hand = {info.name for info in PUBLISHED.values() if weights_at_hand(info)}
        typer.echo(backbone_list(PUBLISHED.values(), at_hand=at_hand))
        typer.echo(f"\n* weights at hand ({len(at_hand)}). Any ViT of timm works too, and compact_vit.")
        return
    info = PUBLISHED.get(name)
    if info is None:
        from finevote.backbones.origin import describe_backbone

        info = describe_backbone(name)
    typer.echo(backbone_sheet(info, at_hand=weights_at_hand(info)))


app.command()(evaluate)
app.command()(predict)
app.command()(explain)
app.command()(figure)
app.command()(report)
app.command()(probe)
app.command()(bench)
app.command("tune-speed")(tune_speed)
app.command()(calibrate)
app.command()(export)
app.command()(serve)
app.command()(similarity)
app.command()(gallery)
app.command("add-class")(add_class)
app.command()(compare)
app.command()(sweep)
app.command()(ablate)
app.command()(soup)
app.command()(push)
app.command()(pull)
app.command()(card)
