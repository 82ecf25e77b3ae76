"""The finished classifier as a folder: weights in safetensors, all else in one JSON, every byte accounted for.

    model.safetensors   every tensor of the model's state
    calibration.safetensors   what validation images tell of its probabilities; absent where there were none
    bundle.json         format version, class names, preprocessing, settings, versions, details, size and SHA-256 of the
                        other files, and a SHA-256 of its own content

Nothing in it can run code. Loading refuses a file that is missing, unknown, cut or changed.
"""

import hashlib
import json
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finevote.build import build_model
from finevote.config import Config, config_from_values
from finevote.errors import BundleError, FinevoteError
from finevote.evaluation.calibrator import Calibration
from finevote.files import atomic_folder, atomic_write, sha256_of
from finevote.model import FineGrainedClassifier
from finevote.run_folder import RunFolder
from finevote.types import Preprocessing, Taxonomy

FORMAT_VERSION = 1
MANIFEST_NAME, WEIGHTS_NAME, CALIBRATION_NAME = "bundle.json", "model.safetensors", "calibration.safetensors"
_SCORES, _UNKNOWN = "scores.", "unknown."  # before the method's name
_PACKAGES = ("finevote", "torch", "torchvision", "timm", "safetensors")
_NUM_NAMED = 4  # tensors in an error
_LEFT_BY_SYSTEMS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # file managers put them into any folder
_ADVICE = "copy the bundle again from where it came, or write it anew with `finevote fit`"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Strict):
    """What a file of the bundle must be."""

    size_bytes: int
    sha256: str


class Manifest(_Strict):
    """The content of bundle.json."""

    format_version: int
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    config: dict[str, Any]
    versions: dict[str, str]
    details: dict[str, Any]
    files: dict[str, FileEntry]
    sha256: str
    taxonomy: Taxonomy | None = None

    @property
    def keep_rate(self) -> float:
        """Share of patches that each reducing layer keeps; 1 where the bundle is older than that."""
        return float(self.config["model"]["voting"].get("keep_rate", 1.0))


@dataclass(frozen=True)
class Bundle:
    """A loaded bundle.

    `model` is in evaluation mode on the CPU, `calibration` None where no images calibrated it, `taxonomy` None where
    that of the classes is not known.
    """

    model: FineGrainedClassifier
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    config: Config
    manifest: Manifest
    calibration: Calibration | None = None
    taxonomy: Taxonomy | None = None


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
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with atomic_folder(folder, replace=True) as temporary:
        save_file(state, temporary / WEIGHTS_NAME)
        files = {WEIGHTS_NAME: _describe(temporary / WEIGHTS_NAME).model_dump()}
        if calibration is not None:
            _save_calibration(temporary / CALIBRATION_NAME, calibration)
            files[CALIBRATION_NAME] = _describe(temporary / CALIBRATION_NAME).model_dump()
        content: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "class_names": list(class_names),
            "preprocessing": asdict(preprocessing),
            "config": config.model_dump(mode="json"),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
            "details": dict(details),
            "files": files,
            "taxonomy": taxonomy and taxonomy.to_dict(),
        }
        (temporary / MANIFEST_NAME).write_text(_sealed(content), encoding="utf-8")
    return folder


def record_keep_rate(
    folder: Path, keep_rate: float, *, details: Mapping[str, Any], calibration: Calibration | None = None
) -> None:
    """Make a keep rate the bundle's own, with what it was chosen by; the bundle changes as a whole or not at all.

    Args:
        folder: of the bundle.
        keep_rate: share of patches that each reducing layer keeps.
        details: ready for JSON; kept under "keep_rate" in the bundle's details.
        calibration: of the model at that keep rate; None leaves the one that is there, which holds at its own alone.

    Raises:
        BundleError: as `read_manifest`.
    """
    content = read_manifest(folder).model_dump(mode="json", exclude={"sha256"})
    content["config"]["model"]["voting"]["keep_rate"] = keep_rate
    content["details"]["keep_rate"] = dict(details)
    if calibration is None:
        atomic_write(folder / MANIFEST_NAME, _sealed(content))
    else:
        _replace_calibration(folder, content, calibration)


def record_calibration(folder: Path, calibration: Calibration, *, taxonomy: Taxonomy | None = None) -> None:
    """Put a calibration in the place of the bundle's; the bundle changes as a whole or not at all.

    Args:
        folder: of the bundle.
        calibration: of its model.
        taxonomy: of its classes, to put in the place of the bundle's; None leaves what is there.

    Raises:
        BundleError: as `read_manifest`.
    """
    content = read_manifest(folder).model_dump(mode="json", exclude={"sha256"})
    if taxonomy is not None:
        content["taxonomy"] = taxonomy.to_dict()
    _replace_calibration(folder, content, calibration)


def load_bundle(folder: Path, *, with_calibration: bool = True) -> Bundle:
    """Read a bundle after checking every file of it; a calibration that is to be replaced may be left out.

    Raises:
        BundleError: the folder is no bundle, of another format, or a file in it is missing, unknown, cut or changed.
    """
    manifest, calibration = read_beside_model(folder, with_calibration=with_calibration)
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
    )


def read_beside_model(folder: Path, *, with_calibration: bool = True) -> tuple[Manifest, Calibration | None]:
    """Read all that a bundle tells but its model, after checking every file of it; as `load_bundle` otherwise."""
    manifest = read_manifest(folder)
    _check_files(folder, manifest, passed_over=frozenset() if with_calibration else frozenset({CALIBRATION_NAME}))
    is_there = with_calibration and CALIBRATION_NAME in manifest.files
    return manifest, _load_calibration(folder) if is_there else None


def read_manifest(folder: Path) -> Manifest:
    """Read and check bundle.json alone.

    Raises:
        BundleError: it is missing, cut, changed, or of another format.
    """
    path = folder / MANIFEST_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST_NAME}") from None
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot read {path} ({' '.join(str(error).split())}): {_ADVICE}") from None
    if not isinstance(content, dict):
        raise BundleError(f"{path} is not a bundle description, it holds a {type(content).__name__}: {_ADVICE}")
    if (found := content.get("format_version")) != FORMAT_VERSION:
        raise BundleError(
            f"{path} has format version {found}, but this finevote reads {FORMAT_VERSION}: "
            "install the finevote that wrote it, or write the bundle anew"
        )
    if content.pop("sha256", None) != (sha256 := _content_hash(content)):
        raise BundleError(f"{path} was changed after it was written: {_ADVICE}")
    try:
        return Manifest.model_validate({**content, "sha256": sha256})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise BundleError(f"{path} is not valid ({problems}): {_ADVICE}") from None


def _sealed(content: Mapping[str, Any]) -> str:
    """Return the text of bundle.json: the content and the hash of it."""
    content = json.loads(json.dumps(content))  # as it will be read: tuples are lists, keys are strings
    text = json.dumps({**content, "sha256": _content_hash(content)}, indent=1, ensure_ascii=False)
    return text + "\n"


def _content_hash(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the manifest's content, whatever its layout and order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _describe(path: Path) -> FileEntry:
    return FileEntry(size_bytes=path.stat().st_size, sha256=sha256_of(path))


def _check_files(folder: Path, manifest: Manifest, *, passed_over: frozenset[str]) -> None:
    """Raise BundleError naming every file that is not as it was written."""
    found = {item.name for item in folder.iterdir()} - {MANIFEST_NAME} - _LEFT_BY_SYSTEMS - passed_over
    expected = set(manifest.files) - passed_over
    problems = dict.fromkeys(sorted({*expected, WEIGHTS_NAME} - found), "is missing")
    problems |= dict.fromkeys(sorted(found - expected), f"is not listed in {MANIFEST_NAME}: remove it")
    for name in sorted(found & expected):
        if problem := _find_change(folder / name, manifest.files[name]):
            problems[name] = problem
    if problems:
        told = "; ".join(f"{name} {problem}" for name, problem in problems.items())
        advice = _advice_on_calibration(folder) if problems.keys() == {CALIBRATION_NAME} else _ADVICE
        raise BundleError(f"the bundle {folder} is not as it was written ({told}): {advice}")


def _advice_on_calibration(folder: Path) -> str:
    is_of_run = RunFolder(folder.parent).config_yaml.is_file()
    return f"make it anew with `finevote calibrate {folder.parent}`, or {_ADVICE}" if is_of_run else _ADVICE


def _find_change(path: Path, entry: FileEntry) -> str | None:
    try:
        size_bytes = path.stat().st_size
        if size_bytes != entry.size_bytes:
            return f"has {size_bytes:,} bytes instead of {entry.size_bytes:,}"
        return None if sha256_of(path) == entry.sha256 else "was changed (its SHA-256 differs)"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _replace_calibration(folder: Path, content: dict[str, Any], calibration: Calibration) -> None:
    """Write the bundle anew beside itself, its weights linked where the file system can, and exchange the two."""
    with atomic_folder(folder, replace=True) as temporary:
        for name in content["files"]:
            if name != CALIBRATION_NAME:
                _link_or_copy(folder / name, temporary / name)
        _save_calibration(temporary / CALIBRATION_NAME, calibration)
        content["files"][CALIBRATION_NAME] = _describe(temporary / CALIBRATION_NAME).model_dump()
        (temporary / MANIFEST_NAME).write_text(_sealed(content), encoding="utf-8")


def _link_or_copy(path: Path, copy: Path) -> None:
    try:
        copy.hardlink_to(path)
    except OSError:
        shutil.copy2(path, copy)


def _save_calibration(path: Path, calibration: Calibration) -> None:
    arrays = {
        "temperature": np.array([calibration.temperature]),
        "keep_rate": np.array([calibration.keep_rate]),
        "labels": calibration.labels.astype(np.int64),
        **{_SCORES + method: np.ascontiguousarray(scores) for method, scores in calibration.scores.items()},
        **{_UNKNOWN + method: np.ascontiguousarray(scores) for method, scores in calibration.unknown.items()},
    }
    optional = {"is_right": calibration.is_right, "class_means": calibration.class_means}
    arrays |= {name: np.ascontiguousarray(found) for name, found in optional.items() if found is not None}
    save_arrays(arrays, path)


def _load_calibration(folder: Path) -> Calibration:
    path = folder / CALIBRATION_NAME
    try:
        arrays = load_arrays(path)
        return Calibration(
            temperature=float(arrays["temperature"][0]),
            labels=arrays["labels"],
            scores=_named(arrays, _SCORES),
            keep_rate=float(arrays["keep_rate"][0]),
            is_right=arrays.get("is_right"),
            unknown=_named(arrays, _UNKNOWN),
            class_means=arrays.get("class_means"),
        )
    except (SafetensorError, KeyError) as error:
        raise BundleError(f"cannot read {path} ({error}): {_advice_on_calibration(folder)}") from error


def _named(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): found for name, found in arrays.items() if name.startswith(prefix)}


def _load_state(model: nn.Module, path: Path) -> None:
    try:
        state: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise BundleError(f"cannot read {path} ({error}): {_ADVICE}") from error
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
            f"({named}{rest}): {_ADVICE}"
        )
    model.load_state_dict(state, strict=True)
