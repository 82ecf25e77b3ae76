"""The page by keyboard, by finger, in any size and colours, and before axe."""

import pytest

from tests.serving.page.browsing import give, photographs, until, wait_done


def test_the_keyboard_is_enough(show):
    page = show()
    page.bring_to_front()
    focus = "document.activeElement.id"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(8):
        page.keyboard.press("Tab")
        if page.evaluate(focus) == "pick":
            break
    # The browser opens its dialog for people only; that the page asks for it is what counts.
    page.evaluate("document.querySelector('#files').addEventListener('click', () => { window.isAsked = true; })")
    page.keyboard.press("Enter")
    until(page, "window.isAsked === true")
    page.set_input_files("#files", photographs(1, 2, 3))
    wait_done(page, 3)
    page.keyboard.press("Shift+Tab")
    while page.evaluate("document.activeElement.role") != "tab":
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-selected')") == "true"
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("photo 2.png: ")
    assert page.locator(".card[tabindex='0']").count() == 1
    page.keyboard.press("End")
    page.keyboard.press("Delete")
    assert page.locator(".card").count() == 2
    assert page.evaluate("document.activeElement.role") == "tab"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.value") == "votes"
    page.keyboard.press("ArrowRight")
    assert page.locator("#contrast-controls").is_visible()
    page.keyboard.press("Tab")
    assert page.evaluate(focus) == "class-a"
    page.locator("#about-open").focus()
    page.keyboard.press("Enter")
    assert page.locator("#about").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#about").is_visible()
    assert page.evaluate(focus) == "about-open"


def test_no_width_makes_the_page_scroll_sideways(show):
    page = show(has_touch=True)
    widths = (320, 360, 390, 768, 1024, 1440)

    def too_wide():
        for width in widths:
            page.set_viewport_size({"width": width, "height": 740})
            if page.evaluate("document.documentElement.scrollWidth") > width:
                yield width

    assert list(too_wide()) == []
    give(page, *photographs(1, 2, 3, 4, 5, 6))
    page.locator("#closer summary").click()
    assert list(too_wide()) == []
    page.locator("input[value=contrast]").check()
    page.wait_for_selector("#legend:not([hidden])")
    assert list(too_wide()) == []


def test_everything_to_touch_is_large_enough_for_a_finger(show):
    page = show(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    give(page, *photographs(1, 2))
    page.locator("#closer summary").click()
    sizes = page.eval_on_selector_all(
        "button, select, summary, input[type=range], .modes label",
        """nodes => nodes.filter(node => node.getClientRects().length).map(node => {
          const { width, height } = node.getBoundingClientRect();
          return [Math.min(width, height), node.id || node.textContent]; })""",
    )
    assert len(sizes) > 10
    assert [name for size, name in sizes if size < 43.9] == []


def test_the_phone_tells_the_answer_right_below_the_photograph(show):
    page = show(viewport={"width": 360, "height": 740})
    give(page, *photographs(1))
    tops = [page.locator(f"#{part}").bounding_box()["y"] for part in ("frame", "answer", "tools", "rest")]
    assert tops == sorted(tops)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_colours_are_those_of_the_device_until_the_button_says_otherwise(show, scheme):
    page = show(color_scheme=scheme)
    light = "Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]) > 128"
    assert page.evaluate(light) == (scheme == "light")
    page.get_by_role("button", name="Dark colours").click()
    assert page.evaluate(light) == (scheme == "dark")


def test_who_wants_no_motion_gets_none(show):
    page = show(reduced_motion="reduce")
    give(page, *photographs(1))
    assert page.evaluate("document.getAnimations().length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(show, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    page = show(color_scheme=scheme, reduced_motion="reduce")
    found = axe.run(page).response["violations"]
    give(page, *photographs(1, 2), {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"words"}, num=3)
    page.locator("#closer summary").click()
    until(page, "!document.querySelector('#layer').disabled")
    found += axe.run(page).response["violations"]
    page.locator("input[value=contrast]").check()
    page.wait_for_selector("#legend:not([hidden])")
    found += axe.run(page).response["violations"]
    page.locator(".card.failed").click()
    found += axe.run(page).response["violations"]
    page.click("#about-open")
    found += axe.run(page).response["violations"]
    told = [(item["id"], item["impact"], [node["html"][:120] for node in item["nodes"]]) for item in found]
    assert told == []
