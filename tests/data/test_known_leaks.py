import pytest

from finevote.data.known_leaks import KnownLeaks, keep_leaks, recall_leaks

LEAKS = KnownLeaks({"test": {"train": 3}}, {"train": 10, "test": 9}, "/somewhere/audit.json")


def test_what_was_kept_is_known_for_the_same_data_and_images_in_any_order():
    keep_leaks("/birds", ["a", "b"], LEAKS)
    assert recall_leaks("/birds", ["b", "a"]) == LEAKS


@pytest.mark.parametrize(("data", "ids"), [("/other", ["a", "b"]), ("/birds", ["a"]), ("/birds", ["a", "b", "c"])])
def test_other_data_or_images_are_not_known(data, ids):
    keep_leaks("/birds", ["a", "b"], LEAKS)
    assert recall_leaks(data, ids) is None


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 99, "data": "/birds"}', '{"format": 1, "data": "/birds"}']
)
def test_a_broken_entry_is_as_good_as_none(tmp_path, monkeypatch, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keep_leaks("/birds", ["a"], LEAKS)
    (entry,) = tmp_path.rglob("audits/*.json")
    entry.write_text(content)
    assert recall_leaks("/birds", ["a"]) is None
