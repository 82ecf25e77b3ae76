"""What the page says of photographs, beside what the interface says of them."""

import base64
import re
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.serving.page.browsing import (
    ask,
    bars,
    change_answer,
    change_card,
    give,
    percent,
    photographs,
    readable,
    until,
)
from tests.serving.page.server import CLASSES, MARKUP, jpeg


def test_the_numbers_shown_are_those_of_the_interface(show, server):
    page = show()
    give(page, *photographs(1))
    (result,) = ask(page, server, "v1/predict", 1)["results"]
    assert bars(page) == [(readable(entry["class"]), percent(entry["probability"])) for entry in result["top"]]
    widths = page.eval_on_selector_all(".bars .fill", "bars => bars.map(bar => parseFloat(bar.style.width))")
    assert widths == pytest.approx([100 * entry["probability"] for entry in result["top"]], abs=1e-3)


def test_shares_near_the_ends_are_not_rounded_to_them(show):
    page = show()
    shares = {1.0: "100.0%", 0.9996: ">99.9%", 0.8725: "87.3%", 0.0005: "0.1%", 0.0004: "<0.1%", 0.0: "0.0%"}
    change_answer(page, lambda result: result.update(top=[{"class": "a", "probability": share} for share in shares]))
    give(page, *photographs(1))
    assert [value for _, value in bars(page)] == list(shares.values()) == [percent(share) for share in shares]


def test_markup_in_names_of_classes_and_files_is_shown_as_it_is(show):
    page = show()
    give(page, {**photographs(2)[0], "name": MARKUP})
    assert MARKUP in [name for name, _ in bars(page)]
    assert page.locator("#rest").get_by_text(MARKUP, exact=True).count() >= 2  # a bar, and the file
    page.click("#about-open")
    assert MARKUP in page.locator("#about .names li").all_inner_texts()
    page.keyboard.press("Escape")
    page.locator("input[value=contrast]").check()
    page.wait_for_selector("#legend:not([hidden])")
    with page.expect_download():
        page.get_by_role("button", name="Save as a picture").click()
    assert page.locator("img[src=x]").count() == 0


def test_sets_and_verdicts_are_told_in_words(show):
    page = show()
    verdict = {"is_unknown": False, "score": 1.0, "threshold": 2.0, "method": "energy", "false_alarms": 0.05}
    found = {"coverage": 0.99, "method": "lac", "classes": [CLASSES[1], CLASSES[2]]}
    change_answer(page, lambda result: result.update(set=found, verdict=verdict))
    give(page, *photographs(1))
    assert "Almost surely one of 2: green, the second or red admiral." in page.locator(".set").inner_text()
    assert "99 in 100" in page.locator(".set").inner_text()
    assert "something this model has learnt" in page.locator(".verdict").inner_text()


def test_an_unknown_is_called_so_before_any_class(show):
    page = show()
    verdict = {"is_unknown": True, "score": 3.0, "threshold": 2.0, "method": "energy", "false_alarms": 0.05}
    answer = {"text": "none of the classes", "kind": "unknown"}
    change_answer(page, lambda result: result.update(verdict=verdict, answer=answer))
    give(page, *photographs(1))
    assert page.locator("#answer h1").inner_text() == "Probably none of these"
    assert page.locator("#rest .if").inner_text() == "If it were one of them:"
    assert bars(page)[0][0] in page.locator("#answer .sure").inner_text()
    assert "5 in 100" in page.locator(".verdict").inner_text()
    until(page, "document.querySelector('#live').textContent.includes('Probably none of these')")


def test_where_only_the_genus_is_sure_the_genus_is_the_answer(show):
    page = show()
    change_answer(page, lambda result: result.update(answer={"text": "Colora", "kind": "genus"}, verdict=None))
    give(page, *photographs(1))
    assert page.locator("#answer .kicker").inner_text() == "Sure of the genus"
    assert page.locator("#answer h1").inner_text() == "Colora"
    name, value = bars(page)[0]
    assert f"{name}, {value}" in page.locator("#answer .sure").inner_text()


def test_the_nearest_training_photographs_are_shown(show):
    page = show()
    thumbnail = f"data:image/jpeg;base64,{base64.b64encode(jpeg(1, side_px=16)).decode()}"
    neighbours = [
        {"image_id": "train/a.jpg", "distance": 0.25, "thumbnail": thumbnail},
        {"image_id": "train/b.jpg", "distance": 0.5, "thumbnail": None},
        {"image_id": "train/c.jpg", "distance": 0.75, "thumbnail": "https://example.org/c.jpg"},
    ]
    change_answer(page, lambda result: result.update(evidence=[{"class": CLASSES[2], "neighbours": neighbours}]))
    give(page, *photographs(1))
    assert page.locator(".near h3").all_inner_texts() == ["red admiral"]
    assert page.locator(".near small").all_inner_texts() == ["0.250", "0.500", "0.750"]
    assert page.locator(".near img").count() == 1
    assert page.locator(".near .none").all_inner_texts() == ["train/b.jpg", "train/c.jpg"]


def test_the_nearest_training_photographs_are_those_of_the_interface(show, server):
    page = show()
    if not page.request.get(f"{server}v1/model").json()["can"]["evidence"]:
        pytest.skip("the server does not look into the gallery of its bundle")
    give(page, *photographs(1))
    (result,) = ask(page, server, "v1/predict", 1, evidence="true")["results"]
    near = [one for group in result["evidence"] for one in group["neighbours"]]
    assert len(near) >= 2
    assert page.locator(".near h3").all_inner_texts() == [readable(group["class"]) for group in result["evidence"]]
    assert page.locator(".near small").all_inner_texts() == [f"{one['distance']:.3f}" for one in near]
    widths = page.eval_on_selector_all(".near img", "images => images.map(image => image.naturalWidth)")
    assert len(widths) == len(near)
    assert min(widths) > 0


def test_photographs_of_one_name_keep_their_own_answers(show, server):
    page = show()
    files = [{**file, "name": "IMG_0001.png"} for file in photographs(11, 12)]
    give(page, *files)
    for place, seed in enumerate((11, 12)):
        page.locator(".card").nth(place).click()
        (result,) = ask(page, server, "v1/predict", seed)["results"]
        assert bars(page) == [(readable(entry["class"]), percent(entry["probability"])) for entry in result["top"]]


def test_results_are_read_out(show):
    page = show()
    change_answer(page, lambda result: result.update(verdict=None, answer=None))
    give(page, *photographs(1))
    name, value = bars(page)[0]
    until(page, "document.querySelector('#live').textContent !== ''")
    assert page.locator("#live").get_attribute("aria-live") == "polite"
    said = page.locator("#live").inner_text()
    assert f"{name}. {value} likely.".lower() in said.lower()
    assert re.search(
        r"Half of the votes lie on [\d.]+% of the picture", page.locator("canvas[role=img]").get_attribute("aria-label")
    )


def test_what_the_server_cannot_answer_is_neither_asked_nor_offered(show):
    page = show()
    asked = []

    def can_nothing(card):
        card["can"] = dict.fromkeys(card["can"], False)
        card["calibration"] = card["taxonomy"] = None

    change_card(page, can_nothing)
    page.on("request", lambda request: "predict" in request.url and asked.append(parse_qs(urlsplit(request.url).query)))
    give(page, *photographs(1))
    assert asked == [{"top": ["5"]}]
    assert not page.locator("#tools").is_visible()
    assert "not calibrated" in page.locator("#rest").inner_text()
    assert "likeliest kind" in page.locator("#answer .kicker").inner_text()
