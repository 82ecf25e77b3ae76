"""A server that refuses, is busy, wants a key or is gone."""

from urllib.parse import urlsplit

from tests.serving.page.browsing import NAMED, bars, give, photographs, until, wait_done
from tests.serving.page.server import serving


def test_refusals_are_told_in_plain_words_and_can_be_tried_again(show):
    page = show()
    words = {413: "too large", 415: "not a photograph", 422: "cannot be read", 500: "went wrong", 504: "too long"}

    def refuse(route):
        status = statuses.pop(0)
        error = {"error": {"status": status, "reason": "the reason", "allowed": "", "what_to_do": "do this"}}
        route.fulfill(status=status, json=error)

    statuses = list(words)
    page.route("**/v1/predict*", refuse, times=len(words))
    give(page, *photographs(1))
    for word in words.values():
        until(page, "word => document.querySelector('#answer .sure')?.textContent.includes(word)", word)
        assert page.locator("#answer .sure").inner_text().endswith("The reason. Do this.")
        page.get_by_role("button", name="Try again").click()
    until(page, "document.querySelector('.card.done') !== null")
    assert len(bars(page)) == 3


def test_a_request_that_is_refused_as_a_whole_is_sent_again_one_by_one(show):
    page = show()
    error = {"error": {"status": 413, "reason": "too much at once"}}

    def refuse_several(route):
        several = route.request.post_data_buffer.count(b'name="images"') > 1
        route.fulfill(status=413, json=error) if several else route.continue_()

    page.route("**/v1/predict*", refuse_several)
    give(page, *photographs(1, 2, 3))
    assert page.locator(".card.done").count() == 3


def test_a_busy_server_is_given_the_time_that_it_asks_for(show):
    page = show()
    times = []

    def refuse_once(route):
        times.append(page.evaluate("performance.now()") if times else 0)
        if len(times) == 1:
            error = {"error": {"status": 429, "reason": "the queue is full"}}
            route.fulfill(status=429, headers={"Retry-After": "2"}, json=error)
        else:
            route.continue_()

    page.clock.install()
    page.route("**/v1/predict*", refuse_once)
    page.set_input_files("#files", photographs(1))
    until(page, "document.querySelector('#progress-text').textContent.includes('in 2 seconds')")
    page.clock.run_for(1000)
    until(page, "document.querySelector('#progress-text').textContent.includes('in 1 second.')")
    assert len(times) == 1
    page.clock.run_for(1000)
    wait_done(page, 1)
    assert page.locator(".card.done").count() == 1


def test_a_server_that_is_gone_is_said_and_what_waits_is_sent_when_it_is_back(show, bundle):
    with serving(bundle) as url:
        page = show(url)
        give(page, *photographs(1))
    port = urlsplit(url).port
    before = bars(page)
    page.set_input_files("#files", photographs(2))
    page.wait_for_selector("#gone:not([hidden])")
    assert "The server does not answer." in page.locator("#gone").inner_text()
    page.locator(".card").first.click()
    assert bars(page) == before  # nothing is lost
    page.get_by_role("button", name="Try again").click()
    until(page, "document.querySelector('#gone').textContent.includes('still does not answer')")
    with serving(bundle, port=port):
        page.get_by_role("button", name="Try again").click()
        wait_done(page, 2)
        assert page.locator(".card.done").count() == 2
        assert not page.locator("#gone").is_visible()


def test_it_goes_on_by_itself_when_the_server_is_back(show):
    page = show()
    page.clock.install()
    page.route("**/*", lambda route: route.abort())
    page.set_input_files("#files", photographs(1))
    page.wait_for_selector("#gone:not([hidden])")
    page.clock.run_for(4000)
    assert page.locator("#gone").is_visible()
    page.unroute("**/*")
    page.clock.run_for(4000)
    wait_done(page, 1)
    assert page.locator(".card.done").count() == 1
    assert not page.locator("#gone").is_visible()


def test_what_is_stopped_is_not_sent_and_can_be_tried_again(show):
    page = show()
    sent = []

    def hold(route):
        sent.append(route)
        if len(sent) == 2:
            page.get_by_role("button", name="Stop").dispatch_event("click")
        else:
            route.continue_()

    page.route("**/v1/predict*", hold)
    page.set_input_files("#files", photographs(*range(9)))
    wait_done(page, 9)
    assert len(sent) == 2
    assert page.locator(".card.done").count() == 4
    page.locator(".card").nth(5).click()
    assert "since you stopped" in page.locator("#answer .sure").inner_text()
    page.get_by_role("button", name="Try again").click()
    until(page, "document.querySelectorAll('.card.done').length === 5")


def test_a_key_is_asked_for_and_sent(show, bundle):
    with serving(bundle, api_key="open sesame") as url:
        page = show(url, is_told=False)
        for key in ("wrong", "open sesame"):
            page.wait_for_selector("#key[open]")
            page.get_by_role("textbox", name="Key").fill(key)
            page.keyboard.press("Enter")
        until(page, NAMED)
        give(page, *photographs(1))
        assert page.locator(".card.done").count() == 1


def test_a_key_that_is_given_late_still_brings_all_that_is_told_of_the_model(show, bundle):
    with serving(bundle, api_key="open sesame") as url:
        page = show(url, is_told=False)
        page.wait_for_selector("#key[open]")
        page.get_by_role("button", name="Not now").click()
        page.set_input_files("#files", photographs(1))
        page.wait_for_selector("#key[open]")
        page.get_by_role("textbox", name="Key").fill("open sesame")
        page.keyboard.press("Enter")
        wait_done(page, 1)
        until(page, NAMED)
        assert len(bars(page)) == 3
