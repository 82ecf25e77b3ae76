"""Downloads over real HTTP from a local server, with processes that are really killed."""

import hashlib
import io
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from finevote import files
from finevote.errors import ArgumentError, DownloadError, StorageError
from finevote.remote import download as module
from finevote.remote.download import RemoteFile, download
from tests.data.file_server import serve_files

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()

DOWNLOAD = """
import signal
import sys
from pathlib import Path
from finevote.remote.download import RemoteFile, download
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell starts without it
download(RemoteFile("a.bin", (sys.argv[1],), sha256=sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.fixture
def server():
    with serve_files() as served:
        served.files["a.bin"] = CONTENT
        yield served


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(module, "_WAITS_S", (0.0, 0.0, 0.0))


def known(*urls: str, **facts) -> RemoteFile:
    return RemoteFile("a.bin", urls, **{"num_bytes": len(CONTENT), "md5": MD5, "sha256": SHA256, **facts})


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def start(server, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", DOWNLOAD, server.url("a.bin"), SHA256, str(folder)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(true, process: subprocess.Popen | None = None) -> None:
    for _ in range(3000):
        if true():
            return
        assert process is None or process.poll() is None, "the process ended too early"
        time.sleep(0.01)
    raise AssertionError("it did not happen")


def size_of_part(folder: Path) -> int:
    part = folder / "a.bin.part"
    return part.stat().st_size if part.exists() else 0


def test_a_file_comes_whole_and_the_second_call_asks_for_nothing(server, tmp_path):
    path = download(known(server.url("a.bin")), tmp_path / "new")
    assert path == tmp_path / "new" / "a.bin"
    assert path.read_bytes() == CONTENT
    assert visible(path.parent) == ["a.bin"]
    download(known(server.url("a.bin")), tmp_path / "new")
    assert len(server.requests) == 1


def test_after_a_cut_only_the_rest_is_asked_for(server, tmp_path):
    server.cut_after = [100_000, 50_000]
    path = download(known(server.url("a.bin")), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert all(request.if_range for request in server.requests[1:])


def test_a_killed_process_blocks_nobody_and_the_next_call_goes_on(server, tmp_path):
    server.seconds_per_chunk, server.chunk_bytes = 0.02, 2**12
    process = start(server, tmp_path)
    wait_for(lambda: size_of_part(tmp_path) > 0, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    came = size_of_part(tmp_path)
    server.seconds_per_chunk = 0.0
    assert download(known(server.url("a.bin")), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, f"bytes={came}-"]
    assert came < len(CONTENT)


def test_an_interrupted_process_keeps_what_came(server, tmp_path):
    server.seconds_per_chunk, server.chunk_bytes = 0.02, 2**12
    process = start(server, tmp_path)
    wait_for(lambda: size_of_part(tmp_path) > 0, process)
    process.send_signal(signal.SIGINT)
    process.communicate()
    came = size_of_part(tmp_path)
    server.seconds_per_chunk = 0.0
    assert download(known(server.url("a.bin")), tmp_path).read_bytes() == CONTENT
    assert server.ranges[1:] == [f"bytes={came}-"]


def test_two_processes_at_once_download_once(server, tmp_path):
    server.seconds_per_chunk = 0.1
    first = start(server, tmp_path)
    wait_for(lambda: server.requests, first)
    second = start(server, tmp_path)
    wait_for(lambda: "waiting" in second.stderr.readline(), second)
    server.seconds_per_chunk = 0.0
    errors = [process.communicate()[1] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], errors
    assert len(server.requests) == 1
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_file_that_changed_at_its_address_is_not_joined_with_the_old_part(server, tmp_path):
    server.cut_after = [100_000] * 4
    server.has_ranges = False
    with pytest.raises(DownloadError, match="the connection ended after 100,000 of 300,000 bytes"):
        download(RemoteFile("a.bin", (server.url("a.bin"),)), tmp_path)
    server.has_ranges = True
    server.files["a.bin"] = OTHER
    assert download(RemoteFile("a.bin", (server.url("a.bin"),)), tmp_path).read_bytes() == OTHER
    assert server.ranges[-1] == "bytes=100000-"


def test_without_a_version_or_a_hash_a_download_begins_anew(server, tmp_path):
    server.has_versions = False
    server.cut_after = [100_000]
    path = download(RemoteFile("a.bin", (server.url("a.bin"),)), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == [None, None]


def test_with_a_hash_a_wrong_join_is_noticed_and_mended_at_the_same_address(server, tmp_path):
    server.has_versions = False
    server.cut_after = [100_000] * 4
    server.has_ranges = False
    server.files["a.bin"] = OTHER
    with pytest.raises(DownloadError):
        download(known(server.url("a.bin")), tmp_path)
    server.requests.clear()
    server.has_ranges = True
    server.files["a.bin"] = CONTENT
    assert download(known(server.url("a.bin")), tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=100000-", None]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.has_ranges = False
    server.cut_after = [100_000]
    assert download(known(server.url("a.bin")), tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=100000-"]


def test_a_wrong_file_sent_anew_is_not_asked_for_a_third_time(server, tmp_path):
    server.files["a.bin"] = OTHER
    server.has_ranges = False
    server.cut_after = [100_000]
    with pytest.raises(DownloadError, match="its md5 is"):
        download(known(server.url("a.bin")), tmp_path)
    assert server.ranges == [None, "bytes=100000-"]


def test_a_part_longer_than_the_file_begins_anew(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(bytes(400_000))
    (tmp_path / ".a.bin.origin").write_text(f'["{server.url("a.bin")}", "", null]')
    path = download(known(server.url("a.bin"), num_bytes=None), tmp_path)
    assert path.read_bytes() == CONTENT
    assert server.ranges == ["bytes=400000-", None]


@pytest.mark.parametrize("facts", [{"md5": None}, {"sha256": None}])
def test_a_wrong_file_is_refused_and_the_next_address_asked(server, tmp_path, facts):
    server.files["wrong.bin"] = OTHER
    path = download(known(server.url("wrong.bin"), server.url("a.bin"), **facts), tmp_path)
    assert path.read_bytes() == CONTENT
    assert [request.path for request in server.requests] == ["wrong.bin", "a.bin"]


def test_when_all_addresses_fail_each_is_told_with_its_reason_and_nothing_is_left(server, tmp_path):
    server.files["wrong.bin"], server.files["short.bin"] = OTHER, b"short"
    urls = [server.url(name) for name in ("none.bin", "wrong.bin", "short.bin")]
    with pytest.raises(DownloadError) as caught:
        download(known(*urls, "nowhere:a.bin"), tmp_path)
    assert str(caught.value).splitlines() == [
        "cannot download a.bin:",
        f"  {urls[0]}: HTTP 404 Not Found",
        f"  {urls[1]}: its md5 is {hashlib.md5(OTHER).hexdigest()}, the published file's {MD5}",
        f"  {urls[2]}: it has 5 bytes, the published file 300,000",
        "  nowhere:a.bin: unknown url type: nowhere",
    ]
    assert visible(tmp_path) == []


def test_what_passes_is_tried_again_and_what_lasts_is_not(server, tmp_path):
    server.statuses = {"a.bin": [503, 500, 429], "none.bin": [404]}
    assert download(known(server.url("none.bin"), server.url("a.bin")), tmp_path).read_bytes() == CONTENT
    assert [request.path for request in server.requests] == ["none.bin"] + ["a.bin"] * 4


def test_tries_are_bounded(server, tmp_path):
    server.statuses = {"a.bin": [503] * 10}
    with pytest.raises(DownloadError, match=r"HTTP 503 Service Unavailable \(4 tries\)"):
        download(known(server.url("a.bin")), tmp_path)
    assert len(server.requests) == 4


def test_an_address_that_brings_something_new_each_time_is_not_given_up(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_NEW_BYTES", 10_000)
    server.cut_after = [20_000] * 14
    assert download(known(server.url("a.bin")), tmp_path).read_bytes() == CONTENT
    assert len(server.requests) == 15


def test_a_length_that_says_too_much_is_a_connection_that_ended(server, tmp_path):
    server.extra_length = 10
    server.has_ranges = False
    with pytest.raises(DownloadError, match="ended after 300,000 of 300,010 bytes"):
        download(known(server.url("a.bin"), num_bytes=None), tmp_path)


def test_a_wrong_length_is_refused_before_anything_comes(server, tmp_path):
    with pytest.raises(DownloadError, match="it has 300,000 bytes, the published file 400,000"):
        download(known(server.url("a.bin"), num_bytes=400_000), tmp_path)
    assert visible(tmp_path) == []


def test_a_file_of_unknown_length_is_verified_all_the_same(server, tmp_path):
    server.has_lengths = False
    assert download(known(server.url("a.bin"), num_bytes=None), tmp_path).read_bytes() == CONTENT


def test_no_connection_is_told_in_words(tmp_path):
    with serve_files() as gone:
        url = gone.url("a.bin")
    with pytest.raises(DownloadError, match=r"a\.bin: Connection refused \(4 tries\)"):
        download(known(url), tmp_path)


def test_a_file_that_was_brought_is_verified_and_used(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    assert download(known(server.url("a.bin")), tmp_path) == tmp_path / "a.bin"
    assert server.requests == []


def test_a_wrong_file_that_was_brought_is_told_and_stays(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(OTHER)
    with pytest.raises(DownloadError, match=r"a\.bin is not the published file: its md5 is .*: remove it, or bring"):
        download(known(server.url("a.bin")), tmp_path)
    assert (tmp_path / "a.bin").read_bytes() == OTHER


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(CONTENT)
    stat = path.stat()
    download(known(), tmp_path)
    path.write_bytes(OTHER)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    download(known(), tmp_path)  # the stamp is believed
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    with pytest.raises(DownloadError, match="is not the published file"):
        download(known(), tmp_path)


def test_a_spoilt_stamp_is_made_again(tmp_path):
    (tmp_path / "a.bin").write_bytes(CONTENT)
    (tmp_path / ".a.bin.verified").write_text("[1")
    download(known(), tmp_path)
    assert SHA256 in (tmp_path / ".a.bin.verified").read_text()


def test_a_file_without_an_address_says_so(tmp_path):
    with pytest.raises(DownloadError, match=r"cannot download a\.bin: it has no public address"):
        download(known(), tmp_path)


def test_too_little_space_is_told_before_anything_comes(server, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_free_bytes", lambda _: 2_000)
    with pytest.raises(StorageError, match=r"a\.bin needs 300\.0 kB, but .* has 2\.0 kB free: free some space"):
        download(known(server.url("a.bin")), tmp_path)
    assert visible(tmp_path) == []


def test_redirects_are_followed_and_keep_the_range(server, tmp_path):
    server.redirects["old.bin"] = server.url("a.bin")
    server.cut_after = [100_000]
    assert download(known(server.url("old.bin")), tmp_path).read_bytes() == CONTENT
    assert [(request.path, request.range) for request in server.requests[2:]] == [
        ("old.bin", "bytes=100000-"),
        ("a.bin", "bytes=100000-"),
    ]


def test_the_proxy_of_the_environment_is_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.delenv("no_proxy", raising=False)
    assert download(known("http://flowers.invalid/a.bin"), tmp_path).read_bytes() == CONTENT


def test_a_local_file_can_be_the_address(tmp_path):
    source = tmp_path / "mirror" / "a.bin"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    assert download(known(source.as_uri()), tmp_path / "root").read_bytes() == CONTENT


def test_a_local_file_that_is_not_there_is_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_WAITS_S", (1000.0,))
    with pytest.raises(DownloadError, match=r"none\.bin: No such file or directory$"):
        download(known((tmp_path / "none.bin").as_uri()), tmp_path)


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not here")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serve_files() as secret:
        secret._server.socket = context.wrap_socket(secret._server.socket, server_side=True)
        with pytest.raises(DownloadError, match=r"certificate verify failed") as caught:
            download(known(secret.url("a.bin").replace("http:", "https:")), tmp_path)
    assert "tries" not in str(caught.value)
    assert visible(tmp_path) == ["certificate.pem", "key.pem"]


def test_progress_shows_bytes_and_begins_where_the_part_ends(server, tmp_path):
    server.cut_after = [150_000]
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None, legacy_windows=False)
    download(known(server.url("a.bin")), tmp_path, console=console)
    shown = console.file.getvalue()
    assert "150.0/300.0 kB" in shown
    assert "B/s" in shown


def test_threads_of_one_process_download_once(server, tmp_path):
    server.seconds_per_chunk = 0.01
    threads = [threading.Thread(target=download, args=(known(server.url("a.bin")), tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_an_archive_says_what_it_gives():
    with pytest.raises(ArgumentError, match=r"a\.tar is to be unpacked but gives nothing"):
        RemoteFile("a.tar", unpack=True)
