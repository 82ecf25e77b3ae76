"""Zips and tars of image folders, opened like the folders."""

import shutil
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from finevote.data.images import find_unreadable
from finevote.data.registry import open_source, protocol_for
from finevote.errors import DataError, StorageError
from tests.data.miniatures import make_miniature

FIT = ("train", "val")
FORMATS = [
    ("zip", "zip"),
    ("tar", "tar"),
    ("tar.gz", "gztar"),
    ("tgz", "gztar"),
    ("tar.bz2", "bztar"),
    ("tar.xz", "xztar"),
]


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches"


@pytest.fixture
def birds(tmp_path, paint_classes):
    return paint_classes(tmp_path / "photographs" / "birds", {"crow": 3, "wren": 2})


def pack(folder, archive, *, kind="zip", top=""):
    """Write an archive with what is in `folder`, below a folder `top` if one is named."""
    root, base = (folder.parent, folder.name) if top else (folder, ".")
    made = shutil.make_archive(str(archive.with_name("made")), kind, root_dir=root, base_dir=base)
    return Path(made).replace(archive)


def unpacked(caches):
    return sorted(path for path in (caches / "finevote" / "unpacked").glob("*/*") if path.is_dir())


@pytest.mark.parametrize(("suffix", "kind"), FORMATS)
@pytest.mark.parametrize("top", ["", "birds"])
def test_an_archive_is_opened_like_the_folder_in_it(birds, tmp_path, suffix, kind, top):
    archive = pack(birds, tmp_path / f"set.{suffix}", kind=kind, top=top)
    source, folder = open_source(archive, splits=FIT), open_source(birds, splits=FIT)
    assert source.name == str(archive)
    assert source.class_names == folder.class_names == ("crow", "wren")
    assert [(r.image_id, r.label) for r in source.splits["train"]] == [
        (r.image_id, r.label) for r in folder.splits["train"]
    ]
    assert find_unreadable(source, source.splits["train"]) == {}


def test_split_folders_are_understood_and_test_stays_closed(tmp_path, paint_classes):
    for split in ("train", "val", "test"):
        paint_classes(tmp_path / "birds" / split, {"crow": 2, "wren": 2})
    archive = pack(tmp_path / "birds", tmp_path / "birds.zip", top="birds")
    assert set(open_source(archive, splits=FIT).splits) == {"train", "val"}
    assert open_source(archive, splits=("test",)).splits["test"][0].image_id == "test/crow/0.png"


def test_an_archive_without_test_images_is_told_by_its_own_name(birds, tmp_path):
    archive = pack(birds, tmp_path / "set.zip")
    with pytest.raises(DataError, match=rf"^{archive} has no test images"):
        open_source(archive, splits=("test",))


def test_what_macs_leave_in_an_archive_is_passed_over(birds, tmp_path):
    archive = pack(birds, tmp_path / "set.zip", top="birds")
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("__MACOSX/birds/crow/._0.png", b"\0\5\x16\7")
        file.writestr("birds/.DS_Store", b"")
    source = open_source(archive, splits=FIT)
    assert source.class_names == ("crow", "wren")
    assert not [note for note in source.notes if "ignored" in note]


def test_an_archive_is_unpacked_once(birds, tmp_path, caches):
    archive = pack(birds, tmp_path / "set.zip")
    first = open_source(archive, splits=FIT).splits["train"][0].path
    stat = first.stat()
    assert open_source(archive, splits=FIT).splits["train"][0].path == first
    assert first.stat() == stat
    assert len(unpacked(caches)) == 1


def test_a_changed_archive_is_unpacked_anew(birds, tmp_path, paint):
    archive = pack(birds, tmp_path / "set.zip")
    assert len(open_source(archive, splits=FIT).splits["train"]) == 5
    paint(birds / "wren" / "new.png")
    pack(birds, archive)
    assert len(open_source(archive, splits=FIT).splits["train"]) == 6


def test_processes_that_ask_at_once_unpack_it_once(birds, tmp_path, caches):
    archive = pack(birds, tmp_path / "set.zip")
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda _: open_source(archive, splits=FIT), range(4)))
    assert len({source.splits["train"][0].path for source in sources}) == 1
    assert len(unpacked(caches)) == 1


@pytest.mark.parametrize("cut", [0.2, 0.6])
@pytest.mark.parametrize(("suffix", "kind"), FORMATS)
def test_a_damaged_archive_is_told_and_nothing_is_kept(birds, tmp_path, caches, suffix, kind, cut):
    archive = pack(birds, tmp_path / f"set.{suffix}", kind=kind)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * cut)])
    with pytest.raises(DataError, match=rf"{archive}"):
        open_source(archive, splits=FIT)
    assert unpacked(caches) == []


def test_an_archive_that_leads_outside_is_refused(tmp_path, caches):
    with tarfile.open(tmp_path / "set.tar", "w") as file:
        link = tarfile.TarInfo("birds/crow/passwords")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    with pytest.raises(DataError, match=r"set\.tar is not unpacked: .*symbolic link"):
        open_source(tmp_path / "set.tar", splits=FIT)
    assert unpacked(caches) == []


def test_a_cache_that_cannot_be_written_is_told(birds, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"cannot write .* choose another place with XDG_CACHE_HOME"):
        open_source(pack(birds, tmp_path / "set.zip"), splits=FIT)


def test_an_archive_of_something_else_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as file:
        file.writestr("notes/a.txt", b"text")
    with pytest.raises(DataError, match="holds no class folders with images"):
        open_source(tmp_path / "set.zip", splits=FIT)


@pytest.mark.parametrize("name", ["cub200", "flowers102", "dogs"])
@pytest.mark.parametrize("top", ["", "tree"])
def test_an_archive_of_a_published_set_is_recognised(name, top, tmp_path):
    tree = make_miniature(name, tmp_path).tree
    source = open_source(pack(tree, tmp_path / "set.tar", kind="tar", top=top), splits=("train", "test"))
    folder = open_source(tree, splits=("train", "test"))
    assert source.name == str(tmp_path / "set.tar")
    assert source.protocol == folder.protocol
    assert source.class_names == folder.class_names
    assert [record.image_id for record in source.splits["test"]] == [
        record.image_id for record in folder.splits["test"]
    ]


def test_a_protocol_goes_with_an_archive_of_a_published_set_alone(birds, tmp_path):
    published = pack(make_miniature("flowers102", tmp_path).tree, tmp_path / "flowers.zip")
    assert protocol_for(published, "trainval") == "trainval"
    assert protocol_for(pack(birds, tmp_path / "set.zip"), "trainval") is None
