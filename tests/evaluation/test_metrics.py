import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as oracle

from finevote.errors import ArgumentError
from finevote.evaluation import metrics


@pytest.fixture
def table():
    """Return 300 images of 7 classes, logits (300, 7) without ties, labels that logits partly follow."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 7, 300)
    logits = rng.normal(size=(300, 7)).astype(np.float32)
    logits[np.arange(300), labels] += 1.5
    return logits, labels


@pytest.mark.parametrize("k", [1, 2, 5, 7])
def test_top_k_agrees_with_scikit_learn(table, k):
    logits, labels = table
    if k == 7:
        assert metrics.top_k_accuracy(logits, labels, k=k) == 1.0
        return
    expected = oracle.top_k_accuracy_score(labels, logits, k=k, labels=range(7))
    assert metrics.top_k_accuracy(logits, labels, k=k) == expected


def test_confusion_agrees_with_scikit_learn(table):
    logits, labels = table
    expected = oracle.confusion_matrix(labels, logits.argmax(1), labels=range(7))
    np.testing.assert_array_equal(metrics.confusion_matrix(logits, labels), expected)


def test_per_class_and_macro_agree_with_scikit_learn(table):
    logits, labels = table
    confusion = metrics.confusion_matrix(logits, labels)
    expected = oracle.recall_score(labels, logits.argmax(1), average=None)
    np.testing.assert_allclose(metrics.per_class_accuracy(confusion), expected, rtol=1e-15)
    assert metrics.macro_accuracy(confusion) == pytest.approx(oracle.balanced_accuracy_score(labels, logits.argmax(1)))


def test_softmax_agrees_with_scipy(table):
    from scipy.special import softmax

    np.testing.assert_allclose(metrics.softmax(table[0]), softmax(table[0].astype(np.float64), axis=1), rtol=1e-12)


def test_softmax_of_huge_logits_is_finite():
    np.testing.assert_allclose(metrics.softmax(np.array([[1e30, 0.0]], np.float32)), [[1.0, 0.0]])


@given(arrays(np.float32, (5, 4), elements=st.sampled_from([0.0, 1.0, 2.0])), st.integers(1, 4))
def test_ties_go_to_the_lower_class_in_ranking_and_top_k_alike(logits, k):
    labels = np.array([0, 1, 2, 3, 0])
    ranked = [sorted(range(4), key=lambda c: (-row[c], c)) for row in logits.tolist()]
    assert metrics.rank_classes(logits).tolist() == ranked
    expected = [label in order[:k] for label, order in zip(labels, ranked, strict=True)]
    assert metrics.top_k_correct(logits, labels, k=k).tolist() == expected


def test_a_class_without_images_has_no_accuracy_and_is_left_out_of_the_macro():
    confusion = np.array([[3, 1, 0], [0, 0, 0], [0, 1, 1]])
    np.testing.assert_array_equal(metrics.per_class_accuracy(confusion), [0.75, np.nan, 0.5])
    assert metrics.macro_accuracy(confusion) == 0.625


def test_most_confused_pairs_come_commonest_first_then_by_class():
    confusion = np.array([[9, 2, 1], [2, 9, 0], [3, 0, 9]])
    pairs = metrics.most_confused_pairs(confusion, limit=3)
    assert pairs == [(2, 0, 3), (0, 1, 2), (1, 0, 2)]


def test_a_flawless_model_confuses_no_pair():
    assert metrics.most_confused_pairs(np.diag([4, 5]), limit=3) == []


def test_unknown_labels_are_refused():
    with pytest.raises(ArgumentError, match="labels run from -1 to 1, but must lie in 0 to 1"):
        metrics.top_k_accuracy(np.zeros((2, 2)), np.array([-1, 1]), k=1)


def test_logits_that_are_not_finite_are_refused_and_counted():
    logits = np.array([[0.0, np.nan], [1.0, 0.0], [np.inf, 0.0]])
    with pytest.raises(ArgumentError, match="2 of 3 images"):
        metrics.top_k_accuracy(logits, np.array([0, 1, 1]), k=1)


@pytest.mark.parametrize("k", [0, 3])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(ArgumentError, match=f"k={k} must lie between 1 and the number of classes, 2"):
        metrics.top_k_accuracy(np.zeros((1, 2)), np.array([0]), k=k)


def test_shapes_that_disagree_are_refused():
    with pytest.raises(ArgumentError, match=r"\(n, C\) and \(n,\)"):
        metrics.confusion_matrix(np.zeros((2, 3)), np.zeros(3, np.int64))
