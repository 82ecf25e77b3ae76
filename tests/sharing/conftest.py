import types

import pytest

from tests.sharing.model_hub import TOKEN, serve_hub
from tests.tiny import write_photographs, write_run


@pytest.fixture(scope="session")
def measured_run(tmp_path_factory):
    """A run with a bundle of random weights, measured on both splits."""
    from finevote.measure.calibrate import calibrate_run
    from finevote.measure.evaluate import evaluate

    root = tmp_path_factory.mktemp("shared")
    run = write_run(root / "colours", data=write_photographs(root / "data", num_test=2))
    calibrate_run(run)
    for split in ("val", "test"):
        evaluate(run, split=split)
    return run


@pytest.fixture
def hub(monkeypatch):
    """A hub of this machine that the client talks to, logged in; large files go by HTTP, and nothing waits."""
    from huggingface_hub import constants, file_download, utils

    utils.disable_progress_bars()
    with serve_hub() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        clock = types.SimpleNamespace(**{name: getattr(file_download.time, name) for name in ("time", "monotonic")})
        monkeypatch.setattr(file_download, "time", types.SimpleNamespace(**vars(clock), sleep=lambda _: None))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served
    utils.enable_progress_bars()
