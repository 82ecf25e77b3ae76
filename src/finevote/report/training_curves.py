"""How the training went: curves over the epochs, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finevote.progress import describe_seconds
from finevote.report.blocks import Cell, Chart, Column, Facts, Note, Row, Section, Table
from finevote.report.charts import Axis, Curve, as_number, as_percent, as_whole, draw, legend_of
from finevote.report.material import Material
from finevote.report.text import Values, share

Epochs = Sequence[Values]
_LOSSES = {"loss": "total", "loss_part": "part", "loss_complement": "complement", "loss_triplet": "triplet"}
_ACCURACIES = {"train_top1": "training", "val_top1": "validation"}
_RATES = {"lr_max": "highest group", "lr_min": "lowest group"}
NUM_SERIES = 6  # colours
_NUM_POINTS, _NUM_ROWS = 120, 30


def training(material: Material) -> Section:
    """Return losses, accuracies and rates over the epochs, and what came of it."""
    epochs, title = material.epochs, "How it was trained"
    if not epochs:
        note = Note(f"{material.folder.metrics_jsonl.name} has no epochs, so there are no curves.")
        return Section("training", title, "Training", "", [note, Facts(_facts(material, None))])
    best = best_epoch(epochs)
    kept = f", of which number {best['epoch']} was best on validation and is kept." if best else ", the last is kept."
    charts = [chart for chart in (_accuracy_chart(epochs, best), _loss_chart(epochs), _rate_chart(epochs)) if chart]
    blocks = [Row([*charts, Facts(_facts(material, best))])]
    return Section("training", title, "Training", f"{epochs[-1]['epoch']:,} epochs{kept}", blocks)


def best_epoch(epochs: Epochs) -> Values | None:
    """Return the first epoch with the highest validation accuracy; None where none was validated."""
    rows = [row for row in epochs if row.get("val_top1") is not None]
    return max(rows, key=lambda row: row["val_top1"], default=None)


def curves_of(epochs: Epochs, names: Mapping[str, str], *, first: int = 1) -> list[Curve]:
    """Return the figures of the epochs that are named, each by its label; none that no epoch has.

    `first` numbers the colour of the first.
    """
    curves = []
    for number, (name, label) in enumerate(names.items(), start=first):
        points = [(float(row["epoch"]), float(row[name])) for row in epochs if row.get(name) is not None]
        if points:
            radii = [2.2] * len(points) if len(points) < 12 else []
            curves.append(Curve(label, thin(points), f"s{(number - 1) % NUM_SERIES + 1}", radii))
    return curves


def thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return up to 120 of the points, evenly, with the last."""
    step = max(1, -(-len(points) // _NUM_POINTS))
    return [*points[:-1:step], points[-1]]


def epoch_axis(last: float) -> Axis:
    """Return the axis of epochs."""
    return Axis("epoch", 0.0, max(float(last), 2.0), as_whole)


def _accuracy_chart(epochs: Epochs, best: Values | None) -> Chart | None:
    curves = curves_of(epochs, _ACCURACIES)
    if not curves:
        return None
    title = "Top-1 of training images, as they were augmented"
    if best:
        title = f"Validation top-1 peaks at {share(best['val_top1'])} in epoch {best['epoch']}"
    y = Axis("top-1", 0.0, min(max(highest(curves) * 1.05, 0.05), 1.0), as_percent)
    ring = (float(best["epoch"]), float(best["val_top1"])) if best else None
    label = f"Top-1 accuracy over the epochs. {title}."
    svg = draw(curves, epoch_axis(epochs[-1]["epoch"]), y, label=label, ring=ring)
    return Chart(title, svg, label, legend_of(curves), numbers=_epoch_table(epochs))


def _loss_chart(epochs: Epochs) -> Chart | None:
    curves = curves_of(epochs, _LOSSES)
    if not curves:
        return None
    curves = curves[:1] if len(curves) == 2 else curves  # a total of one part is that part
    first, last = (curves[0].points[end][1] for end in (0, -1))
    title = f"The loss {'falls' if last < first else 'goes'} from {first:.2f} to {last:.2f}"
    y = Axis("training loss", 0.0, highest(curves) * 1.05 or 1.0, as_number)
    label = f"Training loss over the epochs. {title}."
    return Chart(title, draw(curves, epoch_axis(epochs[-1]["epoch"]), y, label=label), label, legend_of(curves))


def _rate_chart(epochs: Epochs) -> Chart | None:
    is_same = all(row.get("lr_min") == row.get("lr_max") for row in epochs)
    curves = curves_of(epochs, {"lr_max": "all groups"} if is_same else _RATES)
    if not curves:
        return None
    title = f"Learning rates up to {highest(curves):.2g}"
    label = f"Learning rate over the epochs. {title}."
    y = Axis("learning rate", 0.0, highest(curves) * 1.05 or 1.0, as_number)
    return Chart(title, draw(curves, epoch_axis(epochs[-1]["epoch"]), y, label=label), label, legend_of(curves))


def highest(curves: Sequence[Curve]) -> float:
    """Return the highest value that any of the curves reaches."""
    return max(value for curve in curves for _, value in curve.points)


def _epoch_table(epochs: Epochs) -> Table:
    names = {"loss": "loss", **_ACCURACIES}
    there = {name: label for name, label in names.items() if any(row.get(name) is not None for row in epochs)}
    step = max(1, -(-len(epochs) // _NUM_ROWS))
    rows = [
        [Cell(str(row["epoch"])), *(_figure(row.get(name), is_share=name != "loss") for name in there)]
        for row in [*epochs[:-1:step], epochs[-1]]
    ]
    return Table("By epoch", (Column("epoch"), *(Column(label) for label in there.values())), rows)


def _figure(value: float | None, *, is_share: bool) -> Cell:
    return Cell("") if value is None else Cell(share(value) if is_share else f"{value:.3f}")


def _facts(material: Material, best: Values | None) -> list[tuple[str, str]]:
    epochs, config = material.epochs, material.config
    seconds = [float(row["seconds"]) for row in epochs if row.get("seconds") is not None]
    rates = [float(row["images_per_s"]) for row in epochs if row.get("images_per_s") is not None]
    weights = (material.manifest.details.get("weights") or {}).get("source") or config.model.weights
    rows = [
        ("Recipe", config.name),
        ("Backbone", f"{config.model.backbone}, weights: {weights}"),
        ("Kept", f"epoch {best['epoch']} of {epochs[-1]['epoch']}" if best else "the last epoch"),
        ("Batch", f"{config.training.batch_size} images, seed {config.training.seed}"),
        ("Time", describe_seconds(sum(seconds)) if seconds else ""),
        ("Speed", f"{sum(rates) / len(rates):.0f} images/s on average" if rates else ""),
    ]
    return [row for row in rows if row[1]]
