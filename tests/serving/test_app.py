"""What a running server answers to those who mean well."""

import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from finevote.predictor import Predictor
from finevote.serving.schemas import ExplainAnswer, ModelAnswer, PredictAnswer
from tests.data.profiles import SRGB_GREEN, SRGB_RED, make_profile
from tests.serving.live import form, photograph, pixels
from tests.tiny import CLASSES


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor.load(bundle)


def write(path, **options):
    path.write_bytes(photograph(**options))
    return path


def test_one_photograph_gets_the_answer_of_predictor_to_the_last_digit(live, predictor, tmp_path):
    for seed, kind in enumerate(("PNG", "JPEG", "WEBP")):
        path = write(tmp_path / f"{seed}.{kind.lower()}", seed=seed, kind=kind)
        expected = predictor.predict(path)
        (result,) = live.predict((path.name, path.read_bytes())).json()["results"]
        assert [(one["class"], one["probability"]) for one in result["top"]] == [
            tuple(pair) for pair in zip(expected.class_names, expected.probabilities, strict=True)
        ]


def test_a_raw_body_gets_the_answer_of_a_form_whatever_type_it_is_declared_as(live):
    file = photograph(kind="JPEG")
    in_form = live.predict(file).json()["results"][0]["top"]
    for declared in ("image/jpeg", "image/png", "application/x-www-form-urlencoded", ""):
        assert live.post("/v1/predict", file, content_type=declared).json()["results"][0]["top"] == in_form


def test_several_photographs_are_answered_in_order_under_their_own_names(live):
    files = [(f"{seed}.png", photograph(seed=seed)) for seed in range(3)]
    results = live.predict(*files).json()["results"]
    assert [result["name"] for result in results] == ["0.png", "1.png", "2.png"]
    for (name, content), result in zip(files, results, strict=True):
        alone = live.predict((name, content)).json()["results"][0]["top"]
        assert [one["class"] for one in alone] == [one["class"] for one in result["top"]]
        np.testing.assert_allclose(  # the last bits of float32 depend on what else is in the batch
            [one["probability"] for one in result["top"]], [one["probability"] for one in alone], atol=1e-5
        )


def test_of_several_the_one_that_cannot_be_read_has_its_error(live):
    first, second = live.predict(photograph(), b"no image").json()["results"]
    assert first["error"] is None
    assert second["top"] == []
    assert second["error"]["status"] == 415
    assert "(allowed: JPEG, PNG, WebP" in second["error"]["reason"]


def test_top_says_how_many_classes_are_named(live):
    assert len(live.predict(photograph(), query="?top=2").json()["results"][0]["top"]) == 2


def test_votes_are_those_of_the_explanation(live, predictor):
    result = live.predict(photograph(), query="?explain=true").json()["results"][0]
    expected = predictor.explain(pixels()).votes
    assert result["votes"]["grid"] == [4, 4]
    np.testing.assert_array_equal(result["votes"]["final"], expected.final)
    assert set(result["votes"]["view"]) == {"left", "top", "right", "bottom"}


def test_what_the_bundle_cannot_promise_is_refused_with_the_reason(live):
    for query in ("?coverage=0.9", "?false_alarms=0.05", "?max_error=0.1", "?sure=0.9"):
        reply = live.predict(photograph(), query=query)
        assert reply.status == 422
        assert re.search("no calibration|no taxonomy", reply.reason)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("?top=0", "top: it should be greater than or equal to 1"),
        ("?topp=3", "topp: Extra inputs are not permitted"),
        ("?coverage=1.5", "coverage: it should be less than 1"),
        ("?coverage=nan", "coverage: "),
        ("?explain=perhaps", "explain: it should be a valid boolean"),
    ],
)
def test_a_query_that_is_not_valid_is_told(live, query, reason):
    reply = live.predict(photograph(), query=query)
    assert reply.status == 422
    assert reason in reply.reason


def test_an_explanation_has_the_votes_layer_by_layer_and_head_by_head(live, predictor):
    content_type, body = form(("wren.png", photograph()))
    reply = live.post("/v1/explain?contrast=", body, content_type=content_type)
    answer, expected = ExplainAnswer.model_validate_json(reply.content), predictor.explain(pixels(), contrast=())
    votes = expected.votes
    assert answer.name == "wren.png"
    np.testing.assert_array_equal(answer.votes.final, votes.final)
    np.testing.assert_array_equal(answer.votes.ballots, votes.ballots)
    np.testing.assert_allclose(answer.votes.enhanced, votes.enhanced)
    assert [len(patches) for patches in answer.votes.selected] == list(votes.budget)
    by_head = np.zeros(votes.head_votes.shape, bool).reshape(*votes.head_votes.shape[:2], -1)
    for layer, heads in enumerate(answer.votes.heads):
        for head, patches in enumerate(heads):
            by_head[layer, head, patches] = True
    np.testing.assert_array_equal(by_head.reshape(votes.head_votes.shape), votes.head_votes)
    np.testing.assert_allclose(answer.contrast.contributions, expected.contrast.contributions, atol=1e-5)
    assert "no calibration" in " ".join(answer.notes)


@pytest.mark.parametrize(
    "query", ["", "&layer=2", "&layer=1&head=3", "&contrast=red,blue", "&contrast=red&contrast=blue"]
)
def test_an_explanation_can_be_had_as_a_picture(live, query):
    reply = live.post(f"/v1/explain?format=png{query}", photograph(size=(300, 200)))
    assert reply.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(reply.content))
    assert picture.width == 1.5 * picture.height
    assert len(picture.getcolors(2**20)) > 10


def test_classes_with_a_comma_are_told_apart_in_a_contrast(live):
    reply = live.post("/v1/explain?contrast=green,red", photograph()).json()
    assert (reply["contrast"]["class_a"], reply["contrast"]["class_b"]) == ("green", "red")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("layer=9", "layer=9: there are 3"),
        ("layer=1&head=9", "head=9: there are 3"),
        ("head=1", "head=1 of no layer"),
        ("contrast=gren,red", "there is no class 'gren,red'"),
        ("coverage=0.9", "no calibration"),
    ],
)
def test_what_cannot_be_explained_is_told(live, query, reason):
    reply = live.post(f"/v1/explain?{query}", photograph())
    assert reply.status == 422
    assert reason in reply.reason


def test_several_photographs_cannot_be_explained_at_once(live):
    content_type, body = form(photograph(), photograph())
    reply = live.post("/v1/explain", body, content_type=content_type)
    assert (reply.status, reply.reason) == (400, "got 2 images")


def test_the_model_tells_what_it_is(live, predictor):
    card = ModelAnswer.model_validate_json(live.get("/v1/model").content)
    assert card.class_names == list(CLASSES)
    assert card.hashes["bundle"] == predictor.bundle.manifest.sha256
    assert (card.voting.num_layers, card.voting.num_heads, card.voting.grid) == (3, 3, (4, 4))
    assert (card.can.votes, card.can.explain, card.can.sets) == (True, True, False)
    assert card.calibration is None
    assert card.limits.max_images == 4


def test_answers_are_those_that_the_schemas_promise(live):
    answer = PredictAnswer.model_validate_json(live.predict(photograph()).content)
    assert json.loads(answer.model_dump_json()) == live.predict(photograph()).json()


def test_photographs_are_turned_upright_and_their_colours_read_by_their_profile(live, predictor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = make_profile(red=SRGB_GREEN, green=SRGB_RED)
    for number, options in enumerate(({}, {"exif": exif}, {"icc_profile": profile})):
        path = write(tmp_path / f"{number}.jpg", kind="JPEG", **options)
        told = live.predict(path.read_bytes()).json()["results"][0]["top"]
        assert [one["probability"] for one in told] == list(predictor.predict(path).probabilities)


def test_heic_is_read_where_its_library_is_there(live):
    heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    heif.from_pillow(Image.fromarray(pixels(size=(64, 64)))).save(file, quality=90)
    reply = live.predict(("IMG_0001.HEIC", file.getvalue()))
    assert reply.status == 200
    assert sum(one["probability"] for one in reply.json()["results"][0]["top"]) == pytest.approx(1)


def test_it_is_alive_and_ready(live):
    assert live.get("/healthz").json() == {"status": "alive"}
    assert live.get("/readyz").json() == {"status": "ready"}


def test_what_was_asked_is_counted(live):
    live.predict(photograph())
    text = live.get("/metrics").content.decode()
    assert re.search(r'finevote_requests_total\{method="POST",path="/v1/predict",status="200"\} [1-9]', text)
    assert re.search(r"finevote_batch_images_count [1-9]", text)
    assert re.search(r"finevote_images_waiting 0\.0", text)
    assert "finevote_model_info" in text


def test_the_page_runs_its_own_script_and_style_alone(live):
    reply = live.get("/")
    policy = reply.headers["content-security-policy"]
    assert reply.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in policy
    assert "'unsafe-inline'" not in policy
    assert len(re.findall("sha256-", policy)) == len(re.findall(r"<(?:style|script)\b", reply.content.decode()))


def test_the_documents_need_nothing_from_elsewhere(live):
    text = live.get("/docs").content.decode()
    assert not re.search(r"https?://(?!127\.0\.0\.1)|<script|src=", text)
    for path in ("/v1/predict", "/v1/explain", "/v1/model", "/metrics", "PredictAnswer", "Retry-After"):
        assert path in text


def test_every_answer_has_the_headers_that_keep_browsers_safe(live):
    for reply in (live.get("/healthz"), live.get("/nowhere"), live.get("/"), live.post("/v1/predict", b"x")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert "access-control-allow-origin" not in reply.headers
        assert "server" not in reply.headers
        assert re.fullmatch("[0-9a-f]{32}", reply.headers["x-request-id"])


def test_what_there_is_not_is_told_as_every_refusal_is(live):
    assert live.get("/nowhere").json()["error"]["status"] == 404
    reply = live.get("/v1/predict")
    assert (reply.status, reply.json()["error"]["allowed"]) == (405, "POST")
