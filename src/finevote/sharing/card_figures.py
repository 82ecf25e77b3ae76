"""What was measured, as Markdown: accuracies, calibration, and the limits that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finevote.evaluation.figure import number
from finevote.sharing.card_text import bullets, figure_of, percent_of, plain, table
from finevote.sharing.facts import Facts

_SPLITS = {"test": "test", "val": "validation"}
_NUM_WORST = 3


def figures(facts: Facts) -> Sequence[list[str]]:
    """Return the accuracies with 95% intervals, and what must stand beside them."""
    if not facts.reports:
        return (["Nothing was measured with these weights."],)
    rows = []
    for split in filter(facts.reports.__contains__, _SPLITS):
        report = facts.reports[split]
        shares = [("top-1", report["top_1"]), ("top-5", report["top_5"]), ("macro, mean of classes", report["macro"])]
        levels = (report.get("taxonomy") or {}).get("levels", ())[1:]
        shares += [(f"right {plain(level['level'])}", level["accuracy"]) for level in levels]
        rows += [
            (_SPLITS[split], f"{report['num_images']:,}", name, percent_of(values)) for name, values in shares if values
        ]
    return table(("split", "images", "figure", "value (95% interval)"), rows), bullets(_beside(facts))


def _beside(facts: Facts) -> list[str]:
    items = []
    if "test" in facts.reports:
        opened = facts.num_test_openings or facts.reports["test"].get("num_test_openings") or 1
        items.append(f"The test split was opened {'once' if opened == 1 else f'{opened} times'} with this model")
    else:
        items.append("The test split was not measured with these weights")
    if facts.soup is not None and (earlier := sum(row["num_test_openings"] for row in facts.soup["ingredients"])):
        items.append(f"The test split was opened {earlier} times before with the runs that were averaged")
    if "val" in facts.reports:
        items.append("The weights were chosen on the validation images, which flatters figures on them")
    for split, report in facts.reports.items():
        if seen := report.get("seen"):
            files = "image is a file" if len(seen) == 1 else "images are files"
            items.append(f"{len(seen):,} {_SPLITS[split]} {files} that the model was fitted to or chosen on")
        if skipped := report.get("skipped"):
            items.append(
                f"{_SPLITS[split].capitalize()} images that could not be read and do not count: {len(skipped):,}"
            )
        if groups := report.get("num_groups"):
            items.append(f"{_SPLITS[split].capitalize()}: intervals take whole subjects, {groups:,} of them")
    return items


def calibration(facts: Facts) -> list[str]:
    """Return how far probabilities, sets and verdicts can be believed, as measured."""
    if not facts.is_calibrated:
        return ["The model is not calibrated: its probabilities, sets and verdicts promise nothing."]
    if facts.added_names:
        return ["Classes were added after the calibration: probabilities, sets and verdicts promise nothing now."]
    items = ["Calibrated by one temperature on validation images; thresholds of sets and unknowns come from them too"]
    split, report = _best_measured(facts)
    trust = (report or {}).get("trust")
    if report is None or not trust:
        return bullets([*items, "What that came to was not measured with these weights"])
    error = figure_of(trust["after"]["calibration_error"])
    if error is not None:
        items.append(
            f"Calibration error on {_SPLITS[split]}: {number(error, digits=3)}, temperature {trust['temperature']:.3g}"
        )
    items.append(f"The promises rest on {trust['num_images']:,} validation images, one of each subject")
    for row in trust["sets"]:
        if row["method"] == "lac" and not row["each_class"] and (size := figure_of(row["mean_size"])):
            held = percent_of(row["coverage"])
            items.append(
                f"Sets at {trust['coverage']:.0%} coverage held the true class in {held} of {_SPLITS[split]} images, "
                f"with {number(size, digits=2)} classes on average"
            )
    return bullets(items)


def limits(facts: Facts) -> list[str]:
    """Return what the figures do not show, and what the model must not be used for."""
    num_classes = len(facts.manifest.class_names) + len(facts.added_names)
    what = f"It knows {num_classes:,} classes and names one of them whatever the photograph shows"
    items = [f"{what}, unless it is asked to tell unknown ones. {_told_unknown(facts)}"]
    if facts.reports:
        items.append(
            "It was measured on images of the same source as its training images; other cameras, places, seasons and "
            "ways to frame a subject were not measured"
        )
    items += _weak_classes(facts)
    items.append(
        "Do not use it where a wrong name does harm, such as what may be eaten or touched, medical, legal or safety "
        "decisions, nor to identify people: nothing was measured for any of these"
    )
    return bullets(items)


def _told_unknown(facts: Facts) -> str:
    _, report = _best_measured(facts)
    unknown = (report or {}).get("unknown") or {}
    rows = [row for row in unknown.get("scores", ()) if row.get("auroc")]
    if not rows:
        return "How well it tells classes that it does not know was not measured"
    best = max(rows, key=lambda row: row["auroc"]["value"])
    area = figure_of(best["auroc"])
    told = "" if area is None else number(area, digits=3)
    return (
        f"On {unknown['num_unknown']:,} images of classes that were held out of training, its score "
        f"`{best['method']}` told them with an area under ROC of {told}"
    )


def _weak_classes(facts: Facts) -> list[str]:
    split, report = _best_measured(facts)
    if report is None:
        return []
    rows = [
        row for row in report["per_class"] if row["accuracy"] is not None and row["num_correct"] < row["num_images"]
    ]
    rows = sorted(rows, key=lambda row: (row["accuracy"], row["class_name"]))[:_NUM_WORST]
    named = "; ".join(
        f"{plain(row['class_name'])} {row['num_correct']} of {row['num_images']} "
        f"({row['low'] * 100:.0f} to {row['high'] * 100:.0f}%)"
        for row in rows
    )
    return [f"Classes are not named equally well; the worst on {_SPLITS[split]}: {named}"] if rows else []


def _best_measured(facts: Facts) -> tuple[str, Mapping[str, Any] | None]:
    """Return the split that says most, test before validation, and its report."""
    split = next((split for split in _SPLITS if split in facts.reports), "test")
    return split, facts.reports.get(split)
