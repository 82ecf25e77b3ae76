"""Full queues, slow models, and the end of a server: what was accepted is answered, what was not is told so."""

import io
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from tests.serving.live import form, photograph, running


@pytest.fixture
def gate(served, monkeypatch):
    """Let no image through the model until the gate is opened; the sizes tell how many came at once."""
    opened, sizes, look = threading.Event(), [], served.predictor.engine.look

    def wait(prepared):
        sizes.append(len(prepared))
        opened.wait()
        return look(prepared)

    monkeypatch.setattr(served.predictor.engine, "look", wait)
    yield opened, sizes
    opened.set()


@contextmanager
def asking(number, server, **headers):
    """Send so many photographs at once, and yield the futures of their answers."""
    with ThreadPoolExecutor(number) as pool:
        yield [pool.submit(server.predict, photograph(seed=seed), **headers) for seed in range(number)]


def wait_until(condition):
    pause = threading.Event()
    while not condition():
        pause.wait(0.01)


def num_waiting(server):
    text = server.get("/metrics").content.decode()
    return float(text.partition("\nfinevote_images_waiting ")[2].partition("\n")[0])


def test_what_waits_together_is_understood_together_and_answered_as_alone(bundle, served, gate):
    opened, sizes = gate
    with running(bundle, served=served, batch_size=4) as server, asking(9, server) as answers:
        wait_until(lambda: num_waiting(server) == 9)
        opened.set()
        together = [answer.result().json()["results"][0]["top"] for answer in answers]
        assert sum(sizes) == 9
        assert max(sizes) == 4
        for seed, top in enumerate(together):
            alone = server.predict(photograph(seed=seed)).json()["results"][0]["top"]
            assert alone[0]["class"] == top[0]["class"]
            np.testing.assert_allclose(
                [one["probability"] for one in top], [one["probability"] for one in alone], atol=1e-5
            )


def test_a_full_queue_is_told_with_the_time_to_come_again(bundle, served, gate):
    opened, _ = gate
    with running(bundle, served=served, queue_images=2, max_images=2) as server, asking(2, server) as answers:
        wait_until(lambda: num_waiting(server) == 2)
        reply = server.predict(photograph())
        opened.set()
        assert reply.status == 429
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.reason == "2 images are waiting, and 1 more do not fit"
        assert [answer.result().status for answer in answers] == [200, 200]
        assert server.predict(photograph()).status == 200


def test_an_answer_that_does_not_come_in_time_is_given_up(bundle, served, gate):
    opened, sizes = gate
    with running(bundle, served=served, request_timeout_s=0.5) as server:
        with asking(1, server) as first:
            wait_until(lambda: sizes == [1])
            with asking(2, server) as others:
                assert [answer.result().status for answer in (*first, *others)] == [504] * 3
        opened.set()
        assert server.predict(photograph()).status == 200
        assert sizes == [1, 1]  # the two that nobody waited for any more were left out


def test_what_was_accepted_before_a_stop_is_answered_and_what_comes_then_is_refused(bundle, served, gate):
    opened, _ = gate
    with running(bundle, served=served) as server:
        with asking(5, server) as answers:
            wait_until(lambda: num_waiting(server) == 5)
            server.server.handle_exit(15, None)
            late = server.predict(photograph())
            ready = server.get("/readyz")
            alive = server.get("/healthz")
            opened.set()
            assert [answer.result().status for answer in answers] == [200] * 5
        assert (late.status, late.reason) == (503, "the server is stopping")
        assert late.headers["connection"] == "close"
        assert (ready.status, alive.status) == (503, 200)


def test_a_model_that_fails_is_told_and_the_next_photograph_is_answered(bundle, served, monkeypatch, caplog):
    look = served.predictor.engine.look
    with running(bundle, served=served) as server:
        monkeypatch.setattr(served.predictor.engine, "look", lambda _: 1 / 0)
        reply = server.predict(photograph())
        assert reply.status == 500
        assert reply.json()["error"]["what_to_do"].count(reply.headers["x-request-id"]) == 1
        assert "ZeroDivisionError" in caplog.text
        monkeypatch.setattr(served.predictor.engine, "look", look)
        assert server.predict(photograph()).status == 200


def test_a_photograph_that_the_model_fails_at_does_not_spoil_others_of_its_batch(bundle, served, gate, monkeypatch):
    opened, sizes = gate
    engine, bad = served.predictor.engine, photograph(seed=99)
    look, poison = engine.look, engine.prepare(lambda: Image.open(io.BytesIO(bad)).convert("RGB"))

    def fail_at_poison(prepared):
        looked = look(prepared)
        if any(np.array_equal(one, poison) for one in prepared):
            raise RuntimeError("this one")
        return looked

    monkeypatch.setattr(engine, "look", fail_at_poison)
    with running(bundle, served=served) as server, asking(1, server) as first, ThreadPoolExecutor(3) as pool:
        wait_until(lambda: sizes == [1])
        others = [pool.submit(server.predict, content) for content in (photograph(), bad, photograph())]
        wait_until(lambda: num_waiting(server) == 4)
        opened.set()
        assert [answer.result().status for answer in (*first, *others)] == [200, 200, 500, 200]
        assert sizes[1] == 3


def test_bodies_that_would_take_too_much_memory_are_put_off(bundle, served, gate):
    opened, _ = gate
    size = len(form(photograph())[1])
    with running(bundle, served=served, max_request_bytes=2 * size, memory_bytes=5 * size) as server:
        with asking(2, server) as answers:  # each takes its size twice
            wait_until(lambda: num_waiting(server) == 2)
            reply = server.predict(photograph())
            opened.set()
            assert reply.status == 429
            assert "hold all the memory" in reply.reason
            assert [answer.result().status for answer in answers] == [200, 200]
        assert server.predict(photograph()).status == 200


def test_the_port_is_free_again_after_a_server(bundle, served):
    with running(bundle, served=served) as server:
        place = server.place
    from finevote.serving.server import listen

    listen(*place).close()


def test_a_second_sigterm_changes_nothing_and_a_second_ctrl_c_ends_it_at_once(bundle, served, gate):
    opened, _ = gate
    with running(bundle, served=served) as server, asking(1, server) as answers:
        wait_until(lambda: num_waiting(server) == 1)
        server.server.handle_exit(signal.SIGTERM, None)
        server.server.handle_exit(signal.SIGTERM, None)
        server.server.handle_exit(signal.SIGINT, None)
        assert not server.server.force_exit
        opened.set()
        assert answers[0].result().status == 200
        server.server.handle_exit(signal.SIGINT, None)
        assert server.server.force_exit
