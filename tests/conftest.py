"""What every test gets: caches of its own, no network, fixed seeds, one thread a process under xdist."""

import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when onnxruntime starts
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"  # for this process and those that tests start

import hypothesis
import pytest
import torch

from finevote import cli

hypothesis.settings.register_profile("finevote", deadline=None)
hypothesis.settings.load_profile("finevote")


@pytest.fixture(scope="session", autouse=True)
def _one_thread_under_xdist() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _font_list(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Matplotlib's list of fonts takes seconds to make, so the tests of a process share one."""
    os.environ["MPLCONFIGDIR"] = str(tmp_path_factory.mktemp("matplotlib"))


@pytest.fixture(autouse=True)
def _own_caches(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    caches = tmp_path_factory.getbasetemp() / "caches" / uuid.uuid4().hex
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches))
    monkeypatch.setenv("FINEVOTE_DATA", str(caches / "data"))
    monkeypatch.setenv("HF_HOME", str(caches / "huggingface"))
    monkeypatch.setenv("TORCH_HOME", str(caches / "torch"))
    if "datasets" in sys.modules:  # it read its environment when it was imported
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", caches / "datasets")
        monkeypatch.setattr("datasets.config.DOWNLOADED_DATASETS_PATH", caches / "datasets" / "downloads")
    return caches


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs `finevote ARGUMENTS` in this process and gives (exit code, stdout, stderr)."""

    def run_command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["finevote", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    return run_command
