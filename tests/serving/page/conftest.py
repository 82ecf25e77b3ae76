"""A browser and a server, one of each for the tests of a module."""

import shutil

import pytest

from tests.serving.page.browsing import NAMED, until
from tests.serving.page.server import serving, write_served_bundle

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
EXPECTED = ("Failed to load resource", "Canvas2D")  # of a refusal, and of pixels that tests read


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_served_bundle(tmp_path_factory.mktemp("served") / "bundle")


@pytest.fixture(scope="module")
def server(bundle):
    with serving(bundle) as url:
        yield url


@pytest.fixture
def show(browser, server):
    """Return a function that opens the page; the test fails where another host is asked or the console complains."""
    contexts, complaints = [], []

    def open_page(url=server, *, is_told=True, **options):
        own = (url, "blob:", "data:")
        context = browser.new_context(**options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: message.text.startswith(EXPECTED) or complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: request.url.startswith(own) or complaints.append(request.url))
        page.goto(url)
        if is_told:
            until(page, NAMED)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
