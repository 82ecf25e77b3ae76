import pytest

from finevote.bench.plan import What
from finevote.bench.results import Sample
from finevote.bench.tables import in_words, markdown
from tests.bench.cases import tiny_case

ABOUT = {
    "machine": {"cpu": "C", "num_cores": 2, "num_threads": 1, "memory_gib": 8, "gpu": None, "system": "Linux"},
    "versions": {"torch": "2"},
    "commit": None,
}


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.01234, "s", "12.3 ms"),
        (0.9996, "s", "1,000 ms"),
        (2.5, "s", "2.5 s"),
        (1234.5, "s", "1,234 s"),
        (1234.5, "MiB", "1,234 MiB"),
        (0.123, "%", "12.30 %"),
        (0.85, "", "0.850"),
        (None, "s", "-"),
    ],
)
def test_values_have_their_units(value, unit, words):
    assert in_words(Sample(What.STEP, "time", "ours", value, unit)) == words


def test_a_ratio_stands_behind_its_value_with_its_spread_and_failures_below_the_table():
    samples = [
        Sample(What.STEP, "time", "plain", 0.2, "s"),
        Sample(What.STEP, "time", "ours", 0.1, "s"),
        Sample(What.STEP, "time ratio", "ours", 0.5, "", low=0.4, high=0.6, raw=(0.4, 0.5, 0.6)),
        Sample(What.STEP, "time", "naive", None, "s", note="does not fit into memory"),
    ]
    page = markdown(ABOUT, [sample.of(tiny_case(size=px), num_tokens=px) for px in (32, 48) for sample in samples])
    assert "| px | tokens | quantity | plain | ours | naive |" in page
    assert "| 48 | 48 | time | 200 ms | 100 ms; 0.500 (0.400 to 0.600) | - |" in page
    assert page.count("- naive: does not fit into memory") == 1
    assert "All: backbone vit_tiny_patch16_224, batch 4, classes 5," in page
