"""Photographs that wait to be explained: their bytes may be many, their pixels are few."""

import threading
from concurrent.futures import ThreadPoolExecutor

from finevote.serving import service
from tests.serving.live import photograph, running


def test_only_as_many_as_are_decoded_at_once_are_held_in_full(bundle, served, monkeypatch):
    opened, decoded = threading.Event(), []
    explain, decode = served.predictor.torch.explain, service._decode

    def wait(photographs, asked):
        opened.wait()
        return explain(photographs, asked)

    def count(*arguments):
        decoded.append(arguments)
        return decode(*arguments)

    monkeypatch.setattr(served.predictor.torch, "explain", wait)
    monkeypatch.setattr(service, "_decode", count)
    with running(bundle, served=served, decode_threads=2) as server, ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(server.post, "/v1/explain", photograph(seed=seed)) for seed in range(6)]
        try:
            while b"\nfinevote_images_waiting 6.0" not in server.get("/metrics").content:
                pass
            assert server.predict(b"no image").status == 415  # after all that was to be decoded before
            assert len(decoded) == 2
        finally:
            opened.set()
        assert [answer.result().status for answer in answers] == [200] * 6
