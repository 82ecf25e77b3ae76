"""What tests do with the page: choose photographs, wait, read what it shows."""

import json
from decimal import ROUND_HALF_UP, Decimal

import pytest

from tests.serving.page.server import png

NAMED = "document.querySelector('#brand').textContent === 'colours'"  # the server has told of its model


def photographs(*seeds):
    return [{"name": f"photo {seed}.png", "mimeType": "image/png", "buffer": png(seed)} for seed in seeds]


def give(page, *files, num=None):
    """Choose files as by hand, and wait until each has its answer."""
    page.set_input_files("#files", list(files))
    wait_done(page, num or len(files))


def wait_done(page, num):
    until(page, f"document.querySelectorAll('.card.done, .card.failed').length === {num}")


def until(page, script, argument=None):
    """Wait until a script says yes; playwright's own waiting needs what the page's policy forbids."""
    for _ in range(300):
        if page.evaluate(script, argument):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never: {script}")


def ask(page, server, path, seed, **query):
    file = photographs(seed)[0]
    return page.request.post(f"{server}{path}", params=query, multipart={"images": file}).json()


def percent(share):
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{Decimal(share * 100).quantize(Decimal('0.1'), ROUND_HALF_UP)}%"


def readable(name):
    return name.replace("_", " ")


def bars(page):
    names, values = (page.locator(f".bars .{part}").all_inner_texts() for part in ("name", "value"))
    return list(zip(names, values, strict=True))


def change_answer(page, change):
    """Let the server's answer to the next photographs be changed on its way."""

    def handle(route):
        response = route.fetch()
        content = response.json()
        for result in content["results"]:
            change(result)
        route.fulfill(response=response, body=json.dumps(content))

    page.route("**/v1/predict*", handle)


def change_card(page, change):
    """Show the page again, with what the server tells of its model changed."""

    def handle(route):
        response = route.fetch()
        card = response.json()
        change(card)
        route.fulfill(response=response, body=json.dumps(card))

    page.route("**/v1/model", handle)
    page.reload()
    until(page, NAMED)


def pixel(page, x, y):
    """Return red, green, blue and alpha of what lies over the photograph at a point, in fractions of its sides."""
    script = """([x, y]) => { const canvas = document.querySelector('.picture canvas');
      const context = canvas.getContext('2d');
      return [...context.getImageData(Math.floor(x * canvas.width), Math.floor(y * canvas.height), 1, 1).data]; }"""
    return page.evaluate(script, [x, y])


def centre(view, grid, row, column):
    return (
        view["left"] + (column + 0.5) / grid[1] * (view["right"] - view["left"]),
        view["top"] + (row + 0.5) / grid[0] * (view["bottom"] - view["top"]),
    )


def is_disc(color):
    red, green, blue, alpha = color
    return alpha > 180 and red > 150 and green > 140 and blue < 110


def places(rows):
    return [(row, column, value) for row, values in enumerate(rows) for column, value in enumerate(values)]
