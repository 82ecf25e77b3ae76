"""The command `finevote predict`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finevote.cli_options import KeepRateOption, ViewsOption
from finevote.cli_output import answer_table, as_csv, as_jsonl, check_out, print_rich
from finevote.errors import ArgumentError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from finevote.evaluation.calibrator import SetRule
    from finevote.predictor import Predictor
    from finevote.types import Ranked

OUT_SUFFIXES = (".csv", ".jsonl")
TOP, SETS, UNKNOWN_BY = 5, "lac", "distance"  # unless given


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", readable=False, help="A run folder or a bundle folder.")],
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUTS...", readable=False, help="Photographs, or folders of them.")
    ],
    top: Annotated[int | None, typer.Option(min=1, help=f"How many classes to name; {TOP} unless given.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write to a .csv or .jsonl file instead of printing.")] = None,
    keep_rate: KeepRateOption = None,
    views: ViewsOption = None,
    coverage: Annotated[
        float | None,
        typer.Option(help="Give instead the set of classes that holds the true one with this probability: 0.95."),
    ] = None,
    sets: Annotated[
        str | None,
        typer.Option(
            help="How the sets of --coverage are made: aps, raps, or lac, which makes the smallest, unless given."
        ),
    ] = None,
    each_class: Annotated[
        bool, typer.Option("--each-class", help="Keep the --coverage for every class by itself; needs more images.")
    ] = False,
    false_alarms: Annotated[
        float | None,
        typer.Option(help="Answer `none of the classes`, and be wrong in this share of images of known ones: 0.05."),
    ] = None,
    unknown_by: Annotated[
        str | None,
        typer.Option(
            help="The score that tells, with --false-alarms: energy, max_softmax, or distance (to the nearest class) "
            "unless given."
        ),
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option(help="Answer `not sure` as often as it takes to be wrong in at most this share of answers: 0.02."),
    ] = None,
    sure: Annotated[
        float | None,
        typer.Option(
            help="Answer with the class if its probability reaches this, else with its genus, and so on: 0.9."
        ),
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="All photographs are of one subject: give one answer for all of them.")
    ] = False,
) -> None:
    """Name what is in photographs.

    Unreadable ones are reported and skipped.
    """
    _refuse_without("coverage", coverage, sets=sets, each_class=each_class or None)
    _refuse_without("false-alarms", false_alarms, unknown_by=unknown_by)
    _refuse_both("--top", top, "a set has as many classes as it takes", coverage=coverage)
    reason = "what is promised was calibrated on single photographs, and does not hold for several together"
    promises = {"coverage": coverage, "false_alarms": false_alarms, "max_error": max_error, "sure": sure}
    _refuse_both("--together", together or None, reason, **promises)
    if out is not None:
        check_out(out, OUT_SUFFIXES)
    from finevote.data.listing import list_images
    from finevote.evaluation.answers import AnswerRule
    from finevote.evaluation.calibrator import SetRule
    from finevote.predictor import Predictor
    from finevote.progress import Meter

    paths = list_images(inputs)
    kind = "plain" if views is None else views.value
    predictor = Predictor.load(run, device="auto", keep_rate=keep_rate, views=kind)
    wanted = None if coverage is None else SetRule(coverage, sets or SETS, each_class)
    has_rule = any(option is not None for option in (false_alarms, max_error, sure))
    rule = AnswerRule(false_alarms, unknown_by or UNKNOWN_BY, max_error, sure) if has_rule else None
    with Meter("predict", total=len(paths)) as meter:
        if together:
            answer, unreadable = predictor.predict_files_together(paths, top=top or TOP, advance=meter.advance)
            answers = [] if answer is None else [answer]
        else:
            answers, unreadable = predictor.predict_files(
                paths, top=top or TOP, sets=wanted, rule=rule, advance=meter.advance
            )
    for path, reason in unreadable.items():
        typer.echo(f"skipped {path}: {reason}", err=True)
    if not answers:
        raise DataError("there is no photograph that can be read")
    if wanted is not None:
        _tell_weakness(predictor, wanted)
    if out is None:
        print_rich(answer_table(answers))
    else:
        _write(answers, out)


def _write(answers: Sequence[Ranked], out: Path) -> None:
    from finevote.files import atomic_write

    text = as_csv(answers) if out.suffix == ".csv" else as_jsonl(answers)
    atomic_write(out, text.encode("utf-8", "surrogateescape"))
    written = "1 prediction" if len(answers) == 1 else f"{len(answers):,} predictions"
    typer.echo(f"{written} written to {out}", err=True)


def _tell_weakness(predictor: Predictor, rule: SetRule) -> None:
    """Say where sets hold classes for want of validation images alone."""
    from finevote.evaluation.conformal import fewest_images

    calibration, num_classes = predictor.ranking.calibration, len(predictor.class_names)
    if calibration is not None and (always := calibration.count_always_in(rule, num_classes=num_classes)):
        whose = " of a class" if rule.each_class else ""
        which = "all classes" if always == num_classes else f"{always} of {num_classes} classes"
        typer.echo(
            f"note: a coverage of {rule.coverage:g} takes {fewest_images(rule.coverage):,} validation images{whose}, "
            f"and the bundle has seen fewer: {which} are in every set",
            err=True,
        )


def _refuse_without(main: str, value: float | None, **options: object) -> None:
    if value is None and (given := _names_of(options)):
        raise ArgumentError(f"{' and '.join(given)} without --{main}, to which it belongs: give --{main} too")


def _refuse_both(option: str, value: object, reason: str, **options: object) -> None:
    if value is not None and (given := _names_of(options)):
        raise ArgumentError(f"{option} with {' and '.join(given)}: {reason}: leave one of them out")


def _names_of(options: Mapping[str, object]) -> list[str]:
    """Return the options that were given, as they are written."""
    return [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
