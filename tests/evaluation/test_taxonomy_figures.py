import io
import json

import numpy as np
import pytest
from rich.console import Console

from finevote.evaluation.metrics import softmax
from finevote.evaluation.taxonomy_figures import measure_taxonomy
from finevote.types import Predictions, Taxonomy

TREE = Taxonomy(("species", "genus"), tuple((f"{genus}{number}", genus) for genus in "ABC" for number in range(2)))


def predictions(num_images=600):
    """Return a calibrated model that knows the genus well and the species badly."""
    rng = np.random.default_rng(0)
    logits = (rng.normal(0, 1, (num_images, 6)) + np.repeat(rng.normal(0, 5, (num_images, 3)), 2, axis=1)).astype("f4")
    labels = (softmax(logits).cumsum(axis=1) > rng.random((num_images, 1))).argmax(axis=1)
    return Predictions(tuple(map(str, range(num_images))), labels, logits)


@pytest.fixture(scope="module")
def figures():
    return measure_taxonomy(predictions(), None, TREE)


def test_every_level_is_judged_by_its_own_taxa(figures):
    found = predictions()
    species, genus = figures.levels
    right = found.logits.argmax(axis=1) == found.labels
    assert species.accuracy.value == pytest.approx(right.mean())
    of_genera = softmax(found.logits).reshape(-1, 3, 2).sum(axis=2)
    assert genus.accuracy.value == pytest.approx((of_genera.argmax(axis=1) == found.labels // 2).mean())
    assert (species.num_taxa, genus.num_taxa) == (6, 3)
    assert genus.area.high < species.area.low
    assert genus.curve[-1].risk == pytest.approx(1 - genus.accuracy.value)


def test_what_is_answered_is_nearly_as_right_as_it_is_sure(figures):
    found = predictions()
    probabilities = softmax(found.logits)
    of_genera = probabilities.reshape(-1, 3, 2).sum(axis=2)
    is_species = probabilities.max(axis=1) >= 0.9
    is_genus = ~is_species & (of_genera.max(axis=1) >= 0.9)
    assert [row.answered.value for row in figures.levels] == pytest.approx([is_species.mean(), is_genus.mean()])
    assert figures.answered.value == pytest.approx((is_species | is_genus).mean())
    wrong = of_genera.argmax(axis=1)[is_genus] != found.labels[is_genus] // 2
    assert figures.levels[1].error.value == pytest.approx(wrong.mean())
    assert figures.error.low <= 0.1


def test_without_a_taxonomy_there_is_nothing_to_tell():
    assert measure_taxonomy(predictions(), None, None) is None


def test_a_level_at_which_nothing_is_answered_has_no_error():
    found = predictions()
    flat = Predictions(found.image_ids, found.labels, np.zeros_like(found.logits))
    figures = measure_taxonomy(flat, None, TREE)
    assert (figures.answered.value, figures.error) == (0, None)
    assert [row.error for row in figures.levels] == [None, None]


def test_the_table_and_json_hold_every_figure(figures):
    console = Console(width=90, file=io.StringIO(), color_system=None)
    console.print(figures.table())
    text = console.file.getvalue()
    assert "species, one of 6: right" in text
    assert "any level 90% sure" in text
    values = json.loads(json.dumps(figures.to_dict()))
    assert values["levels"][1]["area"] == figures.levels[1].area._asdict()
    assert values["levels"][1]["curve"][0] == figures.levels[1].curve[0]._asdict()
    assert (values["levels"][0]["level"], values["sure"]) == ("species", 0.9)
