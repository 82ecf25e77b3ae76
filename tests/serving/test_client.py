import numpy as np
import pytest
from PIL import Image

import finevote
from finevote.errors import ArgumentError, DataError, ServingError
from finevote.predictor import Predictor
from tests.serving.live import photograph, pixels, running


@pytest.fixture
def client(live):
    return finevote.Client(live.url)


def test_a_photograph_in_any_form_gets_the_answer_of_predictor(client, bundle, tmp_path):
    path = tmp_path / "wren é.png"
    path.write_bytes(photograph())
    expected = Predictor.load(bundle).predict(path)
    for image in (path, str(path), photograph(), Image.fromarray(pixels()), pixels()):
        answer = client.predict(image)
        assert tuple(one.class_name for one in answer.top) == expected.class_names
        assert tuple(one.probability for one in answer.top) == expected.probabilities
    assert client.predict(path).name == "wren é.png"


def test_several_are_answered_in_order_and_a_bad_one_has_its_error(client):
    first, second = client.predict_all([photograph(), b"no image"], top=2)
    assert (len(first.top), first.error) == (2, None)
    assert second.error.status == 415


def test_an_explanation_and_its_picture(client):
    told = client.explain(photograph(), contrast=["red", "blue"])
    assert (told.contrast.class_a, told.contrast.class_b) == ("red", "blue")
    assert client.explain(photograph()).contrast is None
    assert client.explain(photograph(), contrast=()).contrast is not None
    assert client.vote_map(photograph(), layer=1).size == client.vote_map(photograph()).size


def test_the_model_is_described(client):
    assert client.model().class_names == ["blue", "green", "red"]


def test_a_refusal_is_an_error_with_its_status_and_advice(client):
    with pytest.raises(ServingError, match=r"the server refused \(415\): .*; allowed: JPEG, PNG, WebP.*; save it"):
        client.predict(b"no image")
    with pytest.raises(ServingError, match="topp: Extra inputs") as caught:
        client.predict(photograph(), topp=3)
    assert caught.value.status == 422
    assert isinstance(caught.value, finevote.FinevoteError)


def test_a_key_is_sent(bundle, served):
    with running(bundle, served=served, api_key="sesame") as server:
        assert finevote.Client(server.url, api_key="sesame").predict(photograph()).top
        with pytest.raises(ServingError, match=r"\(401\): an API key is needed"):
            finevote.Client(server.url).model()


def test_a_server_that_is_not_there_is_told():
    with pytest.raises(ServingError, match=r"no answer from http://127.0.0.1:9 .*: is `finevote serve` running there"):
        finevote.Client("http://127.0.0.1:9").model()


def test_a_busy_server_is_asked_again_after_as_long_as_it_says(bundle, served, monkeypatch):
    with running(bundle, served=served) as server:
        server.server.handle_exit(15, None)  # it lives on while a request is in flight; here it may be gone by then
        waits = []
        monkeypatch.setattr("finevote.client.time.sleep", waits.append)
        with pytest.raises(ServingError, match=r"\(503\): the server is stopping|no answer from"):
            finevote.Client(server.url, retries=2).predict(photograph())
        assert set(waits) <= {5.0}


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a", "http://", "file:///etc/passwd"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ArgumentError, match="is no address of a server"):
        finevote.Client(url)


def test_what_is_no_photograph_is_refused_before_it_is_sent(client, tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: No such file"):
        client.predict(tmp_path / "gone.png")
    with pytest.raises(ArgumentError, match=r"but got float64 \(2, 2\)"):
        client.predict(np.zeros((2, 2)))
