"""The command `finevote bench`. Heavy libraries are imported inside it, so that help is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from finevote.bench.plan import BY_DEFAULT, Action, Device, Mode, Plan, Precision, What


def bench(
    whats: Annotated[
        list[What] | None,
        typer.Argument(metavar="WHAT", help=f"Any of {', '.join(What)}; all but growth unless given."),
    ] = None,
    backbones: Annotated[
        list[str] | None, typer.Option("--backbone", help="A short name or any timm ViT; may be repeated.")
    ] = None,
    sizes: Annotated[
        list[int] | None, typer.Option("--size", min=1, max=4096, metavar="PX", help="Of the images; may be repeated.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once; ratios depend on it.")] = Plan.batch,
    actions: Annotated[
        list[Action] | None, typer.Option("--action", help="A forward pass or a training step; both unless given.")
    ] = None,
    precisions: Annotated[
        list[Precision] | None, typer.Option("--precision", help="May be repeated; fp32 unless given.")
    ] = None,
    modes: Annotated[list[Mode] | None, typer.Option("--mode", help="May be repeated; eager unless given.")] = None,
    device: Annotated[Device, typer.Option(help="CUDA where there is a GPU, unless given.")] = Device.AUTO,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender, after one to warm up.")] = Plan.rounds,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU; PyTorch's own number unless given.")] = None,
    num_classes: Annotated[int, typer.Option("--classes", min=2, help="Of the classifier.")] = Plan.num_classes,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Change a setting of ours: model.voting.num_selected=64."),
    ] = None,
    contenders: Annotated[
        list[str] | None,
        typer.Option("--contender", metavar="MODULE:NAME", help="One more: benchmarks.naive:NAIVE in a checkout."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="What the loader reads, as for fit; drawn photographs unless given.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Loader processes.")] = Plan.workers,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="The folder, results in it are replaced; runs/bench-N if none.")
    ] = None,
) -> None:
    """Measure what the classifier costs on this machine.

    Time and memory of a forward pass and of a training step beside timm's plain model (`plain`), and the same with a
    last block that computes CLS alone (`plain_cls`), in turn; where the time goes; loader and start-up. Figures are
    kept as they come, so Ctrl-C loses none. On a GPU: finevote bench step memory --precision bf16 --mode eager --mode
    compile --batch 32
    """
    given = {
        "backbones": backbones,
        "sizes": sizes,
        "actions": actions,
        "precisions": precisions,
        "modes": modes,
        "overrides": overrides,
        "contenders": contenders,
    }
    wanted = tuple(what for what in What if what in (whats or BY_DEFAULT))
    settings = {name: tuple(dict.fromkeys(values)) for name, values in given.items() if values}
    plan = Plan(
        whats=wanted,
        batch=batch,
        device=_find_device(device),
        rounds=rounds,
        threads=threads,
        num_classes=num_classes,
        data=data,
        workers=workers,
        **settings,  # type: ignore[arg-type]
    )
    from finevote.bench.run import run_bench

    run_bench(plan, out=out)


def _find_device(device: Device) -> str:
    if device is not Device.AUTO:
        return str(device)
    from finevote.devices import find_accelerator

    return "cuda" if find_accelerator() == "cuda" else "cpu"
