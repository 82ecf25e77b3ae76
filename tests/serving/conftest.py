import pytest

from finevote.serving.served import load_served
from finevote.serving.settings import read_settings
from tests.serving.live import running
from tests.tiny import write_bundle


@pytest.fixture(scope="package")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("run") / "bundle")


@pytest.fixture(scope="package")
def served(bundle):
    return load_served(read_settings({}, bundle=bundle))


@pytest.fixture(scope="package")
def live(bundle, served):
    """A server with limits that are quickly reached; tests leave it as well as they found it."""
    with running(bundle, served=served, max_image_bytes=200_000, max_request_bytes=500_000, max_images=4) as server:
        yield server
