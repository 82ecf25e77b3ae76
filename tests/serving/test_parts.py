"""The parts of a server by themselves."""

import asyncio
import base64
import hashlib
import io
import json
import logging
import socket
import threading

import pytest

from finevote.errors import ArgumentError
from finevote.serving.batching import Batcher
from finevote.serving.logs import JsonFormatter
from finevote.serving.reading import Memory, clean_name, read_body
from finevote.serving.refusals import Refusal
from finevote.serving.security import is_key, page_policy
from finevote.serving.server import listen
from finevote.serving.settings import read_settings


async def pieces(*chunks):
    for chunk in chunks:
        yield chunk


def read(*chunks, settings=None, memory=None, **headers):
    settings = settings or read_settings({}, bundle="b", max_request_bytes=10)
    with (memory or Memory(100)).held() as held:
        return asyncio.run(read_body(pieces(*chunks), headers, settings=settings, held=held))


def test_a_body_is_read_to_its_last_byte_that_is_allowed():
    assert read(b"12345", b"67890") == b"1234567890"
    with pytest.raises(Refusal, match="the body has 11 bytes or more"):
        read(b"12345", b"678901")


def test_memory_is_given_back_whatever_happens():
    memory = Memory(10)
    with pytest.raises(Refusal, match="the body has"):
        read(b"123456", b"78901", memory=memory)
    assert read(b"1234567890", memory=memory) == b"1234567890"
    with memory.held() as held:
        held.take(5)
        with pytest.raises(Refusal, match="hold all the memory") as caught:
            read(b"123456", memory=memory)
    assert (caught.value.status, caught.value.headers) == (429, {"retry-after": "2"})
    assert read(b"1234567890", memory=memory) == b"1234567890"


@pytest.mark.parametrize("length", ["", "abc", "-5", "²", "9" * 10_000])
def test_a_declared_length_that_is_no_number_is_not_trusted(length):
    if length.startswith("9"):
        with pytest.raises(Refusal, match="the body has"):
            read(b"123", **{"content-length": length})
    else:
        assert read(b"123", **{"content-length": length}) == b"123"


@pytest.mark.parametrize(
    ("name", "shown"), [("a.jpg", "a.jpg"), ("a/b\\c.jpg", "c.jpg"), ("...", "image 7"), ("\0", "image 7")]
)
def test_names(name, shown):
    assert clean_name(name, number=7) == shown


def test_a_lone_image_is_not_kept_waiting_for_others():
    batcher = Batcher(lambda items: items, batch_size=8, wait_s=3600, capacity=8)
    with batcher.places(1) as places:
        assert places.submit(5).result() == 5
    batcher.close()


def test_an_image_waits_for_those_on_their_way_and_not_for_those_that_gave_up():
    sizes = []
    batcher = Batcher(lambda items: sizes.append(len(items)) or items, batch_size=8, wait_s=3600, capacity=8)
    with batcher.places(3) as places:
        first = places.submit(1)
        second = places.submit(2)
        assert not first.done()
        places.give_up()
        assert (first.result(), second.result()) == (1, 2)
    assert sizes == [2]
    batcher.close()


def test_functions_and_images_take_their_turns_in_one_thread():
    threads = []
    batcher = Batcher(lambda items: threads.append(threading.get_ident()) or items, batch_size=2, wait_s=0, capacity=8)
    with batcher.places(4) as places:
        futures = [
            places.submit(1),
            places.call(lambda: threads.append(threading.get_ident())),
            places.submit(2),
            places.call(lambda: 1 / 0),
        ]
        with pytest.raises(ZeroDivisionError):
            futures[-1].result()
    assert len(set(threads)) == 1
    batcher.close()


def test_what_waits_is_finished_before_the_end_and_nothing_is_taken_after_it():
    gate = threading.Event()
    batcher = Batcher(lambda items: gate.wait() and items, batch_size=1, wait_s=0, capacity=8)
    with batcher.places(3) as places:
        futures = [places.submit(number) for number in range(3)]
        closing = threading.Thread(target=batcher.close)
        closing.start()
        gate.set()
        assert [future.result() for future in futures] == [0, 1, 2]
        closing.join()
    assert not batcher.is_alive
    with pytest.raises(Refusal, match="the server is stopping"), batcher.places(1):
        pass


def test_settings_come_from_the_environment_and_are_overruled_by_what_is_given():
    environment = {
        "FINEVOTE_SERVE_BUNDLE": "a",
        "FINEVOTE_SERVE_MAX_IMAGES": "7",
        "FINEVOTE_SERVE_CORS_ORIGINS": "https://a.example, https://b.example",
        "FINEVOTE_SERVE_API_KEY": "sesame",
        "HOME": "x",
    }
    settings = read_settings(environment, max_images=8, batch_size=None)
    assert (str(settings.bundle), settings.max_images, settings.batch_size) == ("a", 8, 16)
    assert settings.cors_origins == ("https://a.example", "https://b.example")
    assert "sesame" not in repr(settings)


def test_settings_that_cannot_be_are_told_all_together():
    with pytest.raises(ArgumentError) as caught:
        read_settings({"FINEVOTE_SERVE_MAX_IMAGE": "3", "FINEVOTE_SERVE_API_KEY": "sesame"}, bundle="b", batch_size=0)
    message = str(caught.value)
    assert "batch_size: input should be greater than or equal to 1" in message
    assert "max_image: extra inputs are not permitted" in message
    assert "sesame" not in message
    with pytest.raises(ArgumentError, match="max_images=9 exceeds queue_images=4"):
        read_settings({}, bundle="b", max_images=9, queue_images=4)
    with pytest.raises(ArgumentError, match="max_request_bytes=9 exceeds memory_bytes=4"):
        read_settings({}, bundle="b", max_request_bytes=9, memory_bytes=4)


def test_a_page_may_run_what_is_written_in_it():
    script = "\n  alert('<b>');\r\n"
    digest = base64.b64encode(hashlib.sha256(b"\n  alert('<b>');\n").digest()).decode()
    policy = page_policy(f'<style>a{{}}</style><script type="module">{script}</script>')
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.count("sha256-") == 2
    assert "script-src 'none'; style-src 'none'" in page_policy("<p>nothing</p>")


def test_a_key_is_right_or_wrong():
    assert is_key("sesame", "sesame")
    assert not is_key("sesam", "sesame")
    assert not is_key("", "sesame")


def test_a_line_of_the_log_is_json_with_its_fields_and_trace():
    error = ValueError("why\nso")
    record = logging.LogRecord("a", logging.ERROR, "", 0, "failed", (), (ValueError, error, None))
    record.fields = {"id": "7"}
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    handler.emit(record)
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert (told["level"], told["event"], told["id"]) == ("error", "failed", "7")
    assert "ValueError: why" in told["trace"]


def test_connections_send_small_answers_at_once():
    async def option_of_an_accepted_connection():
        found = asyncio.get_running_loop().create_future()

        def accepted(_, writer):
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listen("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(accepted, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                option = await found
                writer.close()
                await writer.wait_closed()
                return option

    assert asyncio.run(option_of_an_accepted_connection()) != 0
