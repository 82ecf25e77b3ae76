"""A measured run that was never trained or measured: made-up answers, and photographs of noise."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from finevote.bundle.manifest import Manifest
from finevote.errors import DataError
from finevote.evaluation.calibrator import calibrate
from finevote.evaluation.measurement import Measurement
from finevote.evaluation.pointing import PointingFigure
from finevote.evaluation.probes import ProbeAnswers, ProbeName
from finevote.evaluation.report import make_report
from finevote.measure.sections import find_sections
from finevote.report.material import Material
from finevote.report.photographs import Shelf
from finevote.run_folder import RunFolder
from finevote.types import DataSource, Predictions, Preprocessing, Record, Taxonomy
from tests.models import tiny_config

VIEW = Preprocessing((32, 32), (36, 36), (0.5,) * 3, (0.5,) * 3)
HOSTILE = '<script>alert(1)</script> & "x"'
NAMES = ("alder", "birch", HOSTILE, "beech 10", "beech 2", "oak")
GRID = (4, 4)


def make_predictions(*, num_images=120, num_classes=6, has_votes=True, seed=0):
    """Return answers of which about two in three are right."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % num_classes
    logits = rng.normal(0, 1, (num_images, num_classes)).astype(np.float32)
    logits[np.arange(num_images), labels] += 1.6
    return Predictions(
        tuple(f"test/{number}.jpg" for number in range(num_images)),
        labels,
        logits,
        final_votes=rng.integers(0, 4, (num_images, GRID[0] * GRID[1])).astype(np.float32) if has_votes else None,
        grid=GRID if has_votes else None,
        embeddings=rng.normal(size=(num_images, 8)).astype(np.float32),
    )


def make_report_of(predictions, class_names, *, split="test", calibration=None, **circumstances):
    taxonomy = Taxonomy(("species", "genus"), tuple((name, name[:1]) for name in class_names))
    probes = ProbeAnswers(
        "dinov2_vits14",
        100,
        (ProbeName("kNN", "cls", "CLS", 5),),
        predictions.image_ids,
        predictions.labels[None] * 0,
    )
    measurement = Measurement(
        run="runs/one",
        data="trees",
        split=split,
        bundle_sha256="b" * 64,
        weights_sha256="c" * 64,
        setting="trained on 60 images, epoch chosen on 30 of validation",
        notes=("one tree comes twice",),
        seen={predictions.image_ids[0]: "train/0.jpg"},
        num_test_openings=2 if split == "test" else None,
        pointing=PointingFigure(0.3, 0.06, 5.0, 120),
        **circumstances,
    )
    sections = find_sections(predictions, calibration, split=split, taxonomy=taxonomy, probes=probes)
    return json.loads(
        json.dumps(make_report(predictions, measurement, class_names=class_names, sections=sections).to_dict())
    )


def make_shelf(predictions, *, size=(60, 40), broken=()):
    """Return photographs of noise, each from its own number; those of `broken` ids cannot be read."""

    def read(record):
        if record.image_id in broken:
            raise DataError(f"cannot read the image {record.image_id}")
        rng = np.random.default_rng(record.label + 1000 * int(record.image_id.split("/")[1].split(".")[0]))
        small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), np.uint8))
        return small.resize(size, Image.Resampling.BICUBIC)

    records = {
        image_id: Record(image_id, int(label))
        for image_id, label in zip(predictions.image_ids, predictions.labels, strict=True)
    }
    source = DataSource("trees", NAMES, {"test": tuple(records.values())}, read)
    return Shelf(source, records, VIEW)


def make_epochs(num_epochs=5):
    return [
        {
            "kind": "epoch", "epoch": number, "step": 10 * number, "loss": 2.0 / number, "train_top1": 0.1 * number,
            "val_top1": 0.12 * number, "val_num_images": 30, "lr_min": 1e-4, "lr_max": 1e-3, "images_per_s": 20.0,
            "seconds": 12.0, "budget": [6, 5 + number % 2, 4],
        }
        for number in range(1, num_epochs + 1)
    ]  # fmt: skip


def make_material(
    folder: Path, *, class_names=NAMES, num_images=120, has_votes=True, is_calibrated=True, has_shelf=True, **changes
):
    predictions = make_predictions(num_images=num_images, num_classes=len(class_names), has_votes=has_votes)
    validation = make_predictions(num_images=num_images, num_classes=len(class_names), seed=1)
    calibration = calibrate(validation) if is_calibrated else None
    config = tiny_config()
    manifest = Manifest(
        format_version=1,
        class_names=class_names,
        preprocessing=VIEW,
        config=config.model_dump(mode="json"),
        versions={"torch": "2.9"},
        details={},
        files={},
        sha256="b" * 64,
    )
    values = {
        "folder": RunFolder(folder),
        "split": "test",
        "report": make_report_of(predictions, class_names, calibration=calibration),
        "predictions": predictions,
        "class_names": class_names,
        "manifest": manifest,
        "calibration": calibration,
        "config": config,
        "data": {"data": "trees", "num_images": {"train": 60, "val": 30}},
        "shelf": make_shelf(predictions) if has_shelf else None,
        "no_pictures": "" if has_shelf else "trees are gone",
        "epochs": make_epochs(),
    }
    return Material(**{**values, **changes})
