"""Before the first step: look at every image once, divide them, and lay out the run folder."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from finevote.config import Config, dump_config
from finevote.data.duplicates import same_files
from finevote.data.hold_out import choose_classes, images_of_classes, without_classes
from finevote.data.images import check_images, without
from finevote.data.items import list_some
from finevote.data.known_leaks import KnownLeaks, recall_leaks
from finevote.data.opening import data_argument
from finevote.data.registry import open_source, protocol_for
from finevote.data.sampler import check_classes_fill_batch
from finevote.data.splits import describe_setting, describe_split, restore_split, with_validation
from finevote.data.subset import even_share
from finevote.data.taxonomy import with_taxonomy
from finevote.errors import DataError
from finevote.files import atomic_write
from finevote.run_folder import RunFolder, next_run_path
from finevote.types import DataSource, Taxonomy

SPLITS = ("train", "val")  # the test split is never opened by training


def prepare_run(config: Config, data: str | Path, *, out: Path | None, skip_bad: bool, console: Console) -> RunFolder:
    """Check the data and make a run folder with config.yaml, data.json and split.json. The test split stays closed.

    Args:
        config: the run's settings.
        data: what `open_source` takes.
        out: the run folder; None picks the next free `runs/<recipe>-<data name>-<n>`.
        skip_bad: leave unreadable images out, and record them, instead of refusing.
        console: for progress and notes.

    Raises:
        ArgumentError: the triplet wants batches of more classes than there are, classes to hold out are not there, or
            the gallery may hold fewer images than there are classes.
        DataError: images cannot be read (all are listed), or there are fewer than two classes.
        RunError: `out` is taken.
    """
    if out is not None:
        RunFolder.check_free(out)
    source = open_source(data, splits=SPLITS, protocol=config.data.protocol)
    if config.data.taxonomy is not None:
        source = with_taxonomy(source, Path(config.data.taxonomy))
    seed = config.training.seed if config.data.validation_seed is None else config.data.validation_seed
    held_out = choose_classes(source.class_names, config.data.hold_out_classes, seed=seed)
    if config.loss.triplet_weight > 0:
        sizes = {"batch_size": config.training.batch_size, "images_per_class": config.training.images_per_class}
        check_classes_fill_batch(len(source.class_names) - len(held_out), **sizes)
    is_held_out = not source.splits.get("val")
    known = recall_leaks(data_argument(data, source), _image_ids(source))
    unreadable = check_images(source, SPLITS, console=console)
    if unreadable and not skip_bad:
        raise DataError(_describe_unreadable(unreadable))
    whole = with_validation(without(source, set(unreadable)), fraction=config.data.validation_fraction, seed=seed)
    source = without_classes(whole, held_out)
    _check_classes(source)
    if config.gallery.enabled:
        even_share(source.splits["train"], max_images=config.gallery.max_images)  # raises now, not at the end
    setting = describe_setting(source, is_held_out=is_held_out)
    path = out or next_run_path(Path("runs"), f"{slug(config.name)}-{slug(source.name)}")
    is_there = path.exists()
    run = RunFolder.create(path)
    with removed_unless_learned(run, keep_folder=is_there):
        unknown = [record.image_id for record in images_of_classes(whole, held_out, split="val")]
        atomic_write(run.split_json, _json({**describe_split(source), "unknown": {"val": unknown}}))
        saved = _describe_data(data, source, unreadable, setting=setting, held_out=held_out)
        atomic_write(run.data_json, _json(saved))
        atomic_write(run.config_yaml, dump_config(config))
    _print_notes(source, setting, console)
    for line in (*_describe_leaks(known), *_describe_shared(source)):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    return run


@contextmanager
def removed_unless_learned(run: RunFolder, *, keep_folder: bool) -> Iterator[None]:
    """Remove a new run when an error stops it before it has learned anything, so that its name can be reused.

    `keep_folder` leaves the folder itself, empty as it was before the run.
    """
    try:
        yield
    except Exception:
        learned = (run.metrics_jsonl, run.last_checkpoint, run.best_checkpoint)
        if not any(file.exists() for file in learned):
            shutil.rmtree(run.path, ignore_errors=True)
            if keep_folder:
                run.path.mkdir(exist_ok=True)
        raise


def load_data(run: RunFolder, *, data: str | Path | None = None) -> DataSource:
    """Return the training and validation images of a run, as they were divided; `data` says if they have moved.

    Raises:
        DataError: images of the run are missing, or the classes are others.
        RunError: data.json or split.json cannot be read.
    """
    saved = run.read_json(run.data_json)
    place = saved["data"] if data is None else data
    source = open_source(place, splits=SPLITS, protocol=protocol_for(place, saved["protocol"]))
    source = without_classes(source, saved.get("held_out_classes", ()))
    if list(source.class_names) != saved["class_names"]:
        raise DataError(
            f"{source.name} has {len(source.class_names)} classes that are not the {len(saved['class_names'])} of "
            f"{run.path}: bring the data back as it was, or start a new run"
        )
    source = restore_split(without(source, saved["skipped"]), run.read_json(run.split_json))
    taxonomy = saved.get("taxonomy")
    return replace(source, taxonomy=Taxonomy.from_dict(taxonomy) if taxonomy else None)


def move_data(run: RunFolder, data: str | Path) -> None:
    """Write down that the images of a run are now at `data`.

    Raises:
        DataError: they are not all there.
    """
    source = load_data(run, data=data)
    atomic_write(run.data_json, _json({**run.read_json(run.data_json), "data": data_argument(data, source)}))


def _describe_unreadable(unreadable: Mapping[str, str]) -> str:
    noun = "image" if len(unreadable) == 1 else "images"
    lines = "".join(f"  {reason}\n" for reason in unreadable.values())  # each names its path
    return f"{len(unreadable)} {noun} cannot be read:\n{lines}mend them, or leave them out with --skip-bad"


def _check_classes(source: DataSource) -> None:
    num_images = Counter(record.label for record in source.splits["train"])
    if len(num_images) < 2:
        names = ", ".join(source.class_names[label] for label in num_images) or "none"
        raise DataError(
            f"{source.name} has training images of {len(num_images)} classes ({names}), at least 2 are needed"
        )
    empty = [name for label, name in enumerate(source.class_names) if label not in num_images]
    if empty:
        listed = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
        raise DataError(
            f"{source.name} has no readable training image of {len(empty)} of its {len(source.class_names)} classes "
            f"({listed}): add some or remove the classes"
        )


def _describe_data(
    data: str | Path, source: DataSource, unreadable: Mapping[str, str], *, setting: str, held_out: Sequence[str]
) -> dict[str, Any]:
    return {
        "data": data_argument(data, source),
        "name": source.name,
        "protocol": source.protocol,
        "setting": setting,
        "class_names": list(source.class_names),
        "held_out_classes": list(held_out),
        "taxonomy": source.taxonomy and source.taxonomy.to_dict(),
        "num_images": {split: len(records) for split, records in source.splits.items()},
        "skipped": dict(unreadable),
        "notes": list(source.notes),
    }


def _print_notes(source: DataSource, setting: str, console: Console) -> None:
    counts = ", ".join(f"{len(records):,} {split}" for split, records in source.splits.items())
    console.print(f"{source.name}: {len(source.class_names)} classes, {counts} images", highlight=False, markup=False)
    for note in (setting, *source.notes):
        console.print(f"  {note}", highlight=False, markup=False, soft_wrap=True)


def _image_ids(source: DataSource) -> list[str]:
    return [record.image_id for split in SPLITS for record in source.splits.get(split, ())]


def _describe_leaks(known: KnownLeaks | None) -> list[str]:
    """Return what an audit found of the test split, which is not looked at here."""
    if known is None:
        return []
    return [
        f"WARNING: {number:,} of {known.num_images['test']:,} test images have a copy in {split}: figures measured on "
        f"test will flatter (found by an audit, {known.report})"
        for split, number in known.num_leaked.get("test", {}).items()
    ]


def _describe_shared(source: DataSource) -> list[str]:
    """Return a warning if files of val are in train too; files of equal size are read for it, all others not."""
    val = source.splits.get("val", ())
    shared = same_files(source.splits["train"], val)
    if not shared:
        return []
    listed = list_some([again.image_id for _, again in shared], noun="image")
    return [f"WARNING: the same file is in train and in val, which flatters the validation figures: {listed}"]


def slug(name: str) -> str:
    """Return what is left of a name or path when it must do as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(name).stem or name).strip("-") or "data"


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
