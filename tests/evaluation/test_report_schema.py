"""docs/report.md against what is written."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from finevote.data.views import VIEWS
from finevote.evaluation.calibrator import calibrate
from finevote.evaluation.faithfulness import FaithfulnessCurves
from finevote.evaluation.gallery import Gallery
from finevote.evaluation.measurement import Measurement
from finevote.evaluation.pointing import PointingFigure, PointingGame
from finevote.evaluation.probes import ProbeAnswers, ProbeName
from finevote.evaluation.report import make_report
from finevote.measure.sections import find_sections
from finevote.types import Predictions, Taxonomy

PAGE = Path(__file__).parents[2] / "docs" / "report.md"


TREE = Taxonomy(("species", "genus"), tuple((name, "first" if name in "abc" else "second") for name in "abcdef"))


def predictions(num_images=40):
    """Return answers of which every kind of figures can be made."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (num_images, 2, 6)).astype(np.float32)
    return Predictions(
        tuple(map(str, range(num_images))),
        rng.integers(0, 6, num_images),
        logits[:, 0],
        embeddings=rng.normal(size=(num_images, 5)),
        groups=np.repeat(np.arange(num_images // 2), 2).astype(str),
        view_names=tuple(view.name for view in VIEWS["flip"]),
        view_logits=logits,
    )


def probes():
    names = (ProbeName("kNN", "cls", "CLS", 5),)
    return ProbeAnswers("dinov2-s", 100, names, predictions().image_ids, np.zeros((1, 40), np.int64))


def curves():
    ids, shape = predictions().image_ids[:20], (20, 3, 5)
    scores = np.random.default_rng(0).random(shape).astype(np.float32)
    return FaithfulnessCurves(ids, ("votes", "random", "rollout"), np.linspace(0, 1, 5), scores, scores)


def gallery():
    return Gallery(np.eye(6, 5, dtype=np.float16), np.arange(6), tuple("uvwxyz"), (None,) * 6)


def keys_in(values):
    """Return every key of nested JSON, but for those that are names of images."""
    if isinstance(values, list):
        return {key for value in values for key in keys_in(value)}
    if not isinstance(values, dict):
        return set()
    return {
        *values,
        *(key for name, value in values.items() if name not in {"skipped", "seen"} for key in keys_in(value)),
    }


def make():
    measurement = Measurement(
        run="r",
        data="d",
        split="test",
        bundle_sha256="1",
        weights_sha256="2",
        keep_rate=0.5,
        notes=("a", "b"),
        skipped={"x": "broken"},
        seen={"0": "7"},
        num_test_openings=2,
        num_unread_openings=1,
        pointing=PointingFigure(0.4, 0.1, 4.0, 12),
        on_subject=PointingFigure(0.6, 0.3, 2.0, 12),
        pointing_game=PointingGame(0.5, 0.2, 0.8, 0.1, 5.0, 2.0, 8.0, 12),
        subject_game=PointingGame(0.6, 0.3, 0.9, 0.3, 2.0, 1.0, 3.0, 12),
    )
    calibration = calibrate(predictions(), class_means=np.eye(6, 5))
    sections = find_sections(
        predictions(),
        calibration,
        split="test",
        unknown=predictions(10),
        taxonomy=TREE,
        probes=probes(),
        curves=curves(),
        gallery=gallery(),
        added=("later",),
    )
    return measurement, make_report(predictions(), measurement, class_names=list("abcdef"), sections=sections)


def test_every_key_is_described():
    _, report = make()
    kinds = {
        "probes",
        "trust",
        "selective",
        "taxonomy",
        "unknown",
        "fusion",
        "augmentation",
        "faithfulness",
        "retrieval",
        "added",
    }
    assert kinds == set(report.sections)
    page = PAGE.read_text(encoding="utf-8")
    words = {word for part in re.findall("`([^`]+)`", page) for word in part.split(".")}
    assert keys_in(json.loads(json.dumps(report.to_dict()))) - words == set()


def test_a_measurement_comes_back_from_the_json_of_its_report():
    measurement, report = make()
    assert Measurement.from_dict(json.loads(json.dumps(report.to_dict()))) == measurement


def test_the_report_of_an_earlier_version_comes_back_too():
    measurement, report = make()
    values = report.to_dict()
    for name in ("num_unread_openings", "pointing_game", "subject_game"):
        del values[name]
    earlier = replace(measurement, num_unread_openings=0, pointing_game=None, subject_game=None)
    assert Measurement.from_dict(values) == earlier
