"""A run is a folder; this module knows the names in it and who may write there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finevote.errors import RunError

try:
    import fcntl
except ImportError:  # not on Windows, where two processes in one run are not told apart
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class EvaluationFolder:
    """The paths of one split's measurement in a run."""

    path: Path

    @property
    def predictions_npz(self) -> Path:
        """What the model said of every image."""
        return self.path / "predictions.npz"

    @property
    def unknown_npz(self) -> Path:
        """What it said of images of classes that were held out of training; there only if some were."""
        return self.path / "unknown.npz"

    @property
    def report_json(self) -> Path:
        """All figures; written last, it vouches for the other files."""
        return self.path / "report.json"

    @property
    def probes_npz(self) -> Path:
        """What the run's probes said of every image; absent where it was not probed."""
        return self.path / "probes.npz"

    @property
    def faithfulness_npz(self) -> Path:
        """Deletion and insertion curves; absent unless they were asked for."""
        return self.path / "faithfulness.npz"

    @property
    def faithfulness_png(self) -> Path:
        """The same as a plot."""
        return self.path / "faithfulness.png"

    @property
    def added_json(self) -> Path:
        """How the classifier fares with the classes that were added to it; there only if that was asked."""
        return self.path / "added.json"

    @property
    def classes_csv(self) -> Path:
        """The figures of each class."""
        return self.path / "classes.csv"

    @property
    def examples_png(self) -> Path:
        """Right and wrong predictions."""
        return self.path / "examples.png"


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run. Making one touches no file; `create` and `open` look at the disk."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make the folder and its `checkpoints/`.

        Raises:
            RunError: `path` is a file, is a folder with something in it, or cannot be made.
        """
        cls.check_free(path)
        try:
            (path / "checkpoints").mkdir(parents=True)
        except OSError as error:
            raise RunError(f"cannot make the run folder {path}: {error.strerror}; give another --out") from None
        return cls(path)

    @classmethod
    def check_free(cls, path: Path) -> None:
        """Raise RunError unless a new run can be made at `path`: nothing there, or an empty folder."""
        if path.is_dir() and not any(path.iterdir()):
            return
        if cls(path).config_yaml.is_file():
            raise RunError(f"{path} already holds a run: go on with `--resume {path}`, or give another --out")
        if path.exists():
            raise RunError(f"{path} already exists and is not an empty folder: give another --out")

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Return the run at `path`.

        Raises:
            RunError: there is no such folder, or one of the files that `fit` writes first is missing.
        """
        if not path.is_dir():
            raise RunError(f"there is no run folder {path}: `finevote fit DATA --out {path}` makes one")
        run = cls(path)
        missing = [file.name for file in (run.config_yaml, run.data_json, run.split_json) if not file.is_file()]
        if missing:
            raise RunError(f"{path} is not a run of finevote: it has no {', '.join(missing)}")
        return run

    @property
    def config_yaml(self) -> Path:
        """The resolved settings."""
        return self.path / "config.yaml"

    @property
    def data_json(self) -> Path:
        """The data argument, the class names and the images left out."""
        return self.path / "data.json"

    @property
    def split_json(self) -> Path:
        """Which image is in which split."""
        return self.path / "split.json"

    @property
    def probe_json(self) -> Path:
        """How far the frozen backbone came before the first step; absent where it was not probed."""
        return self.path / "probe.json"

    @property
    def probe_arrays(self) -> Path:
        """What those probes need to answer again."""
        return self.path / "probe.safetensors"

    @property
    def lr_groups_json(self) -> Path:
        """The peak learning rate and weight decay of every group of parameters."""
        return self.path / "lr_groups.json"

    @property
    def metrics_jsonl(self) -> Path:
        """One line an epoch, and some of the steps."""
        return self.path / "metrics.jsonl"

    @property
    def curves_png(self) -> Path:
        """The learning curves."""
        return self.path / "curves.png"

    @property
    def last_checkpoint(self) -> Path:
        """The newest state of the training, from which it goes on."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best_checkpoint(self) -> Path:
        """The state after the epoch that was best on validation."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def bundle(self) -> Path:
        """The finished classifier."""
        return self.path / "bundle"

    def evaluation(self, split: str) -> EvaluationFolder:
        """Return the paths of what is known of a split."""
        return EvaluationFolder(self.path / "evaluation" / split)

    @property
    def speed_json(self) -> Path:
        """Accuracy and time over the keep rate."""
        return self.path / "speed.json"

    @property
    def speed_png(self) -> Path:
        """The same as a curve."""
        return self.path / "speed.png"

    @property
    def similarity(self) -> Path:
        """How alike the layers are, how the budget moved, and who carries the votes."""
        return self.path / "similarity"

    @property
    def soup_json(self) -> Path:
        """What the runs came to that this one is the average of; absent where it was trained."""
        return self.path / "soup.json"

    @property
    def test_ledger_jsonl(self) -> Path:
        """One line for each time the test split was opened."""
        return self.path / "test_ledger.jsonl"

    def read_json(self, file: Path, *, advice: str = "bring it back as it was, or start a new run") -> dict[str, Any]:
        """Return what a JSON file of this run holds; `advice` is what to do where that cannot be read.

        Raises:
            RunError: the file is missing or is not JSON with names and values.
        """
        try:
            values = json.loads(file.read_bytes())
            problem = None if isinstance(values, dict) else f"it holds a {type(values).__name__}"
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or " ".join(str(error).split())
        if problem is not None:
            raise RunError(f"cannot read {file} of the run ({problem}): {advice}")
        return dict(values)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training in this run.

        The kernel drops the lock with its process, however that ends, so a lock left by a dead one never blocks.

        Raises:
            RunError: another process, whose number is given, trains here; or the folder cannot be written.
        """
        try:
            file = (self.path / ".lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise RunError(
                f"cannot write in the run folder {self.path}: {error.strerror}; check its permissions"
            ) from None
        with file:
            if fcntl is not None and not _lock(file.fileno()):
                file.seek(0)
                raise RunError(
                    f"another process (PID {file.read().strip()}) is training in {self.path}: "
                    "wait for it, stop it, or give another --out"
                )
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def _lock(descriptor: int) -> bool:
    """Take the lock of an open file; False if another process has it. A file system without locks grants it."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def next_run_path(root: Path, stem: str) -> Path:
    """Return `root/stem-n` with the lowest n >= 1 that is free."""
    number = 1
    while (root / f"{stem}-{number}").exists():
        number += 1
    return root / f"{stem}-{number}"
