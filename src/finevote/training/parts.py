"""What one process trains with, built from the settings and the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn, optim
from torch.utils.data import DataLoader

from finevote.build import build_eval_loader, build_loss, build_model, build_preprocessing, build_train_loader
from finevote.config import Config
from finevote.losses.classification import JointLoss
from finevote.model import FineGrainedClassifier
from finevote.probe.logistic import Linear
from finevote.training.ema import WeightAverage
from finevote.training.micro_batch import auto_micro_batch
from finevote.training.optim import ParameterGroup, build_optimizer, group_parameters
from finevote.types import Batch, DataSource, Preprocessing

if TYPE_CHECKING:
    from lightning.fabric import Fabric


@dataclass(frozen=True)
class Parts:
    """The objects of a training; `average` and `val_loader` are None where there is none.

    `micro_batch` is what `accumulate` takes.
    """

    model: FineGrainedClassifier
    average: WeightAverage[FineGrainedClassifier] | None
    groups: list[ParameterGroup]
    optimizer: optim.Optimizer
    loss: JointLoss
    micro_batch: int | None
    preprocessing: Preprocessing
    train_loader: DataLoader[Batch]
    val_loader: DataLoader[Batch] | None

    @property
    def evaluated_model(self) -> FineGrainedClassifier:
        """The model that is validated and becomes the bundle."""
        return self.average.model if self.average else self.model

    def state_dict(self) -> dict[str, Any]:
        """Return the state of everything that training changes."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average:
            self.average.load_state_dict(state["average"])


def build_parts(
    fabric: Fabric, config: Config, source: DataSource, *, load_weights: bool, classifier: Linear | None = None
) -> Parts:
    """Build this process's share.

    Args:
        fabric: knows the processes.
        config: the run's settings.
        source: the training and validation images.
        load_weights: False where a checkpoint will overwrite them.
        classifier: what the head's classifier starts as; None for the settings' own start.
    """
    rank, world_size, training = fabric.global_rank, fabric.world_size, config.training
    model = build_model(config, num_classes=len(source.class_names), load_weights=load_weights).to(fabric.device)
    if classifier is not None:
        start_from(model.head.classifier, classifier)
    model.train()
    model.freeze_backbone(training.freeze_backbone)
    preprocessing = build_preprocessing(config.data, model.backbone)
    groups = _group(model, config)
    num_rows = training.batch_size // world_size
    micro_batch = (
        auto_micro_batch(fabric, model, image_size=preprocessing.image_size, num_rows=num_rows)
        if training.micro_batch == "auto"
        else training.micro_batch
    )
    return Parts(
        model=model,
        average=WeightAverage(model, decay=training.ema_decay) if training.ema_decay else None,
        groups=groups,
        optimizer=build_optimizer(
            groups, name=config.optim.name, momentum=config.optim.momentum, betas=config.optim.betas
        ),
        loss=build_loss(config),
        micro_batch=micro_batch,
        preprocessing=preprocessing,
        train_loader=build_train_loader(config, source, preprocessing, rank=rank, world_size=world_size),
        val_loader=build_eval_loader(
            source.splits["val"],
            read=source.read,
            preprocessing=preprocessing,
            batch_size=micro_batch or num_rows,
            num_workers=config.data.num_workers,
            rank=rank,
            world_size=world_size,
            cache=config.data.cache,
        )
        if source.splits.get("val")
        else None,
    )


def start_from(classifier: nn.Linear, linear: Linear) -> None:
    """Give the head's classifier the weights of a regression on CLS after the final norm, which is what it reads."""
    with torch.no_grad():
        classifier.weight.copy_(torch.from_numpy(linear.weight))
        classifier.bias.copy_(torch.from_numpy(linear.bias))


def _group(model: FineGrainedClassifier, config: Config) -> list[ParameterGroup]:
    optim = config.optim
    return group_parameters(
        model, lr=optim.lr, new_lr=optim.new_lr, layer_decay=optim.layer_decay, weight_decay=optim.weight_decay
    )
