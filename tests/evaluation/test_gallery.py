import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from finevote.errors import ArgumentError
from finevote.evaluation.evidence import find_evidence
from finevote.evaluation.gallery import Gallery, half_precision, relative_paths

CLASSES = ("a", "b", "c")


def make_gallery(num=30, **changes):
    rng = np.random.default_rng(0)
    values = {
        "embeddings": rng.normal(size=(num, 5)).astype(np.float16),
        "labels": np.arange(num) % 3,
        "image_ids": tuple(f"train/{number}.png" for number in range(num)),
        "paths": (None,) * num,
    }
    return Gallery(**{**values, **changes})


def ask(num=4):
    rng = np.random.default_rng(1)
    return rng.normal(size=(num, 3)), rng.normal(size=(num, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros(3, np.int64)}, r"labels \(3,\) and 30 paths of 30 images"),
        ({"paths": (None,)}, "1 paths of 30 images"),
        ({"embeddings": np.zeros((29, 5), np.float16)}, r"embeddings \(29, 5\) of 30 images"),
        ({"image_ids": ("same",) * 30}, "an image comes twice"),
        ({"embeddings": np.full((30, 5), np.nan, np.float16)}, "not finite"),
        ({"thumbnail_px": 32}, "0 thumbnails of 32 px of 30 images"),
        ({"metric": "manhattan"}, "the metric 'manhattan' is not known"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(ArgumentError, match=message):
        make_gallery(**changes)


def test_embeddings_too_large_for_half_precision_are_kept_in_single():
    assert half_precision(np.full((1, 2), 60_000.0)).dtype == np.float16
    large = half_precision(np.full((1, 2), 70_000.0))
    assert large.dtype == np.float32
    assert np.isfinite(large).all()


def test_paths_are_kept_relative_to_the_data_or_to_what_they_share(tmp_path):
    paths = [tmp_path / "data" / "train" / "a" / "1.png", None, tmp_path / "data" / "train" / "b" / "2.png"]
    assert relative_paths(paths, root=tmp_path / "data") == (
        ("train/a/1.png", None, "train/b/2.png"),
        str(tmp_path / "data"),
    )
    shared = (("a/1.png", None, "b/2.png"), str(tmp_path / "data" / "train"))
    assert relative_paths(paths) == shared
    assert relative_paths(paths, root=tmp_path / "elsewhere") == shared
    assert relative_paths([None, None], root=tmp_path) == ((None, None), None)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_evidence_is_the_nearest_of_any_class_and_of_the_two_likeliest(metric):
    gallery = make_gallery(metric=metric)
    logits, embeddings = ask()
    for number, one in enumerate(find_evidence(gallery, logits, embeddings, class_names=CLASSES, num_each=4)):
        best, second = np.argsort(-logits[number])[:2]
        assert (one.predicted, one.runner_up) == (CLASSES[best], CLASSES[second])
        for found, label in ((one.nearest, None), (one.of_predicted, best), (one.of_runner_up, second)):
            rows = np.arange(30) if label is None else np.flatnonzero(gallery.labels == label)
            model = NearestNeighbors(n_neighbors=4, metric=metric, algorithm="brute").fit(gallery.embeddings[rows])
            (distances,), (places,) = model.kneighbors(embeddings[number : number + 1])
            assert [near.image_id for near in found] == [gallery.image_ids[row] for row in rows[places]]
            assert [near.distance for near in found] == pytest.approx(distances, abs=1e-5)
            assert all(near.class_name == CLASSES[int(near.image_id[6:-4]) % 3] for near in found)


def test_an_image_is_no_evidence_for_itself_by_id_or_by_path(tmp_path):
    gallery = make_gallery(paths=tuple(f"train/{number}.png" for number in range(30)), root=str(tmp_path))
    own = gallery.embeddings[[7, 8]].astype(np.float32)
    names = ["train/7.png", tmp_path / "train" / "8.png"]
    logits = np.eye(3)[[1, 2]] + np.array([0, 0.5, 0.25])
    for one, row in zip(find_evidence(gallery, logits, own, class_names=CLASSES, names=names), (7, 8), strict=True):
        everything = {near.image_id for near in (*one.nearest, *one.of_predicted, *one.of_runner_up)}
        assert f"train/{row}.png" not in everything
        assert all(near.distance > 0 for near in one.nearest)
    found = find_evidence(gallery, logits, own, class_names=CLASSES)
    assert [one.nearest[0].image_id for one in found] == ["train/7.png", "train/8.png"]


def test_a_class_without_training_images_has_no_evidence():
    gallery = make_gallery(labels=np.zeros(30, np.int64))
    (one,) = find_evidence(gallery, np.array([[1.0, 2.0, 0.0]]), ask(1)[1], class_names=CLASSES)
    assert (one.predicted, one.of_predicted) == ("b", ())
    assert len(one.of_runner_up) == len(one.nearest) == 3


def test_a_picture_is_the_file_else_the_thumbnail_else_none(tmp_path):
    red, blue = (Image.new("RGB", (40, 30), color) for color in ("red", "blue"))
    red.save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"no picture any more")
    buffer = io.BytesIO()
    blue.resize((16, 12)).save(buffer, "JPEG")
    with_thumbnails = make_gallery(
        3, paths=("0.png", "1.png", "2.png"), root=str(tmp_path), thumbnails=(buffer.getvalue(),) * 3, thumbnail_px=16
    )
    without = make_gallery(3, paths=("0.png", "1.png", "2.png"), root=str(tmp_path))

    def sizes(gallery):
        (one,) = find_evidence(gallery, *ask(1), class_names=CLASSES)
        pictures = {near.image_id: near.picture() for near in one.nearest}
        return [getattr(pictures[image_id], "size", None) for image_id in gallery.image_ids]

    assert sizes(with_thumbnails) == [(40, 30), (16, 12), (16, 12)]
    assert sizes(without) == [(40, 30), None, None]
    assert [without.path(row) for row in range(3)] == [tmp_path / "0.png", tmp_path / "1.png", None]


def test_logits_of_other_classes_are_refused():
    with pytest.raises(ArgumentError, match=r"logits \(4, 3\) of 4 images and 2 classes"):
        find_evidence(make_gallery(), *ask(), class_names=("a", "b"))


def test_an_image_is_found_by_a_relative_path_too(tmp_path, monkeypatch):
    gallery = make_gallery(3, paths=("0.png", "1.png", None), root=str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert gallery.find_rows([Path("1.png"), "other.png", None, "train/2.png"]).tolist() == [1, -1, -1, 2]
