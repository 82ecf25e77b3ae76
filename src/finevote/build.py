"""The composition root: settings in, objects out. Nothing below this module sees a config."""

import copy
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from finevote.backbones.catalogue import build_backbone
from finevote.backbones.layer import VitLayer
from finevote.backbones.origin import weights_origin
from finevote.backbones.published import WeightsOrigin
from finevote.backbones.timm_vit import TimmVit
from finevote.config import CacheKind, Config, DataConfig, ModelConfig, Size, VotingConfig
from finevote.data.dataset import PhotoDataset, collate
from finevote.data.sampler import BalancedBatches, EvaluationBatches, ShuffledBatches
from finevote.data.transforms import Transform, eval_transform, train_transform
from finevote.errors import ArgumentError
from finevote.losses.classification import JointLoss
from finevote.model import FineGrainedClassifier
from finevote.types import Batch, DataSource, Preprocessing, Record
from finevote.voting.head import PlainHead, VotingHead
from finevote.voting.keeping import TokenReduction
from finevote.voting.refinement import RefinementStage
from finevote.voting.selection import TokenBudget
from finevote.voting.smoothing import BallotSmoothing

_logger = logging.getLogger(__name__)

_PUBLISHED_RESIZE = 600 / 448  # both published pipelines squash to 600 px and crop 448
_REFINE_STREAM, _KEY_STREAM = 400_001, 400_002  # random streams far above the trunk's


def build_model(config: Config, *, num_classes: int, load_weights: bool = True) -> FineGrainedClassifier:
    """Build the classifier of a run.

    Args:
        config: the run's settings.
        num_classes: C.
        load_weights: False leaves the backbone random, for weights that come from a checkpoint or a bundle.

    Raises:
        ArgumentError, UnsupportedModelError, WeightsError: as `build_backbone`; or votes that the image cannot hold.
    """
    model, image_size = config.model, as_pair(config.data.image_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        backbone = _build_backbone(config, load_weights=load_weights)
        if backbone.image_size != image_size:
            _logger.warning("image size %s px is rounded to %s: whole patches", image_size, backbone.image_size)
        classifier = _build_classifier(backbone.dim, num_classes, zero=model.zero_init_classifier)
        if not model.voting.enabled:
            return FineGrainedClassifier(backbone, PlainHead(backbone.take_norm(), classifier, dropout=model.dropout))
        head = _build_voting_head(backbone, classifier, model, training_keep_rate=config.training.keep_rate)
        return FineGrainedClassifier(backbone, head)


def build_frozen_backbone(config: Config) -> TimmVit:
    """Build the backbone of a run as it is before the first step, whole and in evaluation mode.

    Raises:
        ArgumentError, UnsupportedModelError, WeightsError: as `build_backbone`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.training.seed)
        return _build_backbone(config, load_weights=True).eval()


def describe_weights(model: ModelConfig) -> WeightsOrigin:
    """Return where a run's pretrained weights come from and on what terms."""
    return weights_origin(model.backbone, model.weights)


def build_preprocessing(config: DataConfig, backbone: TimmVit) -> Preprocessing:
    """Return how photographs are made into tensors for this backbone."""
    rows, columns = backbone.image_size
    resize = (
        (round(rows * _PUBLISHED_RESIZE), round(columns * _PUBLISHED_RESIZE))
        if config.resize is None
        else as_pair(config.resize)
    )
    if resize[0] < rows or resize[1] < columns:
        raise ArgumentError(f"data.resize={resize} px is smaller than the image size {(rows, columns)}: enlarge it")
    return Preprocessing(
        image_size=(rows, columns),
        resize=resize,
        mean=backbone.mean,
        std=backbone.std,
        decoding=config.decoding,
    )


def build_train_loader(
    config: Config,
    source: DataSource,
    preprocessing: Preprocessing,
    *,
    rank: int = 0,
    world_size: int = 1,
    cache_folder: Path | None = None,
) -> DataLoader[Batch]:
    """Return the loader of training batches; P x K batches whenever the triplet weight is above 0.

    Its `batch_sampler` has `epoch` and `start_batch`, to be set before each pass.
    """
    records, data, training = source.splits["train"], config.data, config.training
    transform = train_transform(
        preprocessing,
        crop=data.crop,
        crop_scale=data.crop_scale,
        flip=data.flip,
        color_jitter=data.color_jitter,
        randaugment=data.randaugment,
        randaugment_magnitude=data.randaugment_magnitude,
        random_erasing=data.random_erasing,
    )
    dataset = PhotoDataset(
        records,
        read=source.read,
        preprocessing=preprocessing,
        transform=transform,
        cache=data.cache,
        cache_folder=cache_folder,
        seed=training.seed,
    )
    shared: dict[str, Any] = {"batch_size": training.batch_size, "seed": training.seed, "rank": rank}
    sampler: ShuffledBatches | BalancedBatches
    if config.loss.triplet_weight > 0:
        labels = [record.label for record in records]
        sampler = BalancedBatches(labels, images_per_class=training.images_per_class, world_size=world_size, **shared)
    else:
        sampler = ShuffledBatches(len(records), world_size=world_size, **shared)
    return _loader(dataset, sampler, num_workers=data.num_workers)


def build_eval_loader(
    records: Sequence[Record],
    *,
    read: Callable[[Record], Image.Image],
    preprocessing: Preprocessing,
    batch_size: int,
    num_workers: int,
    rank: int = 0,
    world_size: int = 1,
    cache: CacheKind = "none",
    cache_folder: Path | None = None,
    transform: Transform | None = None,
) -> DataLoader[Batch]:
    """Return a loader that gives each record exactly once over all ranks, as the model takes it.

    `transform` makes what is loaded of a resized image, uint8 (3, rows, columns); None for the centre, normalised.
    """
    dataset = PhotoDataset(
        records,
        read=read,
        preprocessing=preprocessing,
        transform=transform or eval_transform(preprocessing),
        cache=cache,
        cache_folder=cache_folder,
        seed=0,
    )
    sampler = EvaluationBatches(len(records), batch_size=batch_size, rank=rank, world_size=world_size)
    return _loader(dataset, sampler, num_workers=num_workers)


def build_loss(config: Config) -> JointLoss:
    """Return the objective."""
    loss = config.loss
    return JointLoss(
        complement_weight=loss.complement_weight,
        label_smoothing=loss.label_smoothing,
        triplet_weight=loss.triplet_weight,
        triplet_margin=loss.triplet_margin,
        triplet_normalize=loss.triplet_normalize,
    )


def as_pair(size: Size) -> tuple[int, int]:
    """Return rows, columns of a side or of a pair, px."""
    return (size, size) if isinstance(size, int) else size


class _Loader(DataLoader[Batch]):
    """Starts its processes with Ctrl-C put off: in the middle of a fork it would be lost, and end the new process."""

    def __iter__(self) -> Any:
        with _put_off_interrupts():
            return super().__iter__()


def _loader(dataset: Any, sampler: Any, *, num_workers: int) -> DataLoader[Batch]:
    return _Loader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        persistent_workers=num_workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_leave_signals_to_the_main_process,
    )


@contextmanager
def _put_off_interrupts() -> Iterator[None]:
    """Let a Ctrl-C that comes inside the block act at its end; only the main thread has a say in signals."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    caught: list[FrameType | None] = []
    signal.signal(signal.SIGINT, lambda _, frame: caught.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        before(signal.SIGINT, caught[0])


def _leave_signals_to_the_main_process(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; a loader process that died of it would fail the step to be saved."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _build_backbone(config: Config, *, load_weights: bool) -> TimmVit:
    model = config.model
    return build_backbone(
        model.backbone,
        image_size=as_pair(config.data.image_size),
        weights=model.weights,
        load_weights=load_weights,
        drop_path=model.drop_path,
        timm_args=model.backbone_args,
    )


def _build_classifier(dim: int, num_classes: int, *, zero: bool) -> nn.Linear:
    classifier = nn.Linear(dim, num_classes)
    nn.init.zeros_(classifier.bias)
    if zero:
        nn.init.zeros_(classifier.weight)
    else:
        nn.init.trunc_normal_(classifier.weight, std=0.02)
    return classifier


def _build_voting_head(
    backbone: TimmVit, classifier: nn.Linear, model: ModelConfig, *, training_keep_rate: float
) -> VotingHead:
    voting = model.voting
    last, norm = backbone.detach_last_block()
    if not backbone.layers:
        raise ArgumentError(f"{model.backbone} has one block, voting needs two or more: add blocks or disable voting")
    _check_votes(voting, backbone)

    def stage(wanted: bool, stream: int) -> RefinementStage | None:  # noqa: FBT001
        return _build_stage(last, norm, init=voting.block_init, stream=stream) if wanted else None

    return VotingHead(
        classifier,
        refine=stage(voting.refine, _REFINE_STREAM),
        key=stage(voting.key, _KEY_STREAM),
        smoothing=_build_smoothing(voting),
        budget=TokenBudget(
            initial_rates=voting.initial_rates or [1.0] * len(backbone.layers),
            total=voting.num_selected,
            limit=backbone.num_patches,
            momentum=voting.dynamic_momentum,
            by=voting.dynamic_selection,
        ),
        num_votes_per_head=voting.num_votes_per_head,
        num_key_tokens=voting.num_key_tokens,
        reduction=TokenReduction(
            layers=_reducing_layers(voting.keep_layers, num_layers=len(backbone.layers)),
            rate=voting.keep_rate,
            training_rate=training_keep_rate,
        ),
        merge=voting.merge,
        assist=voting.assist,
        dropout=model.dropout,
    )


def _reducing_layers(blocks: Sequence[int] | None, *, num_layers: int) -> list[int]:
    """Return the indices of the trunk layers after which patches leave, from the numbers of blocks, or by default.

    They come before the last trunk layer, which no patch leaves but the selected.
    """
    if blocks is None:
        depth = num_layers + 1  # with the block that became the two stages
        return sorted({depth * quarter // 4 - 1 for quarter in (1, 2, 3)} & set(range(num_layers - 1)))
    if wrong := [block for block in blocks if not 1 <= block < num_layers]:
        raise ArgumentError(
            f"model.voting.keep_layers={list(blocks)} names block {wrong[0]}, but patches can leave after block 1 to "
            f"{num_layers - 1} of {num_layers} voting layers: choose among these"
        )
    return [block - 1 for block in blocks]


def _build_stage(last: VitLayer, norm: nn.Module, *, init: str, stream: int) -> RefinementStage:
    """Return a stage that starts from the last backbone block and norm, or from random ones of the same shape."""
    layer, own_norm = copy.deepcopy(last).with_stream(stream), copy.deepcopy(norm)
    if init == "random":
        for module in [*layer.modules(), *own_norm.modules()]:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return RefinementStage(layer, own_norm)


def _build_smoothing(voting: VotingConfig) -> BallotSmoothing | None:
    if voting.smoothing == "none":
        return None
    return BallotSmoothing(dilations=voting.dilations, learnable=voting.smoothing == "learnable")


def _check_votes(voting: VotingConfig, backbone: TimmVit) -> None:
    num_layers, num_patches = len(backbone.layers), backbone.num_patches
    if voting.num_votes_per_head > num_patches:
        raise ArgumentError(
            f"model.voting.num_votes_per_head={voting.num_votes_per_head} exceeds {num_patches} patches "
            f"({backbone.grid[0]} x {backbone.grid[1]}): lower it or enlarge the image"
        )
    if voting.initial_rates is not None and len(voting.initial_rates) != num_layers:
        raise ArgumentError(
            f"model.voting.initial_rates has {len(voting.initial_rates)} numbers for {num_layers} voting layers"
        )
