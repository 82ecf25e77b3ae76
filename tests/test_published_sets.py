"""Every published set in miniature goes the whole way by its name: served, cut, refused, trained on, measured."""

import json
import shutil
from dataclasses import replace

import pytest

from finevote.config import dump_config
from finevote.data.catalogue import DATASETS
from finevote.data.describe import is_by_hand
from finevote.data.registry import find_named
from finevote.remote import download
from finevote.run_folder import RunFolder
from tests.data.file_server import serve_files
from tests.data.miniatures import make_miniature
from tests.training.helpers import tiny_config

FETCHED = sorted(name for name, info in DATASETS.items() if not is_by_hand(info))
BY_HAND = sorted(name for name, info in DATASETS.items() if is_by_hand(info))


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(download, "_WAITS_S", (0.0,))


@pytest.fixture
def run(run, monkeypatch, tmp_path):
    """Run `finevote` in a folder beside the data."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("COLUMNS", "300")
    return run


@pytest.fixture
def published(monkeypatch, tmp_path):
    """Serve the archives of a miniature at the addresses in its place in the catalogue."""
    with serve_files() as server:

        def publish(name):
            made = make_miniature(name, tmp_path / "made", url=server.url("").rstrip("/"))
            server.files = {file.name: (made.archives / file.name).read_bytes() for file in made.info.files}
            monkeypatch.setitem(DATASETS, name, made.info)
            return made, server

        yield publish


def describe_all(made, name):
    """Return the lines that `data get` prints of a whole miniature."""
    counts = {
        protocol.name: ", ".join(f"{made.info.count(protocol, split)} {split}" for split in protocol.lists)
        for protocol in made.info.protocols
    }
    classes = made.info.num_classes
    return [f"{name}, protocol {key}: {classes} classes; images: {counts[key]}" for key in counts]


@pytest.mark.parametrize("name", FETCHED)
def test_a_download_that_was_cut_goes_on_and_a_second_one_downloads_nothing(run, published, name):
    made, server = published(name)
    first = made.info.files[0]
    server.cut_after = [first.num_bytes // 2, 0, 0, 0]
    code, _, err = run("data", "get", name)
    assert code == 2
    assert f"cannot download {first.name}" in err
    assert str(find_named(name).folder / first.name) in err  # where to put it by hand
    assert find_named(name).find() is None
    server.cut_after.clear()
    server.requests.clear()
    code, out, err = run("data", "get", name)
    assert code == 0, err
    assert out.splitlines() == [*describe_all(made, name), str(find_named(name).find())]
    assert server.ranges[0] == f"bytes={first.num_bytes // 2}-"
    assert set(server.ranges[1:]) <= {None}
    server.requests.clear()
    assert run("data", "get", name)[:2] == (0, out)
    assert server.requests == []


@pytest.mark.parametrize("name", FETCHED)
def test_another_file_than_the_published_one_is_refused(run, published, name):
    made, server = published(name)
    first = made.info.files[0].name
    server.files[first] = server.files[first][:-30] + b"?" * 30
    code, _, err = run("data", "get", name)
    assert code == 2
    assert f"cannot download {first}" in err
    assert "sha256" in err
    assert find_named(name).find() is None
    assert not any((find_named(name).folder / given).exists() for given in made.info.files[0].gives)


@pytest.mark.parametrize("name", BY_HAND)
def test_files_without_a_source_are_asked_for_and_taken_once_they_are_the_right_ones(run, published, tmp_path, name):
    made, server = published(name)
    folder = tmp_path / "sets" / name
    code, _, err = run("data", "get", name, "--root", tmp_path / "sets")
    assert code == 2
    assert all(str(folder / file.name) in err for file in made.info.files)
    assert made.info.instructions in err
    shutil.copytree(made.archives, folder, dirs_exist_ok=True)
    first = folder / made.info.files[0].name
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    code, _, err = run("data", "get", name, "--root", tmp_path / "sets")
    assert code == 2
    assert str(first) in err
    shutil.copy(made.archives / first.name, first)
    code, out, err = run("data", "get", name, "--root", tmp_path / "sets")
    assert code == 0, err
    assert out.splitlines()[:-1] == describe_all(made, name)
    assert run("data", "get", f"{name}@{tmp_path / 'sets'}")[0] == 0
    assert server.requests == []


@pytest.mark.parametrize("name", ["cub200", "dogs"])
def test_a_set_that_was_unpacked_by_hand_needs_no_archive(run, published, name):
    made, server = published(name)
    shutil.copytree(made.tree, find_named(name).folder)
    assert run("data", "get", name)[0] == 0
    assert server.requests == []


@pytest.mark.parametrize("name", ["cub200", "flowers102"])
def test_a_set_that_lies_right_in_the_given_folder_is_not_fetched_again(run, published, tmp_path, name):
    made, server = published(name)
    shutil.copytree(made.tree, tmp_path / "own")
    assert run("data", "get", f"{name}@{tmp_path / 'own'}")[0] == 0
    assert server.requests == []
    assert not (tmp_path / "own" / name).exists()


def test_a_set_that_is_not_whole_is_not_taken_for_it(run, published, monkeypatch):
    made, _ = published("cub200")
    monkeypatch.setitem(DATASETS, "cub200", replace(made.info, num_images={"train": 13, "test": 6}))
    code, _, err = run("data", "get", "cub200")
    assert code == 2
    assert "is not whole (12 train images, 13 as published): remove it and get it again" in err


def test_looking_at_a_set_by_its_name_fetches_it_and_says_so(run, published):
    _, server = published("pets")
    code, out, err = run("data", "show", "pets")
    assert code == 0
    assert f"Oxford-IIIT Pet is not in {find_named('pets').folder} yet: fetching it" in " ".join(err.split())
    assert "pets, protocol official: 3 classes; images: 12 train, 6 test" in out
    assert len(server.requests) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DATASETS))
def test_its_name_is_all_that_one_types(run, published, tmp_path, monkeypatch, name):
    made, server = published(name)
    if name in BY_HAND:
        shutil.copytree(made.archives, find_named(name).folder)
    protocol = made.info.protocols[-1] if name.startswith("inat") else made.info.protocols[0]
    config = tiny_config(epochs=2, batch_size=6 if made.info.num_classes < 10 else 204)
    (tmp_path / "tiny.yaml").write_text(dump_config(config), encoding="utf-8")
    options = () if protocol is made.info.protocols[0] else ("--set", f"data.protocol={protocol.name}")
    code, out, err = run("fit", name, "--recipe", tmp_path / "tiny.yaml", *options)
    assert code == 0, err
    folder = RunFolder(tmp_path / "work" / "runs" / f"tiny-{name}-1")
    rows = [json.loads(line) for line in folder.metrics_jsonl.read_text().splitlines()]
    assert rows[-1]["step"] >= 2
    saved = json.loads(folder.data_json.read_text())
    assert (saved["data"], saved["name"], saved["protocol"]) == (f"{name}@", name, protocol.name)
    assert saved["setting"] in out
    server.requests.clear()
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()  # what lies here now is not what the run was trained on
    code, out, err = run("evaluate", folder.path, "--split", "test")
    assert code == 0, err
    assert f"test split, {made.info.count(protocol, 'test')} images of {made.info.num_classes} classes" in out
    assert saved["setting"] in out
    assert json.loads((folder.path / "evaluation" / "test" / "report.json").read_text())["protocol"] == protocol.name
    assert ("on the subject" in out) == bool(made.info.subject)
    assert f"{name}: {made.info.caveat}" in out or not made.info.caveat
    assert server.requests == []
