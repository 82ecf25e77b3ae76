"""The page as a file: one piece, of nobody else's, with nothing in it that a strict policy would refuse."""

import re

import pytest

from tests.house.repository import PACKAGE

HTML = (PACKAGE / "serving" / "static" / "index.html").read_text(encoding="utf-8")


def test_it_names_no_address_but_that_of_a_namespace():
    assert set(re.findall(r"\b(?:https?|wss?):[^\s\"'`)]*", HTML)) == {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize("tag", ["style", "script"])
def test_it_has_one_block_of_each_that_a_hash_can_allow(tag):
    assert len(re.findall(rf"<{tag}[\s>]", HTML)) == 1


@pytest.mark.parametrize("attribute", [r"style=", r"on[a-z]+=", r"<(?:link|script|img)[^>]*\ssrc="])
def test_its_markup_has_nothing_that_a_strict_policy_refuses(attribute):
    markup = re.sub(r"<(script|style)>.*?</\1>", "", HTML, flags=re.DOTALL)
    assert re.findall(rf"\s{attribute}", markup) == []


@pytest.mark.parametrize(
    "word", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "DOMParser", "eval(", "new Function"]
)
def test_no_text_can_become_markup(word):
    assert word not in HTML


@pytest.mark.parametrize("word", ["localStorage", "sessionStorage", "indexedDB", "document.cookie", "caches."])
def test_nothing_can_be_stored(word):
    assert word not in HTML
