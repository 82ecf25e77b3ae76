"""A checkpoint of the earlier project, `checkpoint.bin`, as a bundle; what the file does not say is said."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from finevote.backbones.identify import anatomy_of, names_of
from finevote.backbones.layout_steps import complete_stages
from finevote.backbones.layouts import EARLIER_DINOV2, EARLIER_VIT, Layout, recognise
from finevote.backbones.origin import weights_origin
from finevote.backbones.weight_files import WeightFile, read_weight_file
from finevote.build import build_model, build_preprocessing
from finevote.bundle.write import save_bundle
from finevote.config import config_from_values
from finevote.errors import ArgumentError, WeightsError
from finevote.files import sha256_of
from finevote.model import FineGrainedClassifier

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of its pipeline, for both of its backbones
_IMAGE_PX, _RESIZE_PX = 448, 600
_WIDTH_OF_A_HEAD = 64  # in every backbone that it was made for; the file does not say how many heads there are
_STAND_INS = {EARLIER_DINOV2.title: "dinov2_vitb14", EARLIER_VIT.title: "vit_b16_in21k"}  # for sizes without a name
_INTERPOLATION_OFFSET = 0.1  # of a patch, as DINOv2's own code adds it
_PLACES = (
    ("blocks.", "backbone.layers."),
    ("refine.", "head.refine."),
    ("key.", "head.key."),
    ("", "backbone.embedding."),
)


@dataclass(frozen=True)
class Imported:
    """The bundle's folder, what the checkpoint was found to be, and what could not be known."""

    folder: Path
    summary: str
    notes: tuple[str, ...]


def import_checkpoint(
    path: Path, out: Path, *, class_names: Sequence[str] | None = None, overrides: Sequence[str] = ()
) -> Imported:
    """Turn a checkpoint of the earlier project into a bundle.

    Args:
        path: its `.bin` file; no code in it runs.
        out: the bundle's folder.
        class_names: in the order of the labels that it was trained with; None for numbers.
        overrides: `section.field=value`, for what the file cannot say: `model.voting.dilations=[1]`.

    Raises:
        ArgumentError: more or fewer names than classes.
        ConfigError: an override that is not valid.
        WeightsError: not such a file, unsafe to read, or with tensors that have no place in a bundle.
    """
    file = read_weight_file(path)
    layout, prefix = _recognise(file, path)
    tensors = complete_stages(layout.rename(file.tensors, prefix=prefix))
    classifier = {kind: file.tensors[f"{prefix}head.{kind}"] for kind in ("weight", "bias")}
    num_classes = len(classifier["bias"])
    names = _check_names(class_names, num_classes)
    values = _settings(path, file.beside, layout, tensors)
    config = config_from_values(values, source=str(path), overrides=overrides)
    model = build_model(config, num_classes=num_classes, load_weights=False)
    _load(model, tensors, classifier, origin=path)
    preprocessing = replace(build_preprocessing(config.data, model.backbone), mean=_MEAN, std=_STD)
    notes = _notes(file.beside, layout, names_known=class_names is not None)
    details = {
        "data": str(_section(file.beside, "data").get("dataset", "unknown")),
        "protocol": "imported; the earlier project chose its best epoch on the test split",
        "imported_from": {"name": path.name, "sha256": sha256_of(path), "epoch": file.beside.get("epoch")},
        "weights": asdict(replace(weights_origin(config.model.backbone, "auto"), source=path.name)),
        "notes": list(notes),
    }
    save_bundle(out, model, config=config, class_names=names, preprocessing=preprocessing, details=details)
    rows, columns = preprocessing.image_size
    summary = f"{layout.title}: {config.model.backbone}, {num_classes} classes, {rows} x {columns} px"
    return Imported(out, summary, notes)


def _recognise(file: WeightFile, path: Path) -> tuple[Layout, str]:
    found = recognise(file.tensors)
    if found is None or found[0] not in (EARLIER_DINOV2, EARLIER_VIT):
        seems = "in no layout that is known" if found is None else f"in {found[0].title}"
        raise WeightsError(
            f"{path} is not a checkpoint of the earlier project, it is {seems}: "
            "weights of a backbone are given to `finevote fit` by --set model.weights=PATH"
        )
    return found


def _check_names(class_names: Sequence[str] | None, num_classes: int) -> tuple[str, ...]:
    if class_names is None:
        return tuple(f"class {label}" for label in range(num_classes))
    if len(class_names) != num_classes:
        raise ArgumentError(
            f"{len(class_names)} class names were given, the checkpoint has {num_classes} classes: "
            "give one name a line, in the order of its labels"
        )
    return tuple(class_names)


def _settings(path: Path, beside: Mapping[str, Any], layout: Layout, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the settings that rebuild the model, from its tensors and from what the file says of its own."""
    data, voting = _section(beside, "data"), _section(beside, "parameters")
    backbone, args = _backbone(layout, tensors)
    image_px = data.get("img_size", _IMAGE_PX)
    return {
        "name": f"imported_{path.stem}",
        "source": f"a checkpoint of the earlier project, {path.name}",
        "data": {"image_size": image_px, "resize": max(data.get("resize", _RESIZE_PX), image_px), "decoding": "exact"},
        "model": {
            "backbone": backbone,
            "weights": "none",
            "backbone_args": args,
            "voting": {
                "num_votes_per_head": voting.get("vote_perhead", 24),
                "num_selected": voting.get("total_num", 126),
                "merge": voting.get("merge_inattentive", False),
                "key": any(key.startswith("key.") for key in tensors),
            },
        },
    }


def _backbone(layout: Layout, tensors: Mapping[str, Tensor]) -> tuple[str, dict[str, Any]]:
    """Return a short name, and the arguments that bring it to this size where none has it."""
    anatomy = anatomy_of(layout.finish(dict(tensors)))
    if anatomy is None or anatomy.patch is None:
        raise WeightsError(
            "the checkpoint's first block or its patch embedding is missing: give the file as it was saved"
        )
    if names := names_of(anatomy):
        return names[0], {}
    return _STAND_INS[layout.title], {
        "patch_size": anatomy.patch[0],
        "embed_dim": anatomy.dim,
        "depth": anatomy.depth,
        "num_heads": max(1, anatomy.dim // _WIDTH_OF_A_HEAD),
        "mlp_ratio": anatomy.mlp_width / anatomy.dim,
    }


def _load(
    model: FineGrainedClassifier, tensors: Mapping[str, Tensor], classifier: Mapping[str, Tensor], *, origin: Path
) -> None:
    """Fill the model; its own uniform rates and fixed kernels stay."""
    placed = {_place(key): tensor for key, tensor in tensors.items()}
    placed |= {f"head.classifier.{kind}": tensor for kind, tensor in classifier.items()}
    positions = "backbone.embedding.pos_embed"
    placed[positions] = _resample(placed[positions], model.backbone.grid)
    own = model.state_dict()
    kept = {key: tensor for key, tensor in own.items() if key.startswith(("head.budget.", "head.smoothing."))}
    wanted, got = ({key: tuple(tensor.shape) for key, tensor in some.items()} for some in (own, placed | kept))
    differing = sorted({key for key, _ in wanted.items() ^ got.items()})
    if differing:
        named = ", ".join(f"{key} ({got.get(key, 'missing')})" for key in differing[:8])
        raise WeightsError(f"{origin} has tensors that do not fit a bundle, {len(differing)} in all: {named}")
    model.load_state_dict(placed | kept, strict=True)


def _place(key: str) -> str:
    prefix, place = next((prefix, place) for prefix, place in _PLACES if key.startswith(prefix))
    return place + key.removeprefix(prefix)


def _resample(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Bring positions (1, 1 + n x n, D) to a grid as that project did before each forward pass, once.

    Bicubic with the scale of DINOv2's own code, which adds a tenth of a patch to the size.
    """
    side, dim = math.isqrt(positions.shape[1] - 1), positions.shape[2]
    if (side, side) == grid:
        return positions
    patches = positions[:, 1:].reshape(1, side, side, dim).permute(0, 3, 1, 2)  # (1, D, n, n)
    scale = [(length + _INTERPOLATION_OFFSET) / side for length in grid]
    patches = F.interpolate(patches, scale_factor=scale, mode="bicubic").flatten(2).transpose(1, 2)  # (1, P, D)
    return torch.cat([positions[:, :1], patches], dim=1)


def _notes(beside: Mapping[str, Any], layout: Layout, *, names_known: bool) -> tuple[str, ...]:
    voting = _section(beside, "parameters")
    notes = [
        "the rates of dynamic selection were not saved: every layer forwards the same number of tokens",
        "that project's code could take the token before each selected patch; here it is the patch itself",
    ]
    if layout is EARLIER_DINOV2:
        notes.append("its new blocks had norms of eps 1e-5; here all have 1e-6")
    else:
        notes.append("one scale of smoothing or three, it is not saved: three, or --set model.voting.dilations=[1]")
    if not voting:
        notes.append("its settings are not in the file: 24 votes a head, 126 tokens, no merging")
    if not names_known:
        notes.append("class names are not in the file: they are numbers, or give --classes FILE or --data DATA")
    return tuple(notes)


def _section(beside: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of the settings in the file; empty where there is none."""
    settings = beside.get("config")
    section = settings.get(name) if isinstance(settings, dict) else None
    return section if isinstance(section, dict) else {}
