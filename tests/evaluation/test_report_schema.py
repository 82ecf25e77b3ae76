"""docs/report.md against what is written."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from finevote.evaluation.calibrator import calibrate
from finevote.evaluation.measurement import Measurement
from finevote.evaluation.pointing import PointingFigure
from finevote.evaluation.report import make_report
from finevote.measure.sections import find_sections
from finevote.types import Predictions

PAGE = Path(__file__).parents[2] / "docs" / "report.md"


def predictions(num_images=40):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (num_images, 6)).astype(np.float32)
    return Predictions(tuple(map(str, range(num_images))), rng.integers(0, 6, num_images), logits)


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
    )
    sections = find_sections(predictions(), calibrate(predictions()), split="test")
    return measurement, make_report(predictions(), measurement, class_names=list("abcdef"), sections=sections)


def test_every_key_is_described():
    _, report = make()
    page = PAGE.read_text(encoding="utf-8")
    found = report.to_dict()
    keys = {*found, *found["per_class"][0], *found["confused"][0], *found["trust"], *found["trust"]["before"]}
    assert [key for key in sorted(keys) if f"`{key}`" not in page.replace("trust.", "")] == []


def test_a_measurement_comes_back_from_the_json_of_its_report():
    measurement, report = make()
    assert Measurement.from_dict(json.loads(json.dumps(report.to_dict()))) == measurement


def test_the_report_of_an_earlier_version_comes_back_too():
    measurement, report = make()
    values = report.to_dict()
    del values["num_unread_openings"]
    assert Measurement.from_dict(values) == replace(measurement, num_unread_openings=0)
