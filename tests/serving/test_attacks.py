"""What a running server answers to those who mean ill, and that it lives on."""

import io
import json
import re
import resource
import select
import socket
import struct
import threading
import zipfile
import zlib
from contextlib import suppress

import pytest

from tests.serving.live import form, photograph, read_reply, running

TYPED = {"content_type": "image/jpeg"}


@pytest.fixture(scope="module")
def guarded(bundle, served):
    """A server of little patience."""
    with running(
        bundle, served=served, upload_timeout_s=0.5, head_timeout_s=0.5, keep_alive_s=1, max_connections=8
    ) as server:
        yield server


def status_of(received):
    return int(received.split(b" ", 2)[1])


def body_of(received):
    return json.loads(received.partition(b"\r\n\r\n")[2])


def huge_png(side=30_000):
    """Return a PNG of one colour, 30,000 pixels a side, that is a few hundred kilobytes."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)  # one bit a pixel
    rows = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("run.sh", "echo hello")
    return file.getvalue()


WHOLE = photograph(kind="JPEG", size=(120, 90))
BAD_FILES = {
    "zero bytes": (b"", 400, "0 bytes"),
    "cut in the middle": (WHOLE[: len(WHOLE) // 2], 422, "cannot be read"),
    "cut in its header": (photograph()[:20], 422, "header is damaged"),
    "text": (b"hello", 415, "of no image"),
    "a page that calls itself a photograph": (b"<html><script>alert(1)</script>", 415, "of no image"),
    "a drawing with a script": (b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>", 415, "of no image"),
    "a format that is not let in": (photograph(kind="GIF"), 415, "of no image"),
    "a script that begins as a GIF": (b"GIF89a/*" + b"*/=1;alert(1)", 415, "of no image"),
    "an archive that begins as a JPEG": (b"\xff\xd8\xff\xe0" + archive(), 422, "header is damaged"),
    "a document that begins as a PNG": (b"\x89PNG\r\n\x1a\n%PDF-1.7", 422, "header is damaged"),
    "nothing but a frame of WebP": (b"RIFF\x10\0\0\0WEBPVP8 ", 422, "header is damaged"),
    "nothing but a frame of HEIC": (b"\0\0\0\x18ftypheic" + bytes(12), (415, 422), "image"),
    "too small": (photograph(size=(2, 2)), 422, "2 x 2 pixels"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_by_itself_and_in_a_form(live, name):
    content, status, reason = BAD_FILES[name]
    for reply in (live.post("/v1/predict", content, **TYPED), live.predict(("cat.jpg", content))):
        assert reply.status in (status if isinstance(status, tuple) else (status,))
        assert reason in reply.reason
        assert set(reply.json()["error"]) == {"status", "reason", "allowed", "what_to_do"}
    explained = live.post("/v1/explain", content, **TYPED)
    assert explained.status == live.post("/v1/predict", content, **TYPED).status
    assert live.is_well()


def test_what_hangs_on_a_photograph_is_not_looked_at(live):
    alone, with_archive = (live.predict(content).json()["results"][0]["top"] for content in (WHOLE, WHOLE + archive()))
    assert alone == with_archive


def test_a_picture_of_900_megapixels_is_refused_before_it_is_decoded(live, monkeypatch):
    monkeypatch.setattr("finevote.serving.service.decode_image", lambda *_, **__: pytest.fail("it was decoded"))
    reply = live.post("/v1/predict", huge_png(), **TYPED)
    assert reply.status == 413
    assert reply.json()["error"]["allowed"] == "up to 50,000,000 pixels"


def test_the_pixels_that_are_allowed_can_be_set(bundle, served):
    with running(bundle, served=served, max_pixels=60 * 40) as server:
        assert server.predict(photograph(size=(60, 40))).status == 200
        reply = server.predict(photograph(size=(60, 41)))
        assert (reply.status, reply.json()["error"]["allowed"]) == (413, "up to 2,400 pixels")


def test_too_large_an_image_or_too_many_are_refused(live):
    reply = live.predict(bytes(200_001))
    assert (reply.status, reply.reason) == (413, "the image has 200,001 bytes or more")
    reply = live.predict(*[photograph()] * 5)
    assert (reply.status, reply.reason) == (413, "the form has more than 4 images")
    assert live.is_well()


def test_a_body_that_says_it_is_large_is_refused_before_it_is_sent(live):
    with live.connect() as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n" + bytes(100))
        connection.shutdown(socket.SHUT_WR)
        received = read_reply(connection)
    assert status_of(received) == 413
    assert b"connection: close" in received
    assert live.is_well()


def test_a_body_of_100_megabytes_is_refused(live):
    with live.connect() as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n")
        sender = threading.Thread(target=send_quietly, args=(connection, [bytes(2**20)] * 100))
        sender.start()
        received = connection.recv(65536)
        assert status_of(received) == 413
        connection.shutdown(socket.SHUT_RDWR)
        sender.join()
    assert live.is_well()


def test_a_body_without_end_is_cut_off(live):
    chunk = b"10000\r\n" + bytes(2**16) + b"\r\n"
    with live.connect() as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        sender = threading.Thread(target=send_quietly, args=(connection, iter(lambda: chunk, None)))
        sender.start()
        received = connection.recv(65536)
        assert status_of(received) == 413
        sender.join()  # which ends only because the server ends the connection
    assert live.is_well()


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/v1/model"])
def test_a_body_without_end_where_nobody_reads_one_is_cut_off_too(live, path):
    chunk = b"10000\r\n" + bytes(2**16) + b"\r\n"
    with live.connect() as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        sender = threading.Thread(target=send_quietly, args=(connection, iter(lambda: chunk, None)))
        sender.start()
        assert status_of(connection.recv(65536)) in (200, 404)
        sender.join()
    assert live.is_well()


def send_quietly(connection, chunks):
    with suppress(OSError):
        for chunk in chunks:
            connection.sendall(chunk)


def test_a_slow_upload_is_cut_off(guarded):
    with guarded.connect() as connection:
        connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        received = read_reply(connection)
    assert status_of(received) == 408
    assert body_of(received)["error"]["reason"] == "the body did not arrive: 3 bytes in 0.5 s"
    assert guarded.is_well()


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", b"G"])
def test_a_head_that_does_not_come_ends_the_connection(guarded, sent):
    with guarded.connect() as connection:
        connection.sendall(sent)
        assert read_reply(connection) == b""
    assert guarded.is_well()


def test_a_connection_that_was_used_ends_when_its_next_head_does_not_come(guarded):
    with guarded.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /heal")
        received = read_reply(connection)
    assert received.count(b"HTTP/1.1 ") == 1


def test_too_many_connections_are_told_so_and_the_others_live(guarded):
    held = [guarded.connect() for _ in range(8)]
    try:
        with guarded.connect() as connection:
            received = read_reply(connection)
    finally:
        for other in held:
            other.close()
    assert status_of(received) == 503
    assert re.search(rb"retry-after: \d", received)
    assert body_of(received)["error"]["status"] == 503
    while not guarded.is_well():  # until the server has seen that they are gone
        pass


@pytest.mark.slow
def test_a_thousand_connections_do_not_end_the_server(bundle, served):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, before[1]), before[1]))
    try:
        with running(bundle, served=served, max_connections=64, head_timeout_s=30) as server:
            held = [server.connect() for _ in range(1000)]
            poll, numbers = select.poll(), {}
            for connection in held:
                poll.register(connection, select.POLLIN)
                numbers[connection.fileno()] = connection
            told = 0
            while told < 1000 - 64:  # hangs if fewer are refused
                for number, _ in poll.poll():
                    assert numbers[number].recv(65536).startswith(b"HTTP/1.1 503 ")
                    poll.unregister(number)
                    told += 1
            for connection in held:
                connection.close()
            while not server.is_well():
                pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    "headers", [{"X_Long": "a" * 100_000}, {f"X_{number}": "a" * 20 for number in range(5000)}], ids=["long", "many"]
)
def test_a_flood_of_headers_is_refused(live, headers):
    with live.connect() as connection:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        send_quietly(connection, [f"GET /healthz HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()])
        received = connection.recv(65536)
    assert status_of(received) == 431
    assert live.is_well()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    ],
    ids=["TLS", "no host", "negative length", "two lengths", "odd encoding"],
)
def test_what_is_no_request_is_refused_as_json(live, sent):
    with live.connect() as connection:
        connection.sendall(sent)
        received = read_reply(connection)
    assert status_of(received) in (400, 501)
    assert body_of(received)["error"]["status"] in (400, 501)
    assert live.is_well()


def test_a_chunk_that_is_no_chunk_ends_the_request(live):
    with live.connect() as connection:
        connection.sendall(
            b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n"
        )
        assert status_of(read_reply(connection)) == 400
    assert live.is_well()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../../../etc/passwd", "passwd"),
        ("..\\\\..\\\\windows\\\\system.ini", "system.ini"),
        ("/etc/shadow.png", "shadow.png"),
        ("..", "image 1"),
        ("", "image 1"),
        ("a\x07\x1b[31mb.png", "a[31mb.png"),
        ("x" * 900 + ".png", "x" * 200),
        ("<script>alert(1)<b>.png", "<script>alert(1)<b>.png"),
    ],
)
def test_a_name_is_a_name_and_never_a_path(live, tmp_path, monkeypatch, name, shown):
    monkeypatch.chdir(tmp_path)
    reply = live.predict((name, photograph()))
    assert reply.json()["results"][0]["name"] == shown
    assert reply.headers["content-type"] == "application/json"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/static/../../bundle.json", "/%2e%2e/%2e%2e/etc/passwd", "//etc"]
)
def test_paths_lead_nowhere(live, path):
    assert live.get(path).status == 404


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("multipart/form-data", b"x", "broken"),
        ("multipart/form-data; boundary=b", b"", "cut short"),
        ("multipart/form-data; boundary=b", b"no boundary at all", "broken"),
        ("multipart/form-data; boundary=" + "b" * 500, b"x", "broken"),
        ("multipart/form-data; boundary=b", b"--b--\r\n", "no image"),
        ("multipart/form-data; boundary=b", form(photograph(), boundary="b")[1][:-9], "cut short"),
        ("multipart/form-data; boundary=b", form(photograph(), field="url", boundary="b")[1], "a field 'url'"),
        ("multipart/form-data; boundary=b", b"--b\r\nX: " + b"a" * 9000 + b"\r\n\r\n\r\n--b--\r\n", "broken"),
        ("multipart/form-data; boundary=b", b"--b\r\n" + b"X: a\r\n" * 50 + b"\r\nx\r\n--b--\r\n", "broken"),
    ],
)
def test_a_form_that_is_broken_or_asks_for_something_else_is_refused(live, content_type, body, reason):
    reply = live.post("/v1/predict", body, content_type=content_type)
    assert reply.status == 400
    assert reason in reply.reason
    assert live.is_well()


def test_an_address_is_not_fetched(live):
    for body, content_type in ((b'{"url": "http://127.0.0.1/a.png"}', "application/json"), (b"file:///etc/passwd", "")):
        assert live.post("/v1/predict", body, content_type=content_type).status == 415
    assert live.predict(photograph(), query="?url=http://127.0.0.1/a.png").status == 422


def test_a_compressed_body_is_refused(live):
    reply = live.post("/v1/predict", zlib.compress(bytes(10**6)), content_encoding="deflate")
    assert (reply.status, reply.reason) == (415, "the body is compressed")


@pytest.fixture(scope="module")
def locked(bundle, served):
    with running(bundle, served=served, api_key="open-sesame", cors_origins=("https://museum.example",)) as server:
        yield server


@pytest.mark.parametrize("key", [None, "", "open-sesam", "open-sesame ", "OPEN-SESAME", "é" * 10, "x" * 5000])
def test_a_wrong_key_is_refused(locked, key):
    headers = {} if key is None else {"X_API_Key": key}
    for path in ("/v1/model", "/metrics"):
        reply = locked.get(path, **headers)
        if key == "open-sesame ":  # blanks around a header's value are no part of it
            assert reply.status == 200
            continue
        assert reply.status == 401
        assert "open-sesame" not in reply.content.decode()
    assert locked.get("/healthz").status == 200


def test_the_right_key_opens_all_and_a_wrong_one_not_even_with_a_body(locked):
    assert locked.predict(photograph(), X_API_Key="open-sesame").status == 200
    assert locked.predict(photograph(), X_API_Key="no").status == 401


def test_only_origins_that_were_named_may_ask(locked):
    named, other = ({"Origin": f"https://{name}.example"} for name in ("museum", "evil"))
    assert locked.get("/healthz", **named).headers["access-control-allow-origin"] == "https://museum.example"
    assert "access-control-allow-origin" not in locked.get("/healthz", **other).headers
    asked = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "x-api-key"}
    assert locked.ask("OPTIONS", "/v1/predict", **named, **asked).status == 200
    assert locked.ask("OPTIONS", "/v1/predict", **other, **asked).status == 400


def test_logs_hold_nothing_of_what_was_sent(live, caplog):
    def own():  # the line of what an earlier test asked last can come this late
        return [record for record in caplog.records if record.fields["path"] != "/healthz"]

    with caplog.at_level("INFO", logger="finevote.serving"):
        live.predict(("secret-name.jpg", b"secret content"), query="?top=secret", X_API_Key="secret-key")
        live.get("/secret/path?q=secret")
        while len(records := own()) < 2:  # a line is written when its answer is gone
            pass
    lines = [record.getMessage() + json.dumps(record.fields) for record in records]
    assert len(lines) == 2
    assert not [line for line in lines if "secret" in line]
    assert '"path": "/v1/predict", "status": 422' in lines[0]
    assert '"path": "other", "status": 404' in lines[1]
