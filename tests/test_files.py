import errno
import hashlib
import os
from pathlib import Path

import pytest

from finevote import files
from finevote.errors import StorageError


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_atomic_write_replaces_the_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "a.txt"
    files.atomic_write(path, "old")
    files.atomic_write(path, "grün")
    assert path.read_text(encoding="utf-8") == "grün"
    assert names(path.parent) == ["a.txt"]


def test_atomic_write_keeps_bytes_as_they_are(tmp_path):
    files.atomic_write(tmp_path / "a.bin", b"\x00\r\n\xff", durable=False)
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\r\n\xff"


def test_a_full_disk_is_told_with_path_and_free_space_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    files.atomic_write(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(
        StorageError,
        match=r"cannot write .*a\.txt: No space left on device \(the disk is full, [\d,.]+ MiB free",
    ):
        files.atomic_write(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def _fill(folder: Path, full: Path) -> None:
    (folder / "half").write_text("")
    full.write_text("x")


def test_a_really_full_disk_leaves_no_half_folder(tmp_path):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(StorageError, match="No space left"), files.atomic_folder(tmp_path / "run") as folder:
        _fill(folder, full)
    assert names(tmp_path) == []


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*: (Not a directory|File exists)"):
        files.atomic_write(tmp_path / "a" / "b", "")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EISDIR])
def test_another_reason_stands_alone(tmp_path, monkeypatch, number):
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(StorageError, match=rf"^cannot write .*a\.txt: {os.strerror(number)}: choose another place$"):
        files.atomic_write(tmp_path / "a.txt", "new")


def test_temporary_files_of_killed_writers_are_removed_and_no_others(tmp_path):
    name = f".last.pt.{'0' * 31}f.tmp"
    (tmp_path / name).write_text("")
    (tmp_path / name.replace("last.pt", "bundle")).mkdir()
    for other in ("last.pt", ".mine.tmp", name[1:]):
        (tmp_path / other).write_text("")
    files.remove_temporaries(tmp_path)
    assert sorted(names(tmp_path)) == sorted(["last.pt", ".mine.tmp", name[1:]])


def test_atomic_folder_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "bundle"
    with files.atomic_folder(path) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").write_text("1")
        assert not path.exists()
    assert (path / "deep" / "a").read_text() == "1"
    assert names(tmp_path) == ["bundle"]


def test_atomic_folder_cleans_up_when_its_block_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), files.atomic_folder(tmp_path / "bundle") as folder:
        (folder / "a").write_text(str(1 / 0))
    assert names(tmp_path) == []


def test_atomic_folder_explains_any_error_on_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_free_bytes", lambda _: 0)
    with (
        pytest.raises(StorageError, match=r"weird writer failed .*0\.0 MiB free"),
        files.atomic_folder(tmp_path / "bundle"),
    ):
        raise RuntimeError("weird writer failed")


def test_a_full_disk_is_known_by_the_words_of_other_libraries(tmp_path):
    with pytest.raises(StorageError, match=r"cannot write .*No space left"), files.atomic_file(tmp_path / "a"):
        raise RuntimeError("I/O error: No space left on device")


def test_an_error_that_is_not_about_the_disk_passes_as_it_is(tmp_path):
    with pytest.raises(RuntimeError, match=r"^mine$"), files.atomic_file(tmp_path / "a"):
        raise RuntimeError("mine")
    assert names(tmp_path) == []


def test_atomic_folder_refuses_to_overwrite_unless_told(tmp_path):
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").write_text("")
    with pytest.raises(StorageError, match="already exists"), files.atomic_folder(path):
        pass
    assert names(path) == ["old"]
    with files.atomic_folder(path, replace=True) as folder:
        (folder / "new").write_text("")
    assert names(path) == ["new"]
    assert names(tmp_path) == ["bundle"]


def test_a_failed_replacement_keeps_the_old_folder(tmp_path):
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "old").write_text("")
    with pytest.raises(ZeroDivisionError), files.atomic_folder(path, replace=True):
        _ = 1 / 0
    assert names(path) == ["old"]


def test_sha256_of_is_the_digest_of_the_content(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert files.sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_nested_blocks_for_one_folder_do_not_wait_for_each_other(tmp_path):
    with files.exclusive(tmp_path / "new"), files.exclusive(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()


def test_a_folder_that_cannot_be_made_is_told_by_the_lock(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write .*file"), files.exclusive(tmp_path / "file"):
        pass


def test_space_is_that_of_the_disk_where_the_folder_will_be(tmp_path):
    files.check_space(tmp_path / "not" / "yet", 1, purpose="this")
    with pytest.raises(StorageError, match=r"this needs 10\.0 EB, but .*yet has [\d.]+ \wB free"):
        files.check_space(tmp_path / "not" / "yet", 10**19, purpose="this")
