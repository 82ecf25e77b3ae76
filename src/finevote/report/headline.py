"""The top of the page, and the protocol that its figure rests on."""

from __future__ import annotations

from typing import Any

from finevote.evaluation.measurement import describe_unread
from finevote.report.blocks import Block, Facts, Folded, Headline, Note, Section, Tile
from finevote.report.material import Material
from finevote.report.text import Values, count, figure_of, interval, place, sentence, share, times

SPLITS = {"train": "training", "val": "validation", "test": "test"}


def headline(material: Material) -> Headline:
    """Return the figure that counts, what it means, and what must be known at once."""
    report = material.report
    found = figure_of(report["top_1"])
    return Headline(
        name="Top-1 accuracy",
        value=share(found.value),
        interval=interval(found),
        bar=place(found, (0.0, 1.0)),
        meaning=_meaning(report),
        tiles=_tiles(report),
        warnings=_warnings(report),
        chance=1 / report["num_classes"],
    )


def _meaning(report: Values) -> str:
    num_right = sum(row["num_correct"] for row in report["per_class"])
    named = f"{num_right:,} of {report['num_images']:,} {SPLITS[report['split']]} images are named right."
    groups = report.get("num_groups")
    how = "" if groups is None else f" (photographs of one of the {groups:,} subjects count together for this)"
    low, high = (f"{end * 100:.1f}" for end in figure_of(report["top_1"])[1:])
    new = f"For new images drawn like these the share lies between {low} and {high}% with 95% confidence{how}."
    guess = f"Guessing among {report['num_classes']:,} classes would name {share(1 / report['num_classes'])} right."
    return f"{named} {new} {guess}"


def _tiles(report: Values) -> list[Tile]:
    tiles = [
        Tile(name, share(report[key]["value"]), interval(report[key]))
        for key, name in (("top_5", "Right among the first five"), ("macro", "Mean over classes"))
        if report.get(key)
    ]
    trust = report.get("trust") or {}
    if shown := trust.get("after") or trust.get("before"):
        error, how = shown["calibration_error"], "" if trust.get("after") else ", not calibrated"
        tiles.append(Tile("Calibration error", share(error["value"]), f"{interval(error)}{how}"))
    if surest := (report.get("selective") or {}).get("risk_of_surest"):
        half = surest[0]
        tiles.append(Tile(f"Wrong of the surest {half['coverage']:.0%}", share(half["value"]), interval(half)))
    if pointing := report.get("pointing") or report.get("on_subject"):
        where = "telling parts" if report.get("pointing") else "subject"
        votes, area = share(pointing["vote_share"]), share(pointing["area_share"])
        tiles.append(
            Tile(
                f"Votes on the {where}",
                f"{pointing['lift']:.1f}\N{MULTIPLICATION SIGN}",
                f"{votes} of them on {area} of the area",
            )
        )
    return tiles


def _warnings(report: Values) -> list[str]:
    found = []
    if seen := report.get("seen"):
        files = "image has its very file" if len(seen) == 1 else "images have their very files"
        text = f"{len(seen):,} {SPLITS[report['split']]} {files} among those that the model was fitted to or chosen on"
        if unseen := report.get("top_1_unseen"):
            text += f"; over the others top-1 is {share(unseen['value'])} ({interval(unseen)})"
        found.append(f"{text}.")
    openings = report.get("num_test_openings") or 0
    if openings > 1:
        found.append(
            f"The test split was measured on {times(openings)} with this run: a figure that was chosen from several "
            "looks is an optimistic one."
        )
    if unread := report.get("num_unread_openings"):
        found.append(sentence(describe_unread(unread)))
    return found


def protocol(material: Material) -> Section:
    """Return what was trained on, chosen on and measured, and how often the test split was looked at."""
    report = material.report
    blocks: list[Block] = [Facts([row for row in _protocol_rows(material) if row[1]])]
    blocks += [Note(sentence(note)) for note in report.get("notes") or ()]
    if skipped := report.get("skipped"):
        listed = Facts([(name, str(reason)) for name, reason in skipped.items()])
        blocks.append(Folded(f"{count(len(skipped), 'image')} could not be read and do not count", [listed]))
    lead = (
        "What the figures were measured on. The best epoch and every threshold come from validation, never from test."
    )
    return Section("protocol", "Protocol", "Protocol", lead, blocks)


def _protocol_rows(material: Material) -> list[tuple[str, str]]:
    report, data, view = material.report, material.data, material.manifest.preprocessing
    counts = [f"{number:,} {SPLITS.get(split, split)}" for split, number in (data.get("num_images") or {}).items()]
    images, middle = (f"{size[1]} \N{MULTIPLICATION SIGN} {size[0]} px" for size in (view.resize, view.image_size))
    whole = ", photographs of a subject together" if report.get("num_groups") else ""
    keep_rate = report.get("keep_rate", 1.0)
    kept = f"{keep_rate:g}: patches with the fewest votes leave the trunk early, merged" if keep_rate < 1 else ""
    return [
        ("Data", str(report["data"])),
        ("Measured on", f"{SPLITS[material.split]}: {count(report['num_images'], 'image')}"),
        ("Protocol", report.get("protocol") or ""),
        ("Trained and chosen on", report.get("setting") or "not recorded"),
        ("Images of the run", ", ".join(counts)),
        ("Classes held out", ", ".join(data.get("held_out_classes") or ())),
        ("Images as seen", f"resized to {images}, the middle {middle} of it"),
        ("Keep rate", kept),
        ("Test split", _describe_openings(report)),
        ("Copies of training images", _describe_seen(report)),
        ("Intervals", f"95%, {report['top_1']['method']} for accuracies{whole}"),
    ]


def _describe_openings(report: Values) -> str:
    openings: Any = report.get("num_test_openings")
    if openings is None:
        return "not opened for this page; the figures are of validation, on which the epoch was chosen"
    return f"opened {times(openings)} with this run, by its ledger"


def _describe_seen(report: Values) -> str:
    seen = report.get("seen")
    if seen is None:
        return "not known: the training images were not there to compare with"
    return f"{count(len(seen), 'image')} of the split, by file" if seen else "none, by file"
