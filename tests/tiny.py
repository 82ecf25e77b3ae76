"""A run that was never trained: photographs of flat colours, a tiny voting classifier, its bundle."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from finevote.build import build_model, build_preprocessing
from finevote.bundle.write import save_bundle
from finevote.config import Config
from finevote.model import FineGrainedClassifier
from finevote.training.prepare import prepare_run
from finevote.types import Preprocessing
from tests.training.helpers import changed, make_photographs, tiny_config

CLASSES = ("blue", "green", "red")


def make_config() -> Config:
    return changed(tiny_config(), "model", zero_init_classifier=False)


def make_model(config: Config) -> tuple[FineGrainedClassifier, Preprocessing]:
    """Return a classifier with random weights whose budget has moved away from its start."""
    model = build_model(config, num_classes=len(CLASSES))
    for _ in range(20):
        model.update_budget(torch.tensor([8, 1, 1]))
    return model.eval(), build_preprocessing(config.data, model.backbone)


def write_bundle(folder: Path, *, config: Config | None = None, class_names: Sequence[str] = CLASSES) -> Path:
    config = config or make_config()
    model, preprocessing = make_model(config)
    return save_bundle(
        folder, model, config=config, class_names=class_names, preprocessing=preprocessing, details={"data": "colours"}
    )


def write_run(folder: Path, *, data: str | Path, class_names: Sequence[str] = CLASSES) -> Path:
    """Write a run as `fit` leaves it, with an untrained bundle of three classes."""
    run = prepare_run(make_config(), data, out=folder, skip_bad=True, console=Console(quiet=True))
    write_bundle(run.bundle, class_names=class_names)
    return folder


def write_photographs(root: Path, *, num_test: int = 0) -> Path:
    """Write train/, val/ and, with `num_test` images a class, test/."""
    make_photographs(root)
    if num_test:
        extra = make_photographs(root.with_name("extra"), num_train=num_test, num_val=0)
        (extra / "train").rename(root / "test")
    return root
