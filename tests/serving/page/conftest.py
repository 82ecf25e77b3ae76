"""A browser and a server, one of each for the tests of a module."""

import pytest

from tests.browser import chromium
from tests.serving.page.browsing import NAMED, until
from tests.serving.page.server import serving, write_served_bundle

EXPECTED = ("Failed to load resource", "Canvas2D")  # of a refusal, and of pixels that tests read


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


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
