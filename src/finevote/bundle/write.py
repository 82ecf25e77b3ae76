"""A bundle written."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from finevote.bundle.calibration import save_calibration
from finevote.bundle.checks import describe
from finevote.bundle.gallery import save_gallery
from finevote.bundle.manifest import FORMAT_VERSION, MANIFEST_NAME, WEIGHTS_NAME, sealed
from finevote.config import Config
from finevote.evaluation.calibrator import Calibration
from finevote.evaluation.gallery import Gallery
from finevote.files import atomic_folder, sha256_of
from finevote.types import Preprocessing, Taxonomy

_PACKAGES = ("finevote", "torch", "torchvision", "timm", "safetensors")


def save_bundle(
    folder: Path,
    model: nn.Module,
    *,
    config: Config,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    details: Mapping[str, Any],
    calibration: Calibration | None = None,
    taxonomy: Taxonomy | None = None,
    gallery: Gallery | None = None,
) -> Path:
    """Write a bundle and return its folder; it appears whole or not at all, and takes the place of an older one.

    Args:
        folder: where to.
        model: what `build_model(config, num_classes=len(class_names))` built, with the weights to keep.
        config: the settings that rebuild the model.
        class_names: in the order of the logits.
        preprocessing: how photographs become tensors.
        details: anything else worth keeping, ready for JSON: the data's name, the protocol, the seed.
        calibration: what validation images tell of the model, where there are any.
        taxonomy: of the classes, in their order, where it is known.
        gallery: of the model; it is marked as being of these weights.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_folder(folder, replace=True) as temporary:
        save_file(state, temporary / WEIGHTS_NAME)
        if calibration is not None:
            save_calibration(temporary, calibration)
        if gallery is not None:
            save_gallery(temporary, gallery, weights_sha256=sha256_of(temporary / WEIGHTS_NAME))
        content: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "class_names": list(class_names),
            "preprocessing": asdict(preprocessing),
            "config": config.model_dump(mode="json"),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
            "details": dict(details),
            "files": {path.name: describe(path).model_dump() for path in sorted(temporary.iterdir())},
            "taxonomy": taxonomy and taxonomy.to_dict(),
        }
        (temporary / MANIFEST_NAME).write_text(sealed(content), encoding="utf-8")
    return folder
