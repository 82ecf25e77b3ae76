"""Archives that are what they should be, and archives that want to do harm."""

import gzip
import io
import os
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import time
import unicodedata
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from finevote.data import archives
from finevote.data.archives import Limits, is_archive, is_half_unpacked, unpack
from finevote.errors import ArchiveError, StorageError

MODES = {"a.tar": "w:", "a.tar.gz": "w:gz", "a.tar.bz2": "w:bz2", "a.tar.xz": "w:xz"}
KINDS = ["a.zip", *MODES]
CONTENT = {"Images/n1-cat/1.jpg": b"cat" * 400, "Images/n2-dog/2.jpg": b"", "train list.mat": b"x", "ö/名.txt": b"y"}


def pack(path: Path, content: dict[str, bytes]) -> Path:
    """Write an archive of the kind that the suffixes name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return path
    return pack_tar(path, [(tar_info(name, data), data) for name, data in content.items()])


def pack_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], **options) -> Path:
    with tarfile.open(path, MODES.get(path.name.replace(path.name.split(".")[0], "a", 1), "w:"), **options) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


def tar_info(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), target
    return info


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones too, but for locks."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".finevote.lock"
    }


def refuse(archive: Path, match: str, *, limits: Limits | None = None) -> None:
    """Assert that an archive is refused, into a new folder and into one that is there, and nothing is written."""
    root = archive.parent / "root"
    root.mkdir(exist_ok=True)
    (root / "mine.txt").write_text("mine")
    before = tree(archive.parent)
    for folder in (root, archive.parent / "new"):
        with pytest.raises(ArchiveError, match=match):
            unpack(archive, folder, limits=limits)
        assert tree(archive.parent) == before
        assert not (archive.parent / "new").exists()


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_known_by_content_and_unpacked(tmp_path, name):
    archive = pack(tmp_path / name, CONTENT).rename(tmp_path / "archive.bin")
    assert is_archive(archive)
    unpack(archive, tmp_path / "new" / "root")
    assert tree(tmp_path / "new" / "root") == CONTENT
    assert [path.name for path in (tmp_path / "new").iterdir() if path.name != ".finevote.lock"] == ["root"]


@pytest.mark.parametrize(
    "content",
    [b"", b"\x89PNG\r\n\x1a\n", gzip.compress(b"a,b\n1,2\n", mtime=0), b"BZh9", bytes(10_240)],
    ids=["empty", "png", "csv.gz", "bz2 in name only", "empty tar"],
)
def test_other_files_are_no_archives(tmp_path, content):
    path = tmp_path / "a.zip"
    path.write_bytes(content)
    assert not is_archive(path)
    refuse(
        path, r"a\.zip is not unpacked: it is no zip, tar, tar\.gz, tar\.bz2 or tar\.xz, whatever its name, or is dama"
    )


def test_an_archive_that_is_not_there_is_told(tmp_path):
    assert not is_archive(tmp_path)
    with pytest.raises(ArchiveError, match=r"none\.zip is not there, or is no file: check its name"):
        unpack(tmp_path / "none.zip", tmp_path / "root")


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_dots_and_double_slashes_in_names_are_harmless(tmp_path, name):
    unpack(pack(tmp_path / name, {"./a//b/./c.txt": b"c", "./d.txt": b"d"}), tmp_path / "root")
    assert tree(tmp_path / "root") == {"a/b/c.txt": b"c", "d.txt": b"d"}


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
@pytest.mark.parametrize(
    ("member", "reason"),
    [
        ("/etc/evil", "'/etc/evil' leads outside"),
        ("../evil", r"'\.\./evil' leads outside"),
        ("a/../../evil", "leads outside"),
        ("a/..", "leads outside"),
        ("C:/evil", "leads outside"),
        ("a/c:evil", "leads outside"),
        ("..\\evil", "backslash or control character"),
        ("\\\\server\\share", "backslash or control character"),
        ("a\nb", "backslash or control character"),
        ("a\x1b[2Jb", "backslash or control character"),
        ("ü" * 128, "too long: at most 255 bytes"),
        ("a/" * 100 + "b", "too long: at most 1024 bytes and 64 folders"),
        ("/".join(["a" * 200] * 6), "too long: at most 1024 bytes"),
    ],
)
def test_names_that_lead_outside_or_cannot_be_written_are_refused(tmp_path, name, member, reason):
    refuse(pack(tmp_path / name, {"good.txt": b"good", member: b"evil"}), reason)


def test_a_zero_byte_in_a_name_is_refused(tmp_path):
    archive = pack(tmp_path / "a.zip", {"good.jpg\0.exe".replace("\0", "@"): b"evil"})
    archive.write_bytes(archive.read_bytes().replace(b"good.jpg@", b"good.jpg\0"))
    refuse(archive, "backslash or control character")
    info = tar_info("good")
    info.pax_headers = {"path": "good.jpg\0.exe"}
    refuse(pack_tar(tmp_path / "b.tar", [(info, b"")], format=tarfile.PAX_FORMAT), "backslash or control character")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (tarfile.SYMTYPE, "'evil' is a symbolic link"),
        (tarfile.LNKTYPE, "'evil' is a hard link"),
        (tarfile.CHRTYPE, "'evil' is a device"),
        (tarfile.BLKTYPE, "'evil' is a device"),
        (tarfile.FIFOTYPE, "'evil' is a pipe"),
        (tarfile.CONTTYPE, "'evil' is of an unknown kind"),
        (tarfile.GNUTYPE_SPARSE, "'evil' is a sparse file"),
        (b"Z", "'evil' is of an unknown kind"),
    ],
)
def test_whatever_is_no_file_or_folder_is_refused_in_a_tar(tmp_path, kind, reason):
    members = [(tar_info("good", b"good"), b"good"), (tar_info("evil", kind=kind, target="/etc/passwd"), b"")]
    refuse(pack_tar(tmp_path / "a.tar", members), reason)


def test_a_file_behind_a_link_in_the_same_archive_is_refused(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tar_info("door", kind=tarfile.SYMTYPE, target=str(outside))
    refuse(pack_tar(tmp_path / "a.tar", [(link, b""), (tar_info("door/evil", b"x"), b"x")]), "symbolic link")
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(stat.S_IFLNK, "a symbolic link"), (stat.S_IFCHR, "a device"), (stat.S_IFIFO, "a pipe"), (stat.S_IFSOCK, "a soc")],
)
def test_whatever_is_no_file_or_folder_is_refused_in_a_zip(tmp_path, kind, reason):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("evil")
        info.create_system, info.external_attr = 3, (kind | 0o777) << 16
        archive.writestr("good", "good")
        archive.writestr(info, "/etc/passwd")
    refuse(tmp_path / "a.zip", f"'evil' is {reason}")


def test_an_encrypted_zip_and_an_unusual_compression_are_refused(tmp_path):
    archive = pack(tmp_path / "a.zip", {"secret": b"secret"})
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    refuse(archive, "'secret' is encrypted")
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_LZMA) as other:
        other.writestr("odd", b"odd")
    refuse(tmp_path / "b.zip", "'odd' is compressed by another method than deflate")


def test_permissions_of_the_archive_are_not_taken_over(tmp_path):
    info = tar_info("run", b"x")
    info.mode, info.uid, info.mtime = 0o6777, 0, 0
    unpack(pack_tar(tmp_path / "a.tar", [(info, b"x")]), tmp_path / "root")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        zipped = zipfile.ZipInfo("run")
        zipped.external_attr = (stat.S_IFREG | 0o6777) << 16
        archive.writestr(zipped, "x")
    unpack(tmp_path / "b.zip", tmp_path / "other")
    assert (tmp_path / "root" / "run").stat().st_mode & 0o7111 == 0
    assert (tmp_path / "other" / "run").stat().st_mode & 0o7111 == 0


# Names in odd encodings


def zip_with_raw_name(path: Path, name: bytes) -> Path:
    """Write a zip whose member has these bytes for a name, not marked as UTF-8."""
    placeholder = "x" * len(name)
    pack(path, {placeholder: b"content"})
    path.write_bytes(path.read_bytes().replace(placeholder.encode(), name))
    return path


def test_unmarked_utf8_in_a_zip_is_read_as_utf8(tmp_path):
    unpack(zip_with_raw_name(tmp_path / "a.zip", "grüße/名.txt".encode()), tmp_path / "root")
    assert tree(tmp_path / "root") == {"grüße/名.txt": b"content"}


def test_other_encodings_are_refused(tmp_path):
    refuse(zip_with_raw_name(tmp_path / "a.zip", "grüße".encode("latin-1")), "is not UTF-8: pack it again")
    info = tar_info("grüße")
    refuse(pack_tar(tmp_path / "b.tar", [(info, b"")], format=tarfile.USTAR_FORMAT, encoding="latin-1"), "is not UTF-8")


def test_a_zip_that_lies_about_utf8_is_refused(tmp_path):
    archive = zip_with_raw_name(tmp_path / "a.zip", "grüße".encode("latin-1"))
    content = bytearray(archive.read_bytes())
    content[7] |= 8
    content[content.index(b"PK\x01\x02") + 9] |= 8
    archive.write_bytes(content)
    refuse(archive, "it is damaged: .*utf-8.* codec can't decode")


@pytest.mark.parametrize("kind", ["a.tar", "a.zip"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.jpg", "A.jpg"),
        ("Images/1.jpg", "images/2.jpg"),
        (unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg")),
        ("straße", "STRASSE"),
    ],
)
def test_names_that_are_one_on_another_system_are_refused(tmp_path, kind, first, second):
    refuse(pack(tmp_path / kind, {first: b"1", second: b"2"}), "would be one file")


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("A/b", "a")])
def test_a_name_that_is_a_file_and_a_folder_is_refused(tmp_path, names):
    refuse(pack(tmp_path / "a.tar", dict.fromkeys(names, b"")), "is both a file and a folder")


def test_a_file_without_a_name_is_refused(tmp_path):
    refuse(pack(tmp_path / "a.tar", {"./.": b""}), "a file in it has no name")


def test_of_a_file_that_is_there_twice_the_later_one_counts(tmp_path):
    members = [(tar_info("a", data), data) for data in (b"old", b"new")]
    unpack(pack_tar(tmp_path / "a.tar", members), tmp_path / "root")
    assert tree(tmp_path / "root") == {"a": b"new"}


# Bombs


def test_a_file_of_nothing_but_zeros_is_refused_as_a_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_NEVER_A_BOMB_BYTES", 2**20)
    zeros = bytes(2**22)
    refuse(pack(tmp_path / "a.zip", {"zeros": zeros}), "may be a bomb")
    refuse(pack(tmp_path / "a.tar.gz", {"zeros": zeros}), "may be a bomb")


def test_what_is_declared_bounds_what_is_written(tmp_path):
    for name in KINDS:
        archive = pack(tmp_path / name, {"a": bytes(600), "b": bytes(600)})
        refuse(archive, "more bytes than are allowed", limits=Limits(max_bytes=1199))
        unpack(archive, tmp_path / f"{name}.unpacked", limits=Limits(max_bytes=1200))


def test_too_many_members_are_refused(tmp_path):
    archive = pack(tmp_path / "a.tar", {str(number): b"" for number in range(11)})
    refuse(archive, "more than 10 members", limits=Limits(max_members=10))
    unpack(archive, tmp_path / "new", limits=Limits(max_members=11))


def test_a_zip_whose_members_overlap_is_refused(tmp_path):
    """One block of compressed data that many entries of the directory point to."""
    archive = pack(tmp_path / "a.zip", {"0": bytes(2**20)})
    content = archive.read_bytes()
    at = content.index(b"PK\x01\x02")
    entry, end = content[at : content.index(b"PK\x05\x06")], bytearray(content[content.index(b"PK\x05\x06") :])
    struct.pack_into("<HHI", end, 8, 99, 99, 99 * len(entry))
    archive.write_bytes(content[:at] + entry * 99 + end)
    refuse(archive, "may be a bomb")


def test_a_zip_that_says_it_is_small_is_refused(tmp_path):
    archive = pack(tmp_path / "a.zip", {"zeros": bytes(2**20)})
    content = archive.read_bytes().replace(struct.pack("<I", 2**20), struct.pack("<I", 10))
    archive.write_bytes(content)
    refuse(archive, "it is damaged: Bad CRC-32")


def test_a_header_that_would_fill_the_memory_is_refused(tmp_path):
    info = tar_info("a")
    info.pax_headers = {"comment": "x" * 2**21}
    refuse(pack_tar(tmp_path / "a.tar.gz", [(info, b"")]), "a header is bigger than")


def test_a_size_below_zero_does_not_go_round_in_circles(tmp_path):
    archive = pack(tmp_path / "a.tar", {"a": b"1", "b": b"2"})
    content = bytearray(archive.read_bytes())
    content[124:136] = struct.pack(">iq", -1, -1024)
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    archive.write_bytes(content)
    refuse(archive, "below zero|damaged")


# Damage


@pytest.mark.parametrize("name", KINDS)
def test_what_is_cut_short_is_refused(tmp_path, name):
    archive = pack(tmp_path / name, {str(number): os.urandom(3000) for number in range(20)})
    archive.write_bytes(archive.read_bytes()[:-20_000])
    refuse(archive, "is damaged")


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_a_flipped_bit_is_noticed_where_there_is_a_checksum(tmp_path, name):
    archive = pack(tmp_path / name, {"a": os.urandom(30_000)})
    content = bytearray(archive.read_bytes())
    content[15_000] ^= 1
    archive.write_bytes(content)
    refuse(archive, "is damaged")


def test_a_broken_header_in_the_middle_is_not_the_end(tmp_path):
    archive = pack(tmp_path / "a.tar", {"a": b"1", "b": b"2", "c": b"3"})
    content = bytearray(archive.read_bytes())
    content[1024] ^= 1
    archive.write_bytes(content)
    refuse(archive, "it is damaged: it ends in the middle, or a header is not readable")


# Into a folder that is there


def test_several_archives_share_one_root(tmp_path):
    root = tmp_path / "root"
    for number, name in enumerate(KINDS):
        unpack(pack(root / name, {f"Images/{number}/a.jpg": b"a", f"{number}.mat": b"m"}), root)
    expected = {f"Images/{number}/a.jpg": b"a" for number in range(5)} | {f"{number}.mat": b"m" for number in range(5)}
    assert {name: data for name, data in tree(root).items() if name not in KINDS} == expected


@pytest.mark.parametrize("in_the_way", ["a file", "a link"])
def test_what_is_in_the_way_is_told_before_anything_is_moved(tmp_path, in_the_way):
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    if in_the_way == "a file":
        (root / "z").write_text("mine")
    else:
        (root / "z").symlink_to(outside)
    before = tree(tmp_path)
    archive = pack(tmp_path / "a.tar", {"a/1": b"1", "z/2": b"2"})
    with pytest.raises(ArchiveError, match=r"root/z is in its way: remove that, or unpack elsewhere"):
        unpack(archive, root)
    archive.unlink()
    assert tree(tmp_path) == before


UNPACK = """
import sys
from pathlib import Path
from finevote.data.archives import unpack
unpack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def start_unpacking(archive: Path, folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", UNPACK, str(archive), str(folder)], stderr=subprocess.PIPE)


def kill_in_the_middle(archive: Path, folder: Path, *, staged: Path) -> None:
    process = start_unpacking(archive, folder)
    for _ in range(30_000):
        if (staged / "0030").exists():
            break
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.fixture
def many(tmp_path) -> Path:
    data = bytes(range(256)) * 40
    return pack(tmp_path / "a.tar", {f"{number:04}": data for number in range(1000)})


def test_a_killed_unpacking_leaves_nothing_in_place_and_the_next_call_goes_on(tmp_path, many):
    staged = tmp_path / ".a.tar.unpacking" / "content"
    kill_in_the_middle(many, tmp_path / "root", staged=staged)
    assert not (tmp_path / "root").exists()
    done = {path.name: path.stat().st_ino for path in staged.iterdir()}
    unpack(many, tmp_path / "root")
    assert 30 <= len(done) < 1000
    assert {name: (tmp_path / "root" / name).stat().st_ino for name in done} == done  # not written again
    assert len(list((tmp_path / "root").iterdir())) == 1000
    assert not (tmp_path / ".a.tar.unpacking").exists()


def test_what_was_begun_with_another_archive_is_begun_anew(tmp_path, many):
    root = tmp_path / "root"
    root.mkdir()
    kill_in_the_middle(many, root, staged=root / ".a.tar.unpacking" / "content")
    assert is_half_unpacked(many, root)
    pack(many, {"other": b"other"})
    unpack(many, root)
    assert tree(root) == {"other": b"other"}
    assert not is_half_unpacked(many, root)


def test_a_move_that_was_killed_in_the_middle_is_ended(tmp_path):
    root = tmp_path / "root"
    archive = pack(tmp_path / "a.tar", {"a/1": b"1", "b/2": b"2", "c": b"3"})
    unpack(archive, root / "once")
    staging = root / ".a.tar.unpacking"
    (staging / "content").mkdir(parents=True)
    (root / "once" / "b").rename(staging / "content" / "b")  # a and c were moved before
    for name in ("a", "c"):
        (root / "once" / name).rename(root / name)
    stat_now = archive.stat()
    (staging / "archive.json").write_text(f"[{stat_now.st_size}, {stat_now.st_mtime_ns}]")
    (staging / "complete").touch()
    (root / "once").rmdir()
    unpack(archive, root)
    assert tree(root) == {"a/1": b"1", "b/2": b"2", "c": b"3"}


def test_of_two_processes_at_once_the_second_uses_what_the_first_made(tmp_path, many):
    processes = [start_unpacking(many, tmp_path / "root") for _ in range(2)]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert len(list((tmp_path / "root").iterdir())) == 1000
    assert not (tmp_path / ".a.tar.unpacking").exists()


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    archive = pack(tmp_path / "a.tar", {"a": b""})
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file"):
        unpack(archive, tmp_path / "file" / "root")


def test_progress_is_counted_in_bytes_of_the_archive(tmp_path):
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None, legacy_windows=False)
    unpack(pack(tmp_path / "a.tar", {"a": bytes(90_000), "b": b""}), tmp_path / "root", console=console)
    assert "unpack a.tar" in console.file.getvalue()
    assert "/92.2 kB" in console.file.getvalue()


# Against an independent judge, and against chance


@given(
    name=st.text(st.sampled_from("ab./\\:Cü \0\n"), min_size=1, max_size=12).filter(lambda name: name.strip("/. \0")),
    kind=st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]),
    target=st.sampled_from(["a", "../a", "/etc", "a/../../b"]),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_the_filter_of_the_standard_library_refuses_is_refused(tmp_path_factory, name, kind, target):
    folder = tmp_path_factory.mktemp("judge")
    info = tar_info(name, kind=kind, target=target)
    archive = pack_tar(folder / "a.tar", [(info, b"")])
    with tarfile.open(archive) as read:
        member = read.getmembers()[0]
    try:
        allowed = tarfile.data_filter(member, str(folder / "root")) is not None
    except (tarfile.FilterError, ValueError):
        allowed = False
    try:
        unpack(archive, folder / "root")
    except ArchiveError:
        return
    assert allowed
    assert member.isreg() or member.isdir()


@given(
    name=st.sampled_from(KINDS),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=8),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_damage_ends_in_a_refusal_or_in_files_inside(tmp_path_factory, name, changes):
    folder = tmp_path_factory.mktemp("damage")
    archive = pack(folder / name, {"a/b": b"1" * 600, "c": b"2" * 20})
    content = bytearray(archive.read_bytes())
    for place, change in changes:
        content[int(place * len(content))] ^= change
    archive.write_bytes(content)
    try:
        unpack(archive, folder / "root")
    except ArchiveError:
        assert not (folder / "root").exists()
    assert {path.name for path in folder.iterdir()} <= {name, "root", ".finevote.lock"}
