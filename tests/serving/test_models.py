"""Other models than a voting one without calibration: calibrated, with a gallery, plain, exported."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from finevote.bundle.write import save_bundle
from finevote.config import config_from_values
from finevote.evaluation.answers import AnswerRule
from finevote.evaluation.calibrator import SetRule, calibrate
from finevote.evaluation.gallery import Gallery
from finevote.predictor import Predictor
from finevote.serving.schemas import ModelAnswer
from finevote.serving.served import name_of_model
from finevote.types import Predictions, Taxonomy
from tests.serving.live import photograph, running
from tests.tiny import CLASSES, make_config, make_model, write_bundle
from tests.training.helpers import changed, tiny_values

TAXONOMY = Taxonomy(("species", "genus"), (("blue", "cold"), ("green", "cold"), ("red", "warm")))


def some_predictions(num_images=60, width=24):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, num_images)
    logits = rng.normal(0, 1, (num_images, 3)).astype(np.float32) + 3 * np.eye(3, dtype=np.float32)[labels]
    embeddings = rng.normal(0, 1, (num_images, width)).astype(np.float32)
    return Predictions(tuple(map(str, range(num_images))), labels, logits, embeddings=embeddings)


def as_jpeg(color):
    file = io.BytesIO()
    Image.new("RGB", (16, 16), color).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """Return a bundle with calibration, taxonomy and a gallery of four images."""
    config = make_config()
    model, preprocessing = make_model(config)
    gallery = Gallery(
        embeddings=np.random.default_rng(1).normal(0, 1, (4, 24)).astype(np.float16),
        labels=np.array([0, 1, 2, 2]),
        image_ids=("train/blue/0.png", "train/green/0.png", "train/red/0.png", "train/red/1.png"),
        paths=(None,) * 4,
        thumbnails=tuple(map(as_jpeg, ("blue", "green", "red", "red"))),
        thumbnail_px=16,
    )
    means = np.random.default_rng(2).normal(0, 1, (3, 24))
    return save_bundle(
        tmp_path_factory.mktemp("rich") / "my-run" / "bundle",
        model,
        config=config,
        class_names=CLASSES,
        preprocessing=preprocessing,
        details={"val_top1": 0.8, "val_num_images": 60, "data": "flowers102"},
        calibration=calibrate(some_predictions(), class_means=means),
        taxonomy=TAXONOMY,
        gallery=gallery,
    )


@pytest.fixture(scope="module")
def server(rich):
    with running(rich) as live:
        yield live


@pytest.fixture(scope="module")
def predictor(rich):
    return Predictor.load(rich)


def test_sets_verdicts_and_answers_are_those_of_predictor(server, predictor, tmp_path):
    (tmp_path / "a.png").write_bytes(photograph())
    query = "?top=2&coverage=0.8&false_alarms=0.1&sure=0.6"
    (result,) = server.predict(photograph(), query=query).json()["results"]
    in_set = predictor.predict(tmp_path / "a.png", sets=SetRule(0.8))
    ruled = predictor.predict(tmp_path / "a.png", top=2, rule=AnswerRule(false_alarms=0.1, sure=0.6))
    assert result["set"] == {"coverage": 0.8, "method": "lac", "classes": list(in_set.class_names)}
    assert [one["class"] for one in result["top"]] == list(ruled.class_names)
    assert [one["probability"] for one in result["top"]] == list(ruled.probabilities)
    assert (result["answer"]["text"], result["answer"]["kind"]) == ruled.answer
    explained = predictor.explain(Image.open(tmp_path / "a.png"), false_alarms=0.1).verdict
    assert result["verdict"]["is_unknown"] == explained.is_unknown
    assert result["verdict"]["threshold"] == explained.threshold
    assert result["verdict"]["score"] == pytest.approx(explained.score, abs=1e-6)


def test_a_promise_that_is_too_much_is_refused_with_what_it_would_take(server):
    reply = server.predict(photograph(), query="?false_alarms=0.0001")
    assert reply.status == 422
    assert "ask for 0.016 or more" in reply.reason


def test_the_nearest_training_photographs_are_shown(server):
    (result,) = server.predict(photograph(), query="?evidence=true").json()["results"]
    first, second = (one["class"] for one in result["top"][:2])
    assert [group["class"] for group in result["evidence"]] == [first, second]
    group = next(group for group in result["evidence"] if group["class"] in ("red", first))
    distances = [near["distance"] for near in group["neighbours"]]
    assert distances == sorted(distances)
    near = group["neighbours"][0]
    assert near["image_id"].split("/")[1] == group["class"]
    picture = Image.open(io.BytesIO(base64.b64decode(near["thumbnail"].removeprefix("data:image/jpeg;base64,"))))
    assert picture.size == (16, 16)
    explained = server.post("/v1/explain", photograph()).json()
    assert [group["class"] for group in explained["evidence"]] == [first, second]
    assert server.predict(photograph()).json()["results"][0]["evidence"] == []


def test_the_model_tells_what_it_can_promise(server):
    card = ModelAnswer.model_validate_json(server.get("/v1/model").content)
    assert card.name == "my-run"
    assert card.can.model_dump() == dict.fromkeys(type(card.can).model_fields, True)
    assert card.calibration.num_images == 60
    assert card.calibration.largest_coverage == 60 / 61
    assert card.calibration.smallest_false_alarms == 1 / 61
    assert card.taxonomy.lineages == [list(names) for names in TAXONOMY.lineages]
    (figure,) = card.figures
    assert (figure.value, figure.num_images) == (0.8, 60)
    assert figure.low < 0.8 < figure.high
    assert [licence.part for licence in card.licences] == ["photographs: flowers102"]
    smallest = server.predict(photograph(), query=f"?false_alarms={card.calibration.smallest_false_alarms}")
    assert smallest.status == 200


def test_the_plain_backbone_names_and_does_not_explain(tmp_path):
    values = tiny_values()
    values["model"]["voting"] = {"enabled": False}
    config = changed(config_from_values(values, source="test"), "model", zero_init_classifier=False)
    with running(write_bundle(tmp_path / "plain", config=config)) as server:
        assert server.predict(photograph(), query="?explain=true").json()["results"][0]["votes"] is None
        reply = server.post("/v1/explain", photograph())
        assert (reply.status, "the plain backbone" in reply.reason) == (501, True)
        assert server.get("/v1/model").json()["can"]["explain"] is False


@pytest.mark.long
@pytest.mark.slow
def test_an_exported_file_predicts_and_votes_as_its_bundle(tmp_path):
    pytest.importorskip("onnxscript")
    from finevote.export.run import export
    from tests.tiny import write_photographs, write_run

    run = write_run(tmp_path / "run", data=write_photographs(tmp_path / "data"))
    done = export(run, out=tmp_path / "birds.onnx")
    with running(run) as server:
        expected = server.predict(photograph(), query="?explain=true").json()["results"][0]
    with running(done.path) as server:
        found = server.predict(photograph(), query="?explain=true").json()["results"][0]
        refused = server.post("/v1/explain", photograph())
        card = ModelAnswer.model_validate_json(server.get("/v1/model").content)
    assert [one["class"] for one in found["top"]] == [one["class"] for one in expected["top"]]
    np.testing.assert_allclose(
        [one["probability"] for one in found["top"]], [one["probability"] for one in expected["top"]], atol=1e-5
    )
    assert found["votes"] == expected["votes"]
    assert (refused.status, "exported file" in refused.reason) == (501, True)
    assert (card.name, card.engine, card.can.votes, card.can.explain) == ("birds", "onnxruntime", True, False)


@pytest.mark.parametrize(
    ("path", "name"),
    [("runs/a/bundle", "a"), ("runs/a", "a"), ("b.onnx", "b"), ("runs/a/export/model-fp32.onnx", "model-fp32")],
)
def test_a_model_is_called_as_its_folder_or_file(tmp_path, path, name):
    assert name_of_model(tmp_path / path) == name
