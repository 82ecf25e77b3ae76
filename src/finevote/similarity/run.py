"""`finevote similarity`: a run's layers, budget and votes looked into, and written into the run."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from finevote.build import build_eval_loader
from finevote.bundle.manifest import WEIGHTS_NAME
from finevote.data.images import find_unreadable, without
from finevote.errors import ArgumentError, DataError
from finevote.evaluation.cka import FEWEST_IMAGES, cka_map, minibatch_cka_map
from finevote.evaluation.rows import subject_names
from finevote.explanation.figures import save_figure
from finevote.explanation.similarity import Part, budget_lines, cka_maps, vote_shares
from finevote.files import atomic_write, storage_errors
from finevote.measure.opening import check_split, enter_in_ledger, open_split
from finevote.predictor import Predictor
from finevote.progress import Meter
from finevote.run_folder import RunFolder
from finevote.similarity.features import LayerFeatures, read_layers
from finevote.similarity.findings import ESTIMATES, KINDS, Similarity, VoteFindings, budget_steps, summarize_votes
from finevote.training.telemetry import MetricsLog
from finevote.types import DataSource, Record

NUM_IMAGES = 1000
MINIBATCH = 64
_SEED = 0
_BATCH = 32
CKA_NAME, BUDGET_NAME, VOTES_NAME, JSON_NAME = "cka.png", "budget.png", "votes.png", "similarity.json"


def measure_similarity(
    run: Path | str,
    *,
    split: str = "val",
    data: str | Path | None = None,
    num_images: int = NUM_IMAGES,
    out: Path | None = None,
    on_found: Callable[[Similarity], object] | None = None,
) -> tuple[Similarity, Path]:
    """Compare a run's layers on images of a split, and tell how its budget moved and who carries its votes.

    Writes `cka.png`, `similarity.json` and, of a run that votes, `budget.png` and `votes.png` into the folder that is
    returned with what was found. A look at the test split is entered in `test_ledger.jsonl`.

    Args:
        run: a folder that `finevote fit` has finished.
        split: "val", as it was divided for the run, or "test".
        data: where the data set lies now, if it has moved.
        num_images: at most, drawn from the split with a fixed seed.
        out: the folder to write; None for `similarity/` of the run.
        on_found: called with what was found before it is written, so that it is not lost if that fails.

    Raises:
        ArgumentError: there is no such split, or fewer than four images are asked for.
        BundleError: the bundle is missing or not as it was written.
        DataError: the data set lacks the split or images of it, or has other classes than the run.
        RunError: `run` is no run.
        StorageError: the folder cannot be written.
    """
    check_split(split)
    if num_images < FEWEST_IMAGES:
        raise ArgumentError(f"num_images={num_images} is too few to compare layers by: give {FEWEST_IMAGES} or more")
    if out is not None and out.exists() and not out.is_dir():
        raise ArgumentError(f"out={out} is a file: give a folder")
    folder = RunFolder.open(Path(run))
    predictor = Predictor.load(folder.path, device="auto")
    source = open_split(folder, predictor.bundle, split=split, data=data)
    source = _readable(choose_images(source, split, num_images=num_images), split)
    records = source.splits[split]
    features = _read(predictor, source, records, folder=folder, split=split)
    found = _find(folder, predictor, source, features, split=split)
    if on_found is not None:
        on_found(found)
    return found, _write(found, out or folder.similarity)


def choose_images(source: DataSource, split: str, *, num_images: int) -> DataSource:
    """Return the source with at most so many images of a split, drawn with a fixed seed, in their order."""
    records = source.splits[split]
    rows = np.sort(np.random.default_rng(_SEED).permutation(len(records))[:num_images])
    return replace(source, splits={split: tuple(records[row] for row in rows)})


def _readable(source: DataSource, split: str) -> DataSource:
    """Return the source without images that cannot be read, if enough are left."""
    source = without(source, find_unreadable(source, source.splits[split]))
    if (found := len(source.splits[split])) < FEWEST_IMAGES:
        raise DataError(
            f"{source.name} has {found} {split} images that can be read: comparing layers takes {FEWEST_IMAGES} or more"
        )
    return source


def _read(
    predictor: Predictor, source: DataSource, records: Sequence[Record], *, folder: RunFolder, split: str
) -> LayerFeatures:
    model, bundle = predictor.model, predictor.bundle
    loader = build_eval_loader(
        records,
        read=source.read,
        preprocessing=predictor.preprocessing,
        batch_size=_BATCH,
        num_workers=bundle.config.data.num_workers,
    )
    if split == "test":
        enter_in_ledger(
            folder,
            bundle.manifest,
            protocol=source.protocol,
            keep_rate=model.keep_rate,
            num_images=len(records),
            purpose="similarity",
        )
    with Meter(f"similarity {split}", total=len(records)) as meter:
        return read_layers(model, loader, device=predictor.device, advance=meter.advance)


def _find(
    folder: RunFolder, predictor: Predictor, source: DataSource, features: LayerFeatures, *, split: str
) -> Similarity:
    bundle, records, votes = predictor.bundle, source.splits[split], features.votes
    layers = {"cls": features.cls, "patches": features.patches}
    return Similarity(
        run=str(folder.path),
        data=source.name,
        split=split,
        num_images=len(records),
        weights_sha256=bundle.manifest.files[WEIGHTS_NAME].sha256,
        keep_rate=predictor.model.keep_rate,
        batch_size=MINIBATCH,
        seed=_SEED,
        layers=features.names,
        cka={
            kind: {
                "minibatch": minibatch_cka_map(of_kind, batch_size=MINIBATCH, seed=_SEED),
                "standard": cka_map(of_kind),
            }
            for kind, of_kind in layers.items()
        },
        budget=() if votes is None else budget_steps(MetricsLog(folder.metrics_jsonl).rows()),
        moves_by=None if votes is None else bundle.config.model.voting.dynamic_selection,
        votes=None if votes is None else summarize_votes(votes, groups=subject_names(records)),
    )


def _write(found: Similarity, folder: Path) -> Path:
    """Write the pictures, then the numbers, which vouch for them; return the folder."""
    about = f"{found.num_images:,} {found.split} images of {found.data}"
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name in (JSON_NAME, BUDGET_NAME, VOTES_NAME):  # of an earlier look
            (folder / name).unlink(missing_ok=True)
    maps = {KINDS[kind]: {ESTIMATES[name]: found.cka[kind][name] for name in ESTIMATES} for kind in KINDS}
    subtitle = (
        f"1 is alike; unbiased: over minibatches of {min(found.batch_size, found.num_images)}, standard: over all "
        f"images at once; {about}"
    )
    save_figure(cka_maps(maps, found.layers, title=found.cka_summary(), subtitle=subtitle), folder / CKA_NAME)
    if found.budget:
        epochs, counts = zip(*found.budget, strict=True)
        subtitle = f"tokens that each layer forwards in training, {sum(counts[0])} in all"
        figure = budget_lines(epochs, counts, title=found.budget_summary(), subtitle=subtitle)
        save_figure(figure, folder / BUDGET_NAME)
    if found.votes is not None:
        save_figure(_draw_votes(found.votes, about), folder / VOTES_NAME)
    text = json.dumps(found.to_dict(), indent=1, ensure_ascii=False)
    atomic_write(folder / JSON_NAME, text + "\n")
    return folder


def _draw_votes(votes: VoteFindings, about: str) -> Figure:
    parts = [Part(offered, *key) for offered, key in zip(votes.offered, votes.key, strict=True)]
    subtitle = (
        f"{votes.head_summary()} (orange at the right); at the left, orange: offered, black: 95% interval; {about}"
    )
    return vote_shares(
        parts, votes.heads, area=votes.area, title=votes.summary(), subtitle=f"{subtitle[:1].upper()}{subtitle[1:]}"
    )
