"""A bundle read, every file of it checked."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from finevote.build import build_model
from finevote.bundle.additions import load_additions
from finevote.bundle.calibration import load_calibration
from finevote.bundle.checks import REPLACEABLE, check_files
from finevote.bundle.manifest import ADVICE, CALIBRATION_NAME, WEIGHTS_NAME, Manifest, read_manifest
from finevote.config import Config, config_from_values
from finevote.errors import BundleError, FinevoteError
from finevote.evaluation.addition import Addition
from finevote.evaluation.calibrator import Calibration
from finevote.model import FineGrainedClassifier
from finevote.types import Preprocessing, Taxonomy

_NUM_NAMED = 4  # tensors in an error


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    `model` is in evaluation mode on the CPU, `calibration` None where no images calibrated it, `taxonomy` None where
    that of the classes is not known. `additions` are classes that were added to the trained ones.
    """

    model: FineGrainedClassifier
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    config: Config
    manifest: Manifest
    calibration: Calibration | None = None
    taxonomy: Taxonomy | None = None
    additions: tuple[Addition, ...] = ()

    @property
    def added_names(self) -> tuple[str, ...]:
        """The classes that were added, in the order of their logits."""
        return tuple(name for addition in self.additions for name in addition.class_names)

    @property
    def all_class_names(self) -> tuple[str, ...]:
        """The trained classes, then those that were added."""
        return self.class_names + self.added_names


def load_bundle(folder: Path, *, with_parts: bool = True) -> Bundle:
    """Read a bundle after checking every file of it.

    `with_parts=False` leaves out the calibration and does not look at what else can be made anew, to replace it.

    Raises:
        BundleError: the folder is no bundle, of another format, or a file in it is missing, unknown, cut or changed.
    """
    manifest, calibration = read_beside_model(folder, with_parts=with_parts)
    try:
        config = config_from_values(manifest.config, source="its settings")
        model = build_model(config, num_classes=len(manifest.class_names), load_weights=False)
    except FinevoteError as error:
        raise BundleError(
            f"{folder} was written by finevote {manifest.versions.get('finevote')} and cannot be rebuilt by finevote "
            f"{version('finevote')} with timm {version('timm')}: {error}"
        ) from error
    _load_state(model, folder / WEIGHTS_NAME)
    return Bundle(
        model.eval(),
        manifest.class_names,
        manifest.preprocessing,
        config,
        manifest,
        calibration,
        manifest.taxonomy,
        load_additions(folder, manifest),
    )


def read_beside_model(folder: Path, *, with_parts: bool = True) -> tuple[Manifest, Calibration | None]:
    """Read all that a bundle tells but its model, after checking every file of it; as `load_bundle` otherwise."""
    manifest = read_manifest(folder)
    check_files(folder, manifest, passed_over=frozenset() if with_parts else REPLACEABLE)
    is_there = with_parts and CALIBRATION_NAME in manifest.files
    return manifest, load_calibration(folder) if is_there else None


def _load_state(model: nn.Module, path: Path) -> None:
    try:
        state: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise BundleError(f"cannot read {path} ({error}): {ADVICE}") from error
    wanted, got = ({name: tuple(tensor.shape) for name, tensor in some.items()} for some in (model.state_dict(), state))
    differing = sorted({name for name, _ in wanted.items() ^ got.items()})
    if differing:
        named = ", ".join(
            f"{name} is {got.get(name, 'missing')} instead of {wanted.get(name, 'absent')}"
            for name in differing[:_NUM_NAMED]
        )
        rest = ", ..." if len(differing) > _NUM_NAMED else ""
        raise BundleError(
            f"{path} does not fit the model that its settings describe: {len(differing)} tensors differ "
            f"({named}{rest}): {ADVICE}"
        )
    model.load_state_dict(state, strict=True)
