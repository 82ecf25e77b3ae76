import numpy as np
import pytest

from finevote.report.choose import choose, choose_mistakes
from finevote.types import Predictions


def rows_of(*chances):
    return np.array(chances, np.float64)


PROBABILITIES = rows_of(
    [0.90, 0.08, 0.02],  # 0: right, surest
    [0.60, 0.30, 0.10],  # 1: right
    [0.20, 0.70, 0.10],  # 2: wrong, surest
    [0.45, 0.44, 0.11],  # 3: in doubt
    [0.05, 0.85, 0.10],  # 4: right, of another class
    [0.34, 0.36, 0.30],  # 5: wrong, in doubt
)
LABELS = np.array([0, 0, 0, 0, 1, 0])


def test_the_surest_of_each_kind_come_first():
    found = choose(PROBABILITIES, LABELS, limit=1)
    assert found == ([0], [2], [3])


def test_of_the_right_ones_each_class_comes_before_a_class_comes_again():
    sure = np.array([0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93])
    probabilities, labels = np.stack([sure, 1 - sure], axis=1), np.zeros(7, np.int64)
    probabilities[3], labels[3] = [0.04, 0.96], 1
    assert choose(probabilities, labels, limit=3).best == [0, 3, 1]


def test_no_image_is_chosen_twice_nor_one_that_is_shown_elsewhere():
    found = choose(PROBABILITIES, LABELS, limit=4, but={0})
    together = [*found.best, *found.worst, *found.doubtful]
    assert sorted(together) == [1, 2, 3, 4, 5]


def predictions(labels, embeddings=None):
    ids = tuple(map(str, range(len(labels))))
    return Predictions(ids, np.array(labels), np.zeros((len(labels), 2), np.float32), embeddings=embeddings)


SAID = rows_of([0.1, 0.9], [0.3, 0.7], [0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8])
TRUE = [0, 0, 0, 0, 1, 1]


def test_a_pair_shows_its_surest_mistake_with_the_nearest_right_images_of_either_class():
    embeddings = np.array([[1, 0], [0, 1], [0, 1], [1, 0.1], [-1, 0], [1, -0.1]], np.float32)
    (found,) = choose_mistakes(predictions(TRUE, embeddings), [(0, 1)], SAID, limit=4)
    assert found == (0, 1, 0, 5, 3)


def test_without_embeddings_the_surest_of_either_class_stand_beside_the_mistake():
    (found,) = choose_mistakes(predictions(TRUE), [(0, 1)], SAID, limit=4)
    assert found == (0, 1, 0, 4, 2)


def test_the_other_direction_of_a_pair_is_left_out():
    said = np.vstack([SAID, [0.9, 0.1]])
    found = choose_mistakes(predictions([*TRUE, 1]), [(0, 1), (1, 0)], said, limit=4)
    assert [(one.true, one.predicted) for one in found] == [(0, 1)]


@pytest.mark.parametrize(("labels", "wanted"), [([0, 0, 1], (1, 2)), ([0, 1, 1], (None, 1))])
def test_where_none_of_a_class_is_right_another_is_shown_and_none_where_there_is_no_other(labels, wanted):
    said = rows_of([0.1, 0.9], [0.2, 0.8], [0.3, 0.7])
    (found,) = choose_mistakes(predictions(labels), [(0, 1)], said, limit=1)
    assert (found.of_true, found.of_predicted) == wanted


def test_a_photograph_stands_in_two_pairs_only_where_its_class_has_no_other():
    labels = [0, 0, 1, 1, 2, 2]
    said = rows_of([0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.7, 0.2], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8])
    first, second = choose_mistakes(predictions(labels), [(0, 1), (2, 1)], said, limit=2)
    assert {first.of_predicted, second.of_predicted} == {2, 3}
