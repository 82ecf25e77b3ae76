"""Where a request ends, and what its files are called, as clients and proxies may tell it twice or in odd ways."""

import pytest

from tests.serving.live import photograph, read_reply


@pytest.mark.parametrize("head", ["POST /v1/predict", "GET /healthz"])
def test_a_request_whose_end_is_told_twice_is_refused_and_the_next_one_in_it_is_not_read(live, head):
    hidden = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    lengths = "Content-Length: 6\r\nTransfer-Encoding: chunked"
    with live.connect() as connection:
        connection.sendall(f"{head} HTTP/1.1\r\nHost: x\r\n{lengths}\r\n\r\n0\r\n\r\n{hidden}".encode())
        received = read_reply(connection)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"both Content-Length and Transfer-Encoding" in received
    assert received.count(b"HTTP/1.1 ") == 1
    assert live.is_well()


def test_a_name_in_the_encoding_of_mail_is_read_as_a_name(live):
    head = "--b\r\nContent-Disposition: form-data; name=\"images\"; filename*=UTF-8''..%2Fn%C3%A4he.png\r\n\r\n"
    body = head.encode() + photograph() + b"\r\n--b--\r\n"
    reply = live.post("/v1/predict", body, content_type="multipart/form-data; boundary=b")
    assert reply.json()["results"][0]["name"] == "nähe.png"


@pytest.mark.parametrize("option", ["--max-image-mib", "--max-request-mib"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_size_that_is_no_number_is_told(run, option, value):
    code, _, err = run("serve", "gone", option, value)
    assert code == 2
    assert f"{option} {value} must be a number of MiB" in err
