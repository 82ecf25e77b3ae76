"""What people look at first: pairs that are mistaken for each other, and the best, worst and most doubtful images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from finevote.report.blocks import Block, Cell, Column, Gallery, Note, Pair, Pairs, Photo, Section, Table
from finevote.report.choose import Chosen, Mistake, choose, choose_mistakes
from finevote.report.contrasts import Told
from finevote.report.material import Material, pairs_of
from finevote.report.photographs import Shelf, contrast_photo, photograph, training_photo
from finevote.report.text import count

Explain = Callable[[Material, Sequence[Mistake]], Mapping[int, Told]]
NUM_PAIRS, NUM_OF_EACH = 8, 8
_KINDS = {
    "worst": ("Sure and wrong", "Surest of a wrong name: is the label right, and what did it look at?"),
    "doubtful": ("In doubt", "The two likeliest classes are closest together."),
    "best": ("Sure and right", "Surest of the right name, one image of each class first."),
}


def pictures(material: Material, *, explain: Explain | None = None) -> list[Section]:
    """Return the confused pairs, and the best, worst and most doubtful images, none of which is shown twice.

    `explain` tells of mistakes why one class was named and not the other; None leaves that out.
    """
    mistakes = choose_mistakes(material.predictions, pairs_of(material), material.probabilities, limit=NUM_PAIRS)
    shown = {row for one in mistakes for row in (one.row, one.of_predicted, one.of_true) if row is not None}
    chosen = choose(material.probabilities, material.predictions.labels, limit=NUM_OF_EACH, but=shown)
    told = {} if explain is None else explain(material, mistakes)
    return [_confusions(material, mistakes, told), _examples(material, chosen)]


def _missing(material: Material) -> list[Block]:
    return [Note(f"There are no photographs here: {material.no_pictures}", is_warning=True)]


def _confusions(material: Material, mistakes: Sequence[Mistake], told: Mapping[int, Told]) -> Section:
    blocks: list[Block] = []
    lead = "Which classes are mistaken for which, commonest first."
    rows = [
        [Cell(row["true_class"]), Cell(row["predicted_class"]), Cell(f"{row['num_images']:,}", row["num_images"])]
        for row in material.report["confused"]
    ]
    if not rows:
        return Section("confusions", "What it mixes up", "Confusions", "No image is taken for another class.", blocks)
    if material.shelf is None:
        blocks += _missing(material)
    else:
        pairs = [_pair(material, material.shelf, one, told.get(one.row, Told())) for one in mistakes]
        blocks.append(Pairs([pair for pair in pairs if pair.photos]))
        has_gallery = any(near for one in told.values() for near in one.nearest)
        what = "training photographs" if has_gallery else "images of the split"
        lead += (
            f" Beside the surest of the mistakes stand those {what} of either class that the model finds most like it."
        )
    heads = (Column("true class", is_number=False), Column("taken for", is_number=False), Column("images"))
    title = f"The {len(rows)} commonest mistakes" if len(rows) > 1 else "The one mistake"
    blocks.append(Table(title, heads, rows, is_sortable=True))
    return Section("confusions", "What it mixes up", "Confusions", lead, blocks)


def _pair(material: Material, shelf: Shelf, one: Mistake, told: Told) -> Pair:
    true, predicted = material.class_names[one.true], material.class_names[one.predicted]
    show = partial(
        photograph,
        predictions=material.predictions,
        probabilities=material.probabilities,
        class_names=material.class_names,
        shelf=shelf,
        is_of_pair=True,
    )
    mistake = show(one.row)
    others: list[Photo | None] = []
    for near, row in zip(told.nearest, (one.of_predicted, one.of_true), strict=True):
        if near is not None:
            others.append(training_photo(near, shelf.view))
        elif row is not None:
            others.append(show(row))
    why = contrast_photo(told.contrast, mistake.image) if told.contrast is not None and mistake is not None else None
    photos = [photo for photo in (mistake, why, *others) if photo is not None]
    counts = {(row["true_class"], row["predicted_class"]): row["num_images"] for row in material.report["confused"]}
    there = {row["class_name"]: row["num_images"] for row in material.report["per_class"]}
    words = f"{counts.get((true, predicted), 0):,} of {there.get(true, 0):,} images"
    back = counts.get((predicted, true), 0)
    words += f"; the other way round {back:,} of {there.get(predicted, 0):,}" if back else ""
    return Pair(f"{true} taken for {predicted}", words, photos)


def _examples(material: Material, chosen: Chosen) -> Section:
    lead = "The likeliest classes with their probabilities"
    lead += "; discs are final votes, larger where there are more." if material.has_votes else "."
    blocks: list[Block] = []
    shelf = material.shelf
    if shelf is None:
        return Section("examples", "Best, worst and most doubtful", "Examples", lead, _missing(material))
    for kind, (title, about) in _KINDS.items():
        photos = [
            photograph(
                row,
                predictions=material.predictions,
                probabilities=material.probabilities,
                class_names=material.class_names,
                shelf=shelf,
            )
            for row in getattr(chosen, kind)
        ]
        if found := [photo for photo in photos if photo is not None]:
            blocks.append(Gallery(title, about, found))
    if shelf.num_lost:
        blocks.append(Note(f"{count(shelf.num_lost, 'photograph')} could not be read: left out.", is_warning=True))
    return Section("examples", "Best, worst and most doubtful", "Examples", lead, blocks)
