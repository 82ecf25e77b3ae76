"""`finevote probe`. Heavy libraries are imported inside the command, so that help is quick."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from finevote.cli_options import HoldOutOption, SkipBadOption, hold_out_setting
from finevote.cli_output import check_out, print_rich
from finevote.errors import ArgumentError

if TYPE_CHECKING:
    from finevote.config import Config

IMAGE_SIZE_PX = 224  # without a recipe: what most backbones were trained or evaluated at


def probe(
    data: Annotated[str, typer.Argument(metavar="DATA", help="As for fit.")],
    backbone: Annotated[
        str | None, typer.Option(help="A short name or any ViT of timm; the recipe's unless given.")
    ] = (None),
    weights: Annotated[
        str | None, typer.Option(help="auto (the published ones), official, a file, an address, hf-hub:..., or none.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help=f"Take image size and backbone from it; {IMAGE_SIZE_PX} px unless given.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Change a setting: data.image_size=448.")
    ] = None,
    hold_out_classes: HoldOutOption = None,
    skip_bad: SkipBadOption = False,
    out: Annotated[Path | None, typer.Option(help="Write the figures to a .json file too.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Tell how far a backbone comes without any training.

    Nearest neighbours and logistic regression on its frozen features, CLS and CLS with the mean patch: accuracy on the
    validation images. Features are kept for the next time. The test split is never opened.
    """
    if out is not None:
        check_out(out, (".json",))
    wanted = [*(overrides or ()), *hold_out_setting(hold_out_classes)]
    config = _settings(backbone, weights=weights, recipe=recipe, overrides=wanted)
    from finevote.files import atomic_write
    from finevote.probe.run import probe as probe_data

    found = probe_data(data, config, skip_bad=skip_bad)
    text = json.dumps(found.to_dict(), indent=1, ensure_ascii=False)
    if as_json:
        typer.echo(text)
    else:
        print_rich(found.table())
    if out is not None:
        atomic_write(out, text + "\n")


def _settings(backbone: str | None, *, weights: str | None, recipe: str | None, overrides: list[str]) -> Config:
    """Return the settings; another backbone than the recipe's takes neither its arguments nor its weights."""
    from finevote.config import config_from_values, load_config

    if backbone is None and recipe is None:
        raise ArgumentError(
            "probe needs a backbone: --backbone dinov2_vits14 (`finevote backbones` lists them), or --recipe"
        )
    given = []
    if backbone is not None:
        given += [f"model.backbone={json.dumps(backbone)}", "model.backbone_args={}", "model.weights=auto"]
    if weights is not None:
        given.append(f"model.weights={json.dumps(weights)}")
    if recipe is not None:
        return load_config(recipe, [*given, *overrides])
    values = {"data": {"image_size": IMAGE_SIZE_PX}}
    return config_from_values(values, source="finevote probe", overrides=[*given, *overrides])
