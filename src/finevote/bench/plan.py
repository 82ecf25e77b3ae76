"""What is to be measured, as values. Imports nothing heavy, so that the command's help is quick."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product
from typing import Any

from finevote.errors import ArgumentError


class What(StrEnum):
    """The things that can be measured."""

    OPERATIONS = "operations"
    STEP = "step"
    MEMORY = "memory"
    BREAKDOWN = "breakdown"
    PRECISION = "precision"
    GROWTH = "growth"
    LOADER = "loader"
    STARTUP = "startup"


class Action(StrEnum):
    """What a model is asked to do: classify a batch, or learn from it."""

    FORWARD = "forward"
    STEP = "step"


class Precision(StrEnum):
    """The dtype of the matrix products; bf16 is autocast, as in training."""

    FP32 = "fp32"
    BF16 = "bf16"


class Mode(StrEnum):
    """How the model is run."""

    EAGER = "eager"
    COMPILE = "compile"


class Device(StrEnum):
    """Where; auto is CUDA where there is a GPU, else the CPU."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


BY_DEFAULT = tuple(what for what in What if what is not What.GROWTH)  # which takes longer than all others together
GROWTH_SIZES = (224, 448, 518, 672, 896, 1036)  # px; whole patches of 14 px
GROWTH_CLASSES = (10, 100, 1_000, 10_000)
_HAS_OPTION = {"data.image_size": "--size", "model.backbone": "--backbone"}


@dataclass(frozen=True)
class Case:
    """One cell of the tables: the circumstances that all contenders share."""

    backbone: str
    size: int  # px
    batch: int  # images
    num_classes: int
    action: Action = Action.FORWARD
    precision: Precision = Precision.FP32
    mode: Mode = Mode.EAGER
    device: str = "cpu"
    overrides: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return the fields that every sample of this case carries."""
        return {
            "backbone": self.backbone,
            "size": self.size,
            "batch": self.batch,
            "num_classes": self.num_classes,
            "action": str(self.action),
            "precision": str(self.precision),
            "mode": str(self.mode),
            "device": self.device,
        }

    def __str__(self) -> str:
        """Return the case in a line of text."""
        return (
            f"{self.backbone} {self.size} px, batch {self.batch}, {self.num_classes:,} classes, "
            f"{self.action}, {self.precision}, {self.mode}, {self.device}"
        )


@dataclass(frozen=True)
class Plan:
    """Everything that `finevote bench` was asked for.

    Attributes:
        whats: what is measured, in the order of `What`.
        batch: images at once.
        rounds: how often each contender has its turn, after one to warm up.
        threads: of the CPU; None leaves PyTorch's own number.
        overrides: settings as `fit --set` takes them.
        contenders: more opponents, as MODULE:NAME.
        data: what the loader reads; None for photographs drawn for the purpose.
        workers: loader processes.
    """

    whats: tuple[What, ...] = BY_DEFAULT
    backbones: tuple[str, ...] = ("dinov2_vits14",)
    sizes: tuple[int, ...] = (224, 448)
    batch: int = 8
    actions: tuple[Action, ...] = tuple(Action)
    precisions: tuple[Precision, ...] = (Precision.FP32,)
    modes: tuple[Mode, ...] = (Mode.EAGER,)
    device: str = "cpu"
    rounds: int = 7
    threads: int | None = None
    num_classes: int = 200
    overrides: tuple[str, ...] = ()
    contenders: tuple[str, ...] = ()
    data: str | None = None
    workers: int = 2
    growth_sizes: tuple[int, ...] = field(default=GROWTH_SIZES)
    growth_classes: tuple[int, ...] = field(default=GROWTH_CLASSES)

    def __post_init__(self) -> None:
        _check_overrides(self.overrides)

    def cases(self) -> Iterator[Case]:
        """Yield every combination, the backbone changing slowest."""
        combinations = product(self.backbones, self.sizes, self.precisions, self.modes, self.actions)
        for backbone, size, precision, mode, action in combinations:
            yield self._case(backbone, size, action=action, precision=precision, mode=mode)

    def plain_cases(self, precisions: Sequence[Precision] = (Precision.FP32,)) -> Iterator[Case]:
        """Yield a forward pass, eager, for each backbone, size and precision."""
        for backbone, size, precision in product(self.backbones, self.sizes, precisions):
            yield self._case(backbone, size, precision=precision)

    def growth_cases(self) -> Iterator[Case]:
        """Yield the cases from small to large images, and then from few to many classes at the first size; batch 1."""
        for backbone, action in product(self.backbones, self.actions):
            for size in self.growth_sizes:
                yield self._case(backbone, size, action=action, batch=1)
            for num_classes in self.growth_classes:
                yield self._case(backbone, self.sizes[0], action=action, batch=1, num_classes=num_classes)

    def _case(self, backbone: str, size: int, **changes: Any) -> Case:
        values = {"batch": self.batch, "num_classes": self.num_classes, **changes}
        return Case(backbone, size, device=self.device, overrides=self.overrides, **values)


def _check_overrides(overrides: tuple[str, ...]) -> None:
    for override in overrides:
        name, _, value = override.partition("=")
        if name in _HAS_OPTION:
            raise ArgumentError(f"--set {override}: use {_HAS_OPTION[name]} {value}")
        if name == "model.voting.enabled":
            raise ArgumentError(f"--set {override}: the contender `plain` is the backbone without voting; leave it out")
