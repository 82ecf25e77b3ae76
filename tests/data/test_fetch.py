"""Whole data sets fetched from a local server, miniature archives side by side in one root."""

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finevote import files as storage
from finevote.data.fetch import describe_by_hand, fetch
from finevote.errors import ArchiveError, DownloadError, StorageError
from finevote.remote import download as download_module
from finevote.remote.download import RemoteFile
from tests.data.file_server import serve_files
from tests.data.test_archives import pack

PACKED = {
    "images.tar": {"Images/n1-cat/1.jpg": b"cat", "Images/n2-dog/2.jpg": b"dog"},
    "lists.tar.gz": {"train_list.mat": b"train", "test_list.mat": b"test"},
}
GIVEN = {"images.tar": ("Images",), "lists.tar.gz": ("train_list.mat", "test_list.mat")}

FETCH = """
import sys
from pathlib import Path
from finevote.remote.download import RemoteFile
from finevote.data.fetch import fetch
fetch([RemoteFile("images.tar", (sys.argv[1],), unpack=True, gives=("Images",))], Path(sys.argv[2]))
"""


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(download_module, "_WAITS_S", (0.0,))


@pytest.fixture
def packed(tmp_path) -> dict[str, bytes]:
    """The files of the set as they are published."""
    archives = {name: pack(tmp_path / "made" / name, content).read_bytes() for name, content in PACKED.items()}
    return {**archives, "readme.txt": b"Read me."}


@pytest.fixture
def server(packed):
    with serve_files() as served:
        served.files.update(packed)
        yield served


def published(packed: dict[str, bytes], server=None, **facts) -> list[RemoteFile]:
    return [
        RemoteFile(
            name,
            (server.url(name),) if server else (),
            num_bytes=len(data),
            md5=hashlib.md5(data).hexdigest(),
            unpack=name in GIVEN,
            gives=GIVEN.get(name, ()),
            **facts,
        )
        for name, data in packed.items()
    ]


def assert_whole(root: Path) -> None:
    for content in PACKED.values():
        for name, data in content.items():
            assert (root / name).read_bytes() == data
    assert not list(root.glob(".*.unpacking")) + list(root.glob("*.part"))


def test_everything_is_brought_unpacked_and_not_asked_for_again(server, packed, tmp_path):
    root = tmp_path / "root"
    assert fetch(published(packed, server), root) == root
    assert_whole(root)
    assert (root / "readme.txt").read_bytes() == b"Read me."
    fetch(published(packed, server), root)
    assert [request.path for request in server.requests] == list(packed)


def test_content_that_is_there_needs_no_archive(server, packed, tmp_path):
    for name in packed:
        if name in GIVEN:
            for path, data in PACKED[name].items():
                (tmp_path / "root" / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "root" / path).write_bytes(data)
    fetch(published(packed, server), tmp_path / "root")
    assert [request.path for request in server.requests] == ["readme.txt"]


def test_files_that_were_brought_by_hand_are_verified_and_unpacked(packed, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for name, data in packed.items():
        (root / name).write_bytes(data)
    fetch(published(packed), root)
    assert_whole(root)


def test_a_wrong_file_that_was_brought_is_named_and_nothing_is_unpacked(packed, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    for name, data in packed.items():
        (root / name).write_bytes(data)
    (root / "images.tar").write_bytes(packed["images.tar"].replace(b"cat", b"cow"))
    with pytest.raises(DownloadError, match=r"root/images\.tar is not the published file: its md5 is .*: remove it"):
        fetch(published(packed), root)
    assert not (root / "Images").exists()


def test_without_a_connection_every_missing_file_is_told_with_address_place_size_and_hash(packed, tmp_path):
    with serve_files() as gone:
        files = published(packed, gone, sha256="ab" * 32)
    root = tmp_path / "root"
    root.mkdir()
    (root / "readme.txt").write_bytes(packed["readme.txt"])
    with pytest.raises(DownloadError) as caught:
        fetch(files[:2], root)
    assert str(caught.value).splitlines() == [
        "cannot download images.tar:",
        f"  {files[0].urls[0]}: Connection refused (2 tries)",
        "Bring these files by hand and run the same command again:",
        f"  {root / 'images.tar'}",
        f"    from {files[0].urls[0]}",
        f"    with 10,240 bytes, md5 {files[0].md5}, sha256 {'ab' * 32}",
        f"  {root / 'lists.tar.gz'}",
        f"    from {files[1].urls[0]}",
        f"    with {files[1].num_bytes:,} bytes, md5 {files[1].md5}, sha256 {'ab' * 32}",
    ]


def test_files_without_an_address_are_asked_for_before_others_are_downloaded(server, packed, tmp_path):
    files = [*published(packed, server), RemoteFile("by_form.tar", unpack=True, gives=("b",)), RemoteFile("c.txt")]
    with pytest.raises(DownloadError) as caught:
        fetch(files, tmp_path / "root", instructions="Fill in the form at https://flowers.invalid.")
    assert str(caught.value).splitlines() == [
        "by_form.tar, c.txt cannot be downloaded: there is no public address",
        "Bring these files by hand and run the same command again:",
        f"  {tmp_path / 'root' / 'by_form.tar'}",
        f"  {tmp_path / 'root' / 'c.txt'}",
        "Fill in the form at https://flowers.invalid.",
    ]
    assert server.requests == []


def test_what_to_bring_names_every_address():
    told = describe_by_hand([RemoteFile("a", ("https://one.invalid/a", "https://two.invalid/a"))], Path("/sets"))
    assert told.splitlines() == [
        "Bring this file by hand and run the same command again:",
        "  /sets/a",
        "    from https://one.invalid/a",
        "      or https://two.invalid/a",
    ]


def test_space_for_the_whole_job_is_looked_at_first(server, packed, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "_free_bytes", lambda _: 5_000_000)
    files = published(packed, server, unpacked_bytes=3_000_000)
    with pytest.raises(StorageError, match=r"this data set needs 6\.0 MB, but .*root has 5\.0 MB free"):
        fetch(files, tmp_path / "root")
    assert server.requests == []


def test_an_archive_that_unpacks_to_more_than_was_declared_is_refused(server, packed, tmp_path):
    with pytest.raises(ArchiveError, match=r"images\.tar is not unpacked: it holds more bytes than are allowed"):
        fetch(published(packed, server, unpacked_bytes=5), tmp_path / "root")
    assert not (tmp_path / "root" / "Images").exists()


def test_an_archive_that_lacks_what_it_should_give_is_told(server, tmp_path):
    file = RemoteFile("images.tar", (server.url("images.tar"),), unpack=True, gives=("Images", "Annotation"))
    with pytest.raises(ArchiveError, match=r"images\.tar has no Annotation: remove it, or bring the right one"):
        fetch([file], tmp_path / "root")


def test_a_hostile_archive_is_refused_and_leaves_only_itself(server, tmp_path):
    server.files["images.tar"] = pack(tmp_path / "made" / "evil.tar", {"Images/1": b"", "../evil": b""}).read_bytes()
    file = RemoteFile("images.tar", (server.url("images.tar"),), unpack=True, gives=("Images",))
    with pytest.raises(ArchiveError, match="leads outside"):
        fetch([file], tmp_path / "root")
    assert [path.name for path in (tmp_path / "root").iterdir() if path.name[0] != "."] == ["images.tar"]
    assert not (tmp_path / "evil").exists()


def start(server, root: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", FETCH, server.url("images.tar"), str(root)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_two_processes_at_once_fetch_once(server, tmp_path):
    server.seconds_per_chunk, server.chunk_bytes = 0.02, 1024
    processes = [start(server, tmp_path / "root") for _ in range(2)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert len(server.requests) == 1
    assert (tmp_path / "root" / "Images" / "n1-cat" / "1.jpg").read_bytes() == b"cat"


def test_a_fetch_that_was_killed_while_unpacking_goes_on_without_the_server(server, tmp_path):
    content = {f"Images/{number:04}": bytes(5000) for number in range(1000)}
    server.files["images.tar"] = pack(tmp_path / "made" / "big.tar", content).read_bytes()
    root = tmp_path / "root"
    process = start(server, root)
    for _ in range(30_000):
        if (root / ".images.tar.unpacking" / "content" / "Images" / "0020").exists():
            break
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (root / "Images").exists()
    fetch([RemoteFile("images.tar", (), unpack=True, gives=("Images",))], root)
    assert len(list((root / "Images").iterdir())) == 1000
    assert len(server.requests) == 1


def test_content_whose_unpacking_was_not_ended_does_not_count_as_there(server, packed, tmp_path):
    root = tmp_path / "root"
    (root / "Images").mkdir(parents=True)
    (root / ".images.tar.unpacking").mkdir()
    fetch(published(packed, server), root)
    assert_whole(root)


def test_a_root_that_cannot_be_written_is_told(packed, server, tmp_path):
    (tmp_path / "root").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*root: (File exists|Not a directory)"):
        fetch(published(packed, server), tmp_path / "root")
