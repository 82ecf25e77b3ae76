"""The page in a browser: nothing is asked of the network, tables sort and search, keyboard, colours, sizes, paper."""

from itertools import pairwise

import pytest

from finevote.report.render import render
from finevote.report.run import make_page
from tests.browser import chromium
from tests.report.made_up import HOSTILE, make_material

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CLASSES = (HOSTILE, *(f"class {number}" for number in range(1, 24)))


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    path = folder / "report.html"
    path.write_text(render(make_page(make_material(folder, class_names=CLASSES, num_images=240))).html)
    return path


@pytest.fixture
def show(browser, file):
    """Return a function that opens the page; it fails where anything is asked for, or the console says anything."""
    contexts, complaints = [], []

    def open_page(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", lambda request: None if is_own(request.url) else complaints.append(request.url))
        page.goto(file.as_uri())
        return page

    def is_own(url):
        return url == file.as_uri() or url.startswith("data:")

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def column(page, number, table="classes-1"):
    return page.locator(f"#{table} tbody tr:visible > :nth-child({number})").all_inner_texts()


def test_no_request_leaves_the_file_and_every_photograph_is_drawn(show):
    page = show()
    widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) > 20
    assert min(widths) > 0


def test_a_request_would_be_refused(browser, file):
    context = browser.new_context()
    page = context.new_page()
    page.goto(file.as_uri())
    refused = page.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'refused')")
    context.close()
    assert refused == "refused"


def test_columns_of_numbers_sort_from_the_highest_then_from_the_lowest(show):
    page = show()
    head = page.locator("#classes-1 th", has_text="accuracy")
    for order, is_reversed in (("descending", True), ("ascending", False)):
        head.locator("button").click()
        values = [float(text.rstrip("%")) for text in column(page, 4)]
        assert head.get_attribute("aria-sort") == order
        assert values == sorted(values, reverse=is_reversed)


def test_names_sort_as_people_count(show):
    page = show()
    page.locator("#classes-1 th", has_text="class").locator("button").click()
    names = [name for name in column(page, 1) if name.startswith("class")]
    assert names == [f"class {number}" for number in range(1, 24)]


def test_one_column_at_a_time_is_told_to_be_sorted(show):
    page = show()
    for name in ("images", "right"):
        page.locator("#classes-1 thead").get_by_role("button", name=name, exact=True).click()
    orders = page.eval_on_selector_all("#classes-1 th[aria-sort]", "heads => heads.map(head => head.ariaSort)")
    assert orders == ["none", "none", "descending", "none", "none", "none"]


def test_a_search_leaves_the_classes_that_hold_the_words(show):
    page = show()
    field = page.get_by_label("Find a class")
    field.fill("CLASS 2")
    texts = page.eval_on_selector_all("#classes-1 tbody tr", "rows => rows.map(row => row.textContent)")
    wanted = sum("class 2" in text for text in texts)
    assert 4 < wanted < 24
    sync_api.expect(page.locator("#classes-1 tbody tr:visible")).to_have_count(wanted)
    sync_api.expect(page.locator(".found")).to_have_text(f"{wanted} of 24")
    field.fill("")
    assert page.locator("#classes-1 tbody tr:visible").count() == 24


def test_a_name_of_markup_is_shown_as_it_is(show):
    page = show()
    assert HOSTILE in column(page, 1)


def test_the_keyboard_skips_to_the_figures_and_sorts(show):
    page = show()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["x"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    head = page.locator("#classes-1 th", has_text="accuracy")
    head.locator("button").focus()
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert outline in {"solid", "auto", "none"}
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"


def luminance(color):
    parts = [int(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


CONTRASTS = """() => {
  const back = (node) => {
    for (; node; node = node.parentElement) {
      const color = getComputedStyle(node).backgroundColor;
      if (!color.startsWith("rgba(0, 0, 0, 0")) return color;
    }
  };
  const found = {};
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.getClientRects().length || ["SCRIPT", "STYLE"].includes(node.tagName)) continue;
    const style = getComputedStyle(node);
    const color = node instanceof SVGElement ? style.fill : style.color;
    found[[color, back(node)].join("|")] = node.className.baseVal ?? node.className;
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_either_colours(show, scheme):
    page = show(color_scheme=scheme)
    pairs = page.evaluate(CONTRASTS)
    assert len(pairs) > 5
    for colors, what in pairs.items():
        light, dark = sorted((luminance(color) for color in colors.split("|")), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (what, colors)


@pytest.mark.parametrize(("scheme", "first", "then"), [("light", "Dark", "Light"), ("dark", "Light", "Dark")])
def test_the_button_changes_the_colours(show, scheme, first, then):
    page = show(color_scheme=scheme)
    button = page.locator("#theme-switch")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert button.inner_text() == first
    button.click()
    assert button.inner_text() == then
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_votes_can_be_hidden_and_shown(show):
    page = show()
    button, discs = page.locator("#votes-switch"), page.locator(".discs").first
    assert discs.is_visible()
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert not discs.is_visible()
    button.click()
    assert discs.is_visible()


def test_votes_lie_over_the_whole_photograph(show):
    page = show()
    photo = page.locator(".photo").first
    image, votes = photo.locator("img").bounding_box(), photo.locator(".discs").bounding_box()
    assert votes == pytest.approx(image, abs=0.6)


@pytest.mark.parametrize("width", [320, 360, 390, 768, 1280])
def test_no_width_makes_the_page_scroll_sideways(show, width):
    page = show(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_paper_everything_is_open_and_switches_are_gone(show):
    page = show(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".switches").is_visible()
    assert not page.locator(".toc").is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    heights = page.eval_on_selector(".tall", "box => [box.scrollHeight, box.clientHeight]")
    assert heights[0] <= heights[1] + 1


def test_the_contents_tell_where_one_is(show):
    page = show(viewport={"width": 1280, "height": 800})
    page.locator(".toc a", has_text="Classes").click()
    sync_api.expect(page.locator(".toc a[aria-current]")).to_have_text("Classes")


def test_without_script_all_is_there_and_no_button_that_does_nothing(show):
    page = show(java_script_enabled=False)
    assert page.locator("#classes-1 tbody tr").count() == 24
    assert not page.locator("#theme-switch").is_visible()
    assert page.locator("#classes-1 th button").count() == 0
    assert not page.locator(".search").first.is_visible()


def test_who_wants_no_motion_gets_none(show):
    page = show(reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def test_the_language_and_the_order_of_headings_are_told(show):
    page = show()
    assert page.get_attribute("html", "lang") == "en"
    levels = page.eval_on_selector_all("h1, h2, h3", "heads => heads.map(head => Number(head.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(second - first <= 1 for first, second in pairwise(levels))
