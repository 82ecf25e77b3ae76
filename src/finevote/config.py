"""A run's settings: read from a YAML recipe, changed by `--set a.b=c`, checked as a whole. Imports no torch."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from finevote.errors import ConfigError, suggest

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
KeepRate = Annotated[float, Field(gt=0.0, le=1.0)]
Side = Annotated[int, Field(ge=1, le=4096)]
Size = Side | tuple[Side, Side]
CacheKind = Literal["auto", "none", "memory", "disk"]


class _Section(BaseModel):
    """Frozen settings; an unknown name is an error, and so is a number that is not finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Section):
    """Which pixels the model sees, and how they are read."""

    image_size: Size = Field(448, description="px the model sees: a side, or [rows, columns]; rounded to patches")
    resize: Size | None = Field(None, description="px before cropping (aspect not kept); null: image_size x 600/448")
    crop: Literal["random", "random_resized", "center"] = Field("random", description="how training images are cut")
    crop_scale: tuple[Fraction, Fraction] = Field((0.35, 1.0), description="area share kept by random_resized")
    flip: Fraction = Field(0.5, description="probability of a horizontal flip")
    color_jitter: Annotated[float, Field(ge=0.0)] = Field(0.4, description="brightness, contrast, saturation; 0: off")
    randaugment: Annotated[int, Field(ge=0)] = Field(0, description="operations an image; 0: off")
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30)] = Field(9, description="0 to 30")
    random_erasing: Fraction = Field(0.0, description="probability of erasing a rectangle")
    mixup: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="Beta parameter, blends within a process's rows; 0: off; not with the triplet"
    )
    cutmix: Annotated[float, Field(ge=0.0)] = Field(
        0.0, description="Beta parameter, blends within a process's rows; 0: off; not with the triplet"
    )
    protocol: str | None = Field(None, description="how a published set is divided; null: the first of its protocols")
    validation_fraction: Rate = Field(
        0.2,
        description="share of training images held out where there is no validation split; 0: none, keep last epoch",
    )
    validation_seed: Annotated[int, Field(ge=0)] | None = Field(
        None, description="chooses the images held out; null: training.seed"
    )
    hold_out_classes: Annotated[int, Field(ge=0)] | tuple[str, ...] = Field(
        0, description="classes not trained on, whose images stand for the unknown: how many (seeded), or their names"
    )
    taxonomy: str | None = Field(
        None, description="a table of class, parent, grandparent, ...; null: the taxonomy.csv beside the data, if any"
    )
    decoding: Literal["exact", "fast"] = Field(
        "fast", description="fast: large JPEGs decoded at a part of their size, resized by torch; pixels are close"
    )
    cache: CacheKind = Field(
        "auto",
        description="where decoded images are kept; auto: in memory if they take a tenth of what is free, or less",
    )
    num_workers: Annotated[int, Field(ge=0)] = Field(2, description="loader processes; 0: read in the main process")


class VotingConfig(_Section):
    """The voting head; every mechanism can be switched off by itself."""

    enabled: bool = Field(default=True, description="false: the plain backbone with a linear classifier")
    num_votes_per_head: Annotated[int, Field(ge=1)] = Field(24, description="v: patches each head votes for")
    num_selected: Annotated[int, Field(ge=1)] = Field(126, description="T: tokens forwarded by all layers together")
    num_key_tokens: Annotated[int, Field(ge=1)] = Field(24, description="K: tokens kept by the second vote")
    smoothing: Literal["fixed", "learnable", "none"] = Field("fixed", description="how ballots are smoothed")
    dilations: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = Field(
        (1, 2, 4), description="scales; [1]: single-scale"
    )
    merge: bool = Field(default=False, description="merge each layer's unselected patches into one token")
    refine: bool = Field(default=True, description="cross-layer refinement block")
    key: bool = Field(default=True, description="key block over the second vote's tokens")
    assist: bool = Field(default=True, description="add the assist logits to the part logits")
    block_init: Literal["pretrained", "random"] = Field(
        "pretrained", description="refinement and key blocks start from the last backbone block, or at random"
    )
    dynamic_selection: Literal["off", "yield", "count"] = Field(
        "yield", description="move the budget by picks per token offered, or by raw picks (as published)"
    )
    dynamic_warmup_epochs: Annotated[int, Field(ge=0)] = Field(10, description="epochs before the budget moves")
    dynamic_momentum: Fraction = Field(1e-3, description="share of the new rates in each update")
    keep_rate: KeepRate = Field(
        1.0, description="share of patches kept at each of keep_layers in use, the rest merged; 1: all, exact"
    )
    keep_layers: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="blocks, from 1, after which patches leave; null: at 1/4, 1/2 and 3/4 of the depth"
    )
    initial_rates: tuple[Annotated[float, Field(gt=0.0)], ...] | None = Field(
        None, description="one positive number a voting layer; null: uniform"
    )

    @field_validator("dynamic_selection", mode="before")
    @classmethod
    def _read_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # YAML reads a bare off as false


class ModelConfig(_Section):
    """The backbone and the head."""

    backbone: str = Field("dinov2_vitb14", description="a short name or any timm ViT")
    weights: str = Field("auto", description="none, auto, official, a file, an address, or a hub name (hf-hub:...)")
    backbone_args: dict[str, Any] = Field({}, description="passed to timm.create_model, e.g. {depth: 6}")
    drop_path: Rate = Field(0.0, description="stochastic depth of the last block, rising linearly from 0")
    dropout: Rate = Field(0.0, description="on the features that enter the classifier")
    zero_init_classifier: bool = Field(default=True, description="false: truncated normal with std 0.02")
    classifier_from_probe: bool = Field(
        default=False, description="start the classifier as the probe's logistic regression on CLS (training.probe)"
    )
    voting: VotingConfig = VotingConfig()


class LossConfig(_Section):
    """(1 - a) CE(part) + a CE(complement) + w x triplet."""

    complement_weight: Fraction = Field(0.4, description="a")
    label_smoothing: Rate = Field(0.0, description="share of the target spread over all classes")
    triplet_weight: Annotated[float, Field(ge=0.0)] = Field(0.1, description="w; 0: off, and no P x K sampling")
    triplet_margin: Annotated[float, Field(gt=0.0)] | Literal["soft"] = Field(1.0, description="a distance, or soft")
    triplet_normalize: bool = Field(default=False, description="compare unit-length embeddings")
    triplet_warmup_epochs: Annotated[int, Field(ge=0)] = Field(0, description="epochs over which w rises from 0")


class OptimConfig(_Section):
    """The optimiser and its schedule."""

    name: Literal["adamw", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0.0)] = Field(1e-5, description="peak rate of the backbone's last block")
    new_lr: Annotated[float, Field(gt=0.0)] | None = Field(None, description="peak rate of new blocks; null: lr")
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(1.0, description="factor per block towards the input")
    weight_decay: Annotated[float, Field(ge=0.0)] = Field(0.05, description="not on biases, norms and tokens")
    momentum: Rate = Field(0.9, description="SGD only; Nesterov")
    betas: tuple[Rate, Rate] = Field((0.9, 0.999), description="AdamW only")
    warmup_epochs: Annotated[float, Field(ge=0.0)] = Field(0.0, description="linear rise from 0")
    final_lr_factor: Fraction = Field(0.0, description="the cosine ends at this share of the peak")
    clip_norm: Annotated[float, Field(gt=0.0)] | None = Field(1.0, description="largest gradient norm; null: off")


class TrainingConfig(_Section):
    """The loop."""

    epochs: Annotated[int, Field(ge=1)] = 50
    batch_size: Annotated[int, Field(ge=1)] = Field(32, description="images an optimiser step, over all processes")
    micro_batch: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        None,
        description="images held at once by a process: memory only, same gradients; null: its share; auto: what fits",
    )
    images_per_class: Annotated[int, Field(ge=2)] = Field(4, description="K of the P x K batches of the triplet")
    keep_rate: KeepRate = Field(1.0, description="as model.voting.keep_rate, in training")
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = Field(
        default=False,
        description="compile the model (torch.compile): minutes once, then quicker steps, above all on GPUs",
    )
    ema_decay: Rate = Field(0.0, description="of the averaged weights that are evaluated; 0: off")
    freeze_backbone: bool = Field(default=False, description="train the new blocks and the classifier only")
    head_only_epochs: Annotated[int, Field(ge=0)] = Field(0, description="first epochs with the backbone frozen")
    validate_every: Annotated[int, Field(ge=1)] = Field(1, description="epochs between validations")
    probe: Literal["auto", "on", "off"] = Field(
        "auto", description="before the first step, measure the frozen backbone; auto: if its weights are pretrained"
    )
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0

    @field_validator("probe", mode="before")
    @classmethod
    def _read_switch(cls, value: Any) -> Any:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value  # as YAML reads them


class GalleryConfig(_Section):
    """The training images that the bundle remembers, to hold answers against."""

    enabled: bool = Field(default=True, description="keep their embeddings, names and paths in the bundle")
    thumbnail_px: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="longer side of small pictures that go with the bundle; 0: none, photographs stay where they are"
    )
    max_images: Annotated[int, Field(ge=1)] | None = Field(
        50_000, description="at most, each class an even share; null: all"
    )


class Config(_Section):
    """Everything that a run depends on besides the data."""

    name: str = "custom"
    source: str = Field("", description="where the settings come from")
    hardware: str = Field("", description="what they were meant for or measured on")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optim: OptimConfig = OptimConfig()
    training: TrainingConfig = TrainingConfig()
    gallery: GalleryConfig = GalleryConfig()

    @model_validator(mode="after")
    def _check_combinations(self) -> Config:
        problems = [
            *_triplet_problems(self.data, self.loss, self.training),
            *_voting_problems(self.model.voting),
            *_keeping_problems(self.model.voting, self.training),
            *_probe_problems(self),
        ]
        low, high = self.data.crop_scale
        if not 0 < low <= high:
            problems.append(f"data.crop_scale={[low, high]} must be two shares of the area, 0 < low <= high <= 1")
        if self.training.head_only_epochs > self.training.epochs:
            problems.append(
                f"training.head_only_epochs={self.training.head_only_epochs} exceeds epochs={self.training.epochs}"
            )
        if self.optim.warmup_epochs > self.training.epochs:
            problems.append(f"optim.warmup_epochs={self.optim.warmup_epochs:g} exceeds epochs={self.training.epochs}")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def is_probed(self) -> bool:
        """Whether `fit` measures the frozen backbone before the first step."""
        probe = self.training.probe
        return probe == "on" or (probe == "auto" and self.model.weights != "none")


def _probe_problems(config: Config) -> list[str]:
    if not config.model.classifier_from_probe:
        return []
    problems = []
    if not config.is_probed:
        problems.append("model.classifier_from_probe=true starts from a probe, and none is made: set training.probe=on")
    voting = config.model.voting
    if voting.enabled and voting.block_init == "random":
        problems.append(
            "model.classifier_from_probe=true classifies what the backbone's last block gives, but "
            "model.voting.block_init=random replaces that block: leave one of them at its default"
        )
    return problems


def _triplet_problems(data: DataConfig, loss: LossConfig, training: TrainingConfig) -> list[str]:
    if loss.triplet_weight == 0:
        return []
    problems = []
    if data.mixup or data.cutmix:
        problems.append(
            "mixup and cutmix blend images of two classes, so they have no single label to mine triplets by: "
            "set loss.triplet_weight=0, or data.mixup=0 and data.cutmix=0"
        )
    if training.batch_size % training.images_per_class or training.batch_size < 2 * training.images_per_class:
        problems.append(
            f"training.batch_size={training.batch_size} cannot hold P >= 2 classes of images_per_class="
            f"{training.images_per_class}: use a multiple of {training.images_per_class}, at least twice it"
        )
    return problems


def _voting_problems(voting: VotingConfig) -> list[str]:
    problems = []
    if voting.key and voting.refine and voting.num_key_tokens > voting.num_selected:
        problems.append(
            f"model.voting.num_key_tokens={voting.num_key_tokens} exceeds num_selected={voting.num_selected}"
        )
    if voting.enabled and not (voting.refine or voting.key):
        problems.append("model.voting has neither refine nor key, so votes change nothing: set enabled=false instead")
    return problems


def _keeping_problems(voting: VotingConfig, training: TrainingConfig) -> list[str]:
    rates = {"model.voting.keep_rate": voting.keep_rate, "training.keep_rate": training.keep_rate}
    return [
        f"{name}={rate:g} ranks patches by votes, and model.voting.enabled=false casts none: leave it at 1"
        for name, rate in rates.items()
        if rate < 1 and not voting.enabled
    ]


def list_recipes() -> list[str]:
    """Return the names of the recipes in the package."""
    folder = resources.files("finevote") / "recipes"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_config(recipe: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a recipe by name or path and apply `section.field=value` overrides (values are YAML).

    Raises:
        ConfigError: the recipe does not exist or cannot be read, or a name or value is not valid; all problems at once.
    """
    return config_from_values(_read_recipe(str(recipe)), source=str(recipe), overrides=overrides)


def config_from_values(values: Mapping[str, Any], *, source: str, overrides: Sequence[str] = ()) -> Config:
    """Check plain values (from YAML or JSON), with `section.field=value` overrides applied.

    Raises:
        ConfigError: a name or value is not valid; `source`, or the override that is wrong, is named.
    """
    changed = copy.deepcopy(dict(values))
    for override in overrides:
        _apply_override(changed, override)
    try:
        return Config.model_validate(changed)
    except ValidationError as error:
        problems = "; ".join(
            f"{_blame(problem, source, overrides)}: {_describe(problem)}" for problem in error.errors()
        )
        raise ConfigError(problems) from None


def dump_config(config: Config, *, without: Collection[str] = ()) -> str:
    """Return the resolved settings, `without` some sections, as YAML that `load_config` reads back equal."""
    return yaml.safe_dump(config.model_dump(mode="json", exclude=set(without)), sort_keys=False)


def _read_recipe(recipe: str) -> dict[str, Any]:
    path = Path(recipe)
    if path.suffix in {".yaml", ".yml"} or path.exists():
        text = _read_file(path)
    elif recipe in list_recipes():
        text = (resources.files("finevote") / "recipes" / f"{recipe}.yaml").read_text(encoding="utf-8")
    else:
        raise ConfigError(f"no recipe or file is called {recipe!r}{suggest(recipe, list_recipes())}")
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{recipe} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{recipe} must hold `section: settings`, but holds a {type(values).__name__}")
    return values


def _read_file(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the recipe {path}: {error}") from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"--set {override!r} must look like section.field=value, e.g. training.epochs=10")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {override!r}: {text!r} is not a YAML value") from None
    *parents, last = name.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} is a value, not a section")
        values = child
    values[last] = value


def _blame(problem: Any, source: str, overrides: Sequence[str]) -> str:
    """Return `--set name=value` if that is where the problem lies, else the recipe."""
    location = [str(part) for part in problem["loc"]]
    for override in reversed(overrides):
        name = override.partition("=")[0].split(".")
        if location and name[: len(location)] == location[: len(name)]:
            return f"--set {override}"
    return source


def _describe(problem: Any) -> str:
    """Turn one pydantic error into `where: what, got, allowed`."""
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown setting {where!r}{_suggest_field(problem['loc'])}"
    if problem["type"] == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {problem['msg']}, but got {problem['input']!r}"


def _suggest_field(location: tuple[int | str, ...]) -> str:
    section: Any = Config
    for part in location[:-1]:
        section = section.model_fields[str(part)].annotation
    section_name = "".join(f"{part}." for part in location[:-1])
    return suggest(str(location[-1]), section.model_fields, prefix=section_name)
