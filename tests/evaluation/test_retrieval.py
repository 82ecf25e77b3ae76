from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from pytorch_metric_learning.utils.inference import CustomKNN
from sklearn.metrics import average_precision_score

from finevote.evaluation.gallery import Gallery
from finevote.evaluation.means import mean_interval
from finevote.evaluation.retrieval import measure_retrieval, rank_own_class
from finevote.evaluation.shares import share
from finevote.types import Predictions

NUM_CLASSES = 4


def some(seed, num, *, prefix, dim=6):
    """Return embeddings around class centres, so that some queries find their class and others do not."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, NUM_CLASSES, num)
    labels[:NUM_CLASSES] = np.arange(NUM_CLASSES)
    embeddings = (1.5 * np.eye(NUM_CLASSES, dim)[labels] + rng.normal(size=(num, dim))).astype(np.float32)
    return embeddings, labels, tuple(f"{prefix}{number}" for number in range(num))


def make_gallery(num=60, **changes):
    embeddings, labels, image_ids = some(0, num, prefix="train")
    values = {"embeddings": embeddings.astype(np.float16), "labels": labels, "image_ids": image_ids}
    return Gallery(**{**values, "paths": (None,) * num, **changes})


def make_predictions(num=50, **changes):
    embeddings, labels, image_ids = some(1, num, prefix="test")
    found = Predictions(image_ids, labels, np.zeros((num, NUM_CLASSES), np.float32), embeddings=embeddings)
    return replace(found, **changes)


def figures(gallery, predictions, **given):
    found = measure_retrieval(predictions, gallery, **given)
    return [one.value for one in (found.recall_at_1, found.recall_at_5, found.mean_average_precision)]


def by_loop(gallery, predictions, themselves=None):
    """Return recall at 1 and 5 and mean average precision, image by image."""
    firsts, precisions = [], []
    for number, (query, label) in enumerate(zip(predictions.embeddings, predictions.labels, strict=True)):
        pairs = [
            (np.linalg.norm(one.astype(np.float64) - query), place, other)
            for place, (one, other) in enumerate(zip(gallery.embeddings, gallery.labels, strict=True))
            if not themselves or place != themselves[number]
        ]
        hits = [other == label for _, _, other in sorted(pairs)]
        firsts.append(hits.index(True) + 1)
        places = [place for place, hit in enumerate(hits, start=1) if hit]
        precisions.append(np.mean([(count + 1) / place for count, place in enumerate(places)]))
    return [np.mean([first <= k for first in firsts]) for k in (1, 5)] + [np.mean(precisions)]


def test_the_figures_are_those_of_a_loop():
    gallery, predictions = make_gallery(), make_predictions()
    found = figures(gallery, predictions)
    assert found == pytest.approx(by_loop(gallery, predictions))
    assert 0.2 < found[2] < found[0] < found[1] < 1


def test_mean_average_precision_is_that_of_pytorch_metric_learning():
    gallery, predictions = make_gallery(), make_predictions()
    distance = LpDistance(normalize_embeddings=False)
    calculator = AccuracyCalculator(
        include=("mean_average_precision", "precision_at_1"), k=60, knn_func=CustomKNN(distance)
    )
    arrays = (predictions.embeddings, predictions.labels, gallery.embeddings.astype(np.float32), gallery.labels)
    expected = calculator.get_accuracy(*(torch.from_numpy(one) for one in arrays), ref_includes_query=False)
    recall, _, precision = figures(gallery, predictions)
    assert recall == pytest.approx(expected["precision_at_1"])
    assert precision == pytest.approx(expected["mean_average_precision"], abs=1e-6)


def test_average_precision_is_that_of_scikit_learn():
    gallery, predictions = make_gallery(), make_predictions()
    bank, queries = gallery.embeddings.astype(np.float64), predictions.embeddings
    ranks = rank_own_class(bank, gallery.labels, queries, predictions.labels)
    expected = [
        average_precision_score(gallery.labels == label, -np.linalg.norm(bank - query, axis=1))
        for query, label in zip(queries, predictions.labels, strict=True)
    ]
    assert ranks.precision == pytest.approx(expected)


def test_an_image_that_is_in_the_gallery_does_not_find_itself():
    embeddings, labels, image_ids = some(0, 60, prefix="train")
    gallery = make_gallery()
    predictions = make_predictions(60, embeddings=embeddings, labels=labels, image_ids=image_ids)
    found = measure_retrieval(predictions, gallery)
    assert found.num_themselves == 60
    assert figures(gallery, predictions) == pytest.approx(by_loop(gallery, predictions, list(range(60))))
    assert any("do not find themselves there: 60" in note for note in found.notes())


def test_an_image_whose_very_file_is_in_the_gallery_does_not_find_that_one():
    embeddings, labels, image_ids = some(0, 60, prefix="train")
    gallery = make_gallery()
    predictions = make_predictions(60, embeddings=embeddings, labels=labels)
    seen = dict(zip(predictions.image_ids, image_ids, strict=True))
    assert measure_retrieval(predictions, gallery, seen=seen).num_themselves == 60
    assert figures(gallery, predictions, seen=seen) == pytest.approx(by_loop(gallery, predictions, list(range(60))))
    assert figures(gallery, predictions)[0] == 1  # otherwise each finds itself first


def test_queries_of_whose_class_the_gallery_has_no_image_are_left_out_and_counted():
    gallery = make_gallery()
    rows = np.flatnonzero(gallery.labels != 2)
    smaller = replace(
        gallery,
        embeddings=gallery.embeddings[rows],
        labels=gallery.labels[rows],
        image_ids=tuple(gallery.image_ids[row] for row in rows),
        paths=(None,) * len(rows),
    )
    predictions = make_predictions()
    found = measure_retrieval(predictions, smaller)
    assert found.num_left_out == (predictions.labels == 2).sum()
    assert found.num_queries + found.num_left_out == 50
    assert any("of whose class the gallery has no other" in note for note in found.notes())


def test_intervals_take_groups_whole():
    groups = np.repeat(np.arange(10), 5).astype(str)
    gallery, alone = make_gallery(), make_predictions()
    found = measure_retrieval(replace(alone, groups=groups), gallery)
    ranks = rank_own_class(gallery.embeddings, gallery.labels, alone.embeddings, alone.labels)
    assert found.recall_at_1 == share(ranks.first == 1, groups=groups)[:3]
    low, high = mean_interval(1 - ranks.precision, groups=groups, reach=1.0)
    assert found.mean_average_precision[1:] == pytest.approx((1 - high, 1 - low))
    assert found.recall_at_5 != measure_retrieval(alone, gallery).recall_at_5


def test_where_every_image_is_found_perfectly_the_interval_is_no_point():
    gallery = make_gallery(4, embeddings=np.eye(4, 6, dtype=np.float16))
    predictions = make_predictions(4, embeddings=np.eye(4, 6, dtype=np.float32))
    value, low, high = measure_retrieval(predictions, gallery).mean_average_precision
    assert (value, high) == (1, 1)
    assert 0 < low < 1


def test_without_a_gallery_or_embeddings_there_are_no_figures():
    assert measure_retrieval(make_predictions(), None) is None
    assert measure_retrieval(make_predictions(embeddings=None), make_gallery()) is None
