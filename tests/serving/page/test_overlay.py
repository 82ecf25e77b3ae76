"""What lies over the photograph: votes where they were cast, one class against another; and the picture of it."""

import re

import pytest

from tests.serving.page.browsing import ask, centre, give, is_disc, percent, photographs, pixel, places, readable, until
from tests.serving.page.server import CLASSES, MARKUP


def test_votes_lie_where_the_interface_says(show, server):
    page = show()
    give(page, *photographs(1))
    (result,) = ask(page, server, "v1/predict", 1, explain="true")["results"]
    picture, overlay = (page.locator(f".picture {tag}").bounding_box() for tag in ("img", "canvas"))
    assert overlay == pytest.approx(picture, abs=1)
    votes = result["votes"]
    most = max(value for _, _, value in places(votes["final"]))
    for row, column, value in places(votes["final"]):
        x, y = centre(votes["view"], votes["grid"], row, column)
        if value == most:
            assert is_disc(pixel(page, x, y))
        if value == 0:
            assert not is_disc(pixel(page, x, y))


def test_the_strength_of_votes_goes_down_to_none(show):
    page = show()
    give(page, *photographs(1))
    sums = []
    for strength in ("100", "30", "0"):
        page.locator("#opacity").fill(strength)
        sums.append(
            page.evaluate(
                """() => { const canvas = document.querySelector('.picture canvas');
            return canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data
              .reduce((total, value, place) => place % 4 === 3 ? total + value : total, 0); }"""
            )
        )
    assert sums[0] > 1.5 * sums[1] > 0 == sums[2]


def test_the_votes_of_each_layer_and_head_can_be_seen(show, server):
    page = show()
    give(page, *photographs(1))
    votes = ask(page, server, "v1/explain", 1)["votes"]
    page.locator("#closer summary").click()
    until(page, "!document.querySelector('#layer').disabled")
    assert page.locator("#layer option").count() == 1 + len(votes["budget"])
    assert page.locator("#head").is_disabled()
    page.locator("#layer").select_option("2")
    page.locator("#head").select_option("3")
    voted = set(votes["heads"][1][2])
    for patch in range(votes["grid"][0] * votes["grid"][1]):
        row, column = divmod(patch, votes["grid"][1])
        assert is_disc(pixel(page, *centre(votes["view"], votes["grid"], row, column))) == (patch in voted)
    page.locator("#head").select_option("")
    page.locator("#what").select_option("kept")
    kept = set(votes["selected"][1])
    for patch in range(votes["grid"][0] * votes["grid"][1]):
        row, column = divmod(patch, votes["grid"][1])
        assert is_disc(pixel(page, *centre(votes["view"], votes["grid"], row, column))) == (patch in kept)


def test_two_classes_are_held_against_each_other_in_two_colours(show, server):
    page = show()
    give(page, *photographs(6))
    page.locator("input[value=contrast]").check()
    pair = [CLASSES[1], CLASSES[0]]
    page.locator("#class-a").select_option(pair[0])
    page.locator("#class-b").select_option(pair[1])
    until(
        page,
        "text => document.querySelector('#legend:not([hidden]) #legend-a')?.textContent.includes(text)",
        pair[0],
    )
    answer = page.request.post(
        f"{server}v1/explain?" + "&".join(f"contrast={name.replace(' ', '+')}" for name in pair),
        multipart={"images": photographs(6)[0]},
    ).json()
    contrast, votes = answer["contrast"], answer["votes"]
    assert (contrast["class_a"], contrast["class_b"]) == tuple(pair)
    text = page.locator("#contrast-text").inner_text()
    (shown,) = re.findall(r"by ([\d.e-]+) on the model's own scale", text)
    assert float(shown) == pytest.approx(abs(contrast["difference"]), rel=0.06)
    values = places(contrast["contributions"])
    for row, column, value in (max(values, key=lambda item: item[2]), min(values, key=lambda item: item[2])):
        red, _, blue, alpha = pixel(page, *centre(votes["view"], votes["grid"], row, column))
        assert alpha > 0
        assert (red > blue) == (value > 0)
    assert page.locator("#legend-b").inner_text().startswith(f"◀ for {MARKUP}, up to ")


def test_a_class_is_never_held_against_itself(show):
    page = show()
    give(page, *photographs(6))
    page.locator("input[value=contrast]").check()
    first, second = (page.locator(f"#class-{side}").input_value() for side in "ab")
    page.locator("#class-a").select_option(second)
    assert page.locator("#class-b").input_value() == first
    page.wait_for_selector("#legend:not([hidden])")


def test_the_picture_to_share_has_the_names_and_numbers_of_the_page(show, server):
    page = show()
    page.evaluate(
        """() => { window.drawn = []; const draw = CanvasRenderingContext2D.prototype.fillText;
        CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
          window.drawn.push(text); return draw.call(this, text, ...rest); }; }"""
    )
    give(page, *photographs(1))
    page.context.set_offline(True)  # it is made here
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as a picture").click()
    content = download.value.path().read_bytes()
    assert content.startswith(b"\x89PNG")
    assert download.value.suggested_filename.endswith(".png")
    page.context.set_offline(False)
    (result,) = ask(page, server, "v1/predict", 1)["results"]
    drawn = page.evaluate("window.drawn")
    for entry in result["top"]:
        assert readable(entry["class"]) in drawn
        assert percent(entry["probability"]) in drawn
