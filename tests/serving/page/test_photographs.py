"""Photographs on their way in and out of the page: picked, pasted, dropped, taken, many, strange, forgotten."""

import io

import pytest

from tests.serving.page.browsing import bars, change_card, give, photographs, until, wait_done
from tests.serving.page.server import jpeg, photograph, png


def test_a_pasted_photograph_is_named(show):
    page = show()
    page.evaluate(
        """bytes => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], 'image.png', { type: 'image/png' }));
        dispatchEvent(new ClipboardEvent('paste', { clipboardData: data })); }""",
        list(png(3)),
    )
    wait_done(page, 1)
    assert len(bars(page)) == 3
    assert page.locator("#rest").get_by_text("Pasted photograph.png").is_visible()


def test_dropped_photographs_are_named_and_the_page_says_where_to_let_go(show):
    page = show()
    drag = """([kind, bytes]) => { const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], 'dropped.png', { type: 'image/png' }));
        const event = new DragEvent(kind, { dataTransfer: data, bubbles: true, cancelable: true });
        return document.body.dispatchEvent(event); }"""
    page.evaluate(drag, ["dragenter", list(png(4))])
    assert page.locator("#letgo").is_visible()
    assert page.evaluate(drag, ["drop", list(png(4))]) is False  # the browser is kept from opening the file
    assert not page.locator("#letgo").is_visible()
    wait_done(page, 1)
    assert len(bars(page)) == 3


def test_the_camera_is_offered_where_there_is_touch(show):
    page = show(has_touch=True, is_mobile=True)
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Take a photograph").tap()
    assert chosen.value.element.get_attribute("capture") == "environment"
    chosen.value.set_files({"name": "camera.jpg", "mimeType": "image/jpeg", "buffer": jpeg(5)})
    wait_done(page, 1)
    assert len(bars(page)) == 3


def test_twenty_photographs_go_in_requests_of_a_few_and_a_bad_one_spoils_no_other(show):
    page = show()
    sizes = []

    def count(route):
        sizes.append(route.request.post_data_buffer.count(b'name="images"'))
        route.continue_()

    page.route("**/v1/predict*", count)
    files = photographs(*range(20))
    files[6] = {**files[6], "buffer": b"no photograph at all"}
    page.set_input_files("#files", files)
    page.wait_for_selector("#progress:not([hidden])")
    wait_done(page, 20)
    assert page.locator(".card.done").count() == 19
    assert sum(sizes) == 20
    assert max(sizes) == 4
    until(
        page,
        "document.querySelector('#live').textContent.startsWith('19 of 20 photographs are named, 1 could not be.')",
    )
    page.locator(".card.failed").click()
    assert page.locator("#answer h1").inner_text() == "photo 6.png"
    assert "not a photograph that the server can read" in page.locator("#answer .sure").inner_text()
    assert not page.locator("#progress").is_visible()


def test_what_is_no_photograph_is_not_sent(show):
    page = show()
    change_card(page, lambda card: card["limits"].update(max_image_bytes=2**20))
    sent = []
    page.on("request", lambda request: sent.append(request.method))
    give(
        page,
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"words"},
        {"name": "empty.png", "mimeType": "image/png", "buffer": b""},
        {"name": "huge.png", "mimeType": "image/png", "buffer": bytes(2**20 + 1)},
    )
    told = []
    for place in range(3):
        page.locator(".card").nth(place).click()
        told.append(page.locator("#answer .sure").inner_text())
    assert "not a photograph" in told[0]
    assert "empty" in told[1]
    assert "takes up to 1.0 MB" in told[2]
    assert "POST" not in sent


def test_a_photograph_that_the_browser_cannot_show_is_named_and_drawn_by_the_server(show):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    heif.register_heif_opener()
    file = io.BytesIO()
    photograph(1).save(file, "HEIF")
    page = show()
    give(page, {"name": "IMG_1.HEIC", "mimeType": "image/heic", "buffer": file.getvalue()})
    assert len(bars(page)) == 3
    drawn = page.locator(".picture img[alt*='as the server drew it']")
    drawn.wait_for()
    assert drawn.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_pictures_are_let_go_when_they_are_forgotten(show):
    page = show()
    page.evaluate(
        """() => { window.open = new Set(); const { createObjectURL, revokeObjectURL } = URL;
        URL.createObjectURL = (file) => {
          const url = createObjectURL.call(URL, file); window.open.add(url); return url; };
        URL.revokeObjectURL = (url) => { window.open.delete(url); revokeObjectURL.call(URL, url); }; }"""
    )
    give(page, *photographs(1, 2))
    assert page.evaluate("window.open.size") == 2
    for _ in range(2):
        page.get_by_role("button", name="Forget this photograph").click()
    assert page.evaluate("window.open.size") == 0
    assert page.locator("#welcome").is_visible()
    assert page.evaluate("document.activeElement.id") == "pick"


def test_nothing_is_kept_in_the_browser(show):
    page = show()
    give(page, *photographs(1))
    assert page.evaluate(
        "[localStorage.length, sessionStorage.length, document.cookie, indexedDB.databases ? 0 : 1]"
    ) == [0, 0, "", 0]
    page.reload()
    assert page.locator("#welcome").is_visible()
    assert page.locator(".card").count() == 0
