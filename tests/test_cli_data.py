"""`finevote data`: what the commands print of published sets and of paths."""

import re
import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from finevote.data.catalogue import DATASETS
from finevote.evaluation import patch_codes
from tests.data.miniatures import make_miniature


@pytest.fixture
def run(run, monkeypatch):
    """Return a function that runs `finevote data ARGUMENTS` and gives (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "300")
    return partial(run, "data")


@pytest.fixture
def miniature(monkeypatch, tmp_path):
    """Write a miniature and keep it in the folder of all sets."""

    def make(name, *, is_here=True):
        made = make_miniature(name, tmp_path / name)
        monkeypatch.setitem(DATASETS, name, made.info)
        monkeypatch.setenv("FINEVOTE_DATA", str(tmp_path / "sets"))
        if is_here:
            (tmp_path / "sets").mkdir()
            made.tree.rename(tmp_path / "sets" / made.info.folder)
        return made

    return make


class TestList:
    def test_every_set_has_a_line_with_its_numbers(self, run):
        code, out, _ = run("list")
        assert code == 0
        lines = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()[1:-1]}
        assert set(lines) == set(DATASETS)
        assert lines["cub200"] == "200 5,994 - 5,794 box+parts research only"
        assert lines["inat2021"] == "10,000 2,686,843 100,000 - - research only"

    def test_it_fits_a_terminal_of_eighty_columns(self, run, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        assert "…" not in run("list")[1]

    def test_sets_that_are_here_are_marked(self, run, miniature):
        miniature("dogs")
        marked = [line for line in run("list")[1].splitlines()[:-1] if line.startswith("*")]
        assert [line.split()[1] for line in marked] == ["dogs"]


class TestInfo:
    def test_a_name_tells_what_is_published_and_fetches_nothing(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("FINEVOTE_DATA", str(tmp_path / "sets"))
        code, out, _ = run("info", "flowers102")
        assert code == 0
        assert (
            "official: trained on train, the epoch chosen on val, measured on test (1,020 train, 1,020 val, 6,149"
            in out
        )
        assert "trainval: trained on train and val together, measured on test (2,040 train, 6,149 test)" in out
        assert "not stated: do not redistribute" in out
        assert "7309 and 8067 of test are the same as 7307 of train" in out
        assert "102flowers.tgz: 344,862,509 bytes, sha256 2d01ecc8" in out
        assert f"not yet; it belongs into {tmp_path / 'sets' / 'flowers102'}" in out
        assert not (tmp_path / "sets").exists()

    def test_the_command_that_gets_it_names_the_same_folder(self, run, tmp_path):
        for name in ("cub200", "cars"):
            assert f"finevote data get {name}@{tmp_path}\n" in re.sub(
                " +\n", "\n", run("info", f"{name}@{tmp_path}")[1]
            )
            assert f"finevote data get {name}\n" in re.sub(" +\n", "\n", run("info", name)[1])

    def test_files_to_be_brought_by_hand_are_named_with_the_place_for_them(self, run, tmp_path):
        _, out, _ = run("info", f"cars@{tmp_path}")
        assert (
            f"put cars_train.tgz, cars_test.tgz, car_devkit.tgz, cars_test_annos_withlabels.mat into {tmp_path}" in out
        )
        assert "cars_train.tgz: size not known, md5 065e5b463ae28d29e77c1b4b166cfe61 " in out

    def test_a_set_that_is_here_is_shown_where(self, run, miniature, tmp_path):
        miniature("cub200")
        assert str(tmp_path / "sets" / "cub200" / "CUB_200_2011") in run("info", "cub200")[1]

    def test_a_path_is_told_as_it_is_seen(self, run, miniature):
        made = miniature("dogs", is_here=False)
        code, out, _ = run("info", made.tree)
        assert code == 0
        rows = [" ".join(line.split()) for line in out.splitlines()]
        assert "set Stanford Dogs, as `dogs`" in rows
        assert "protocol official" in rows
        assert "train 12 images, 4 a class" in rows
        assert "test 6 images, 2 a class" in rows
        assert "boxes dog" in rows

    def test_a_folder_is_told_as_it_is_seen(self, run, tmp_path):
        for name, count in (("ash", 3), ("beech", 1)):
            (tmp_path / "trees" / name).mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (16, 16)).save(tmp_path / "trees" / name / f"{number}.png")
        rows = [" ".join(line.split()) for line in run("info", tmp_path / "trees")[1].splitlines()]
        assert rows[:3] == ["classes 2", "train 4 images, 1 to 3 a class", "boxes none"]
        assert any("there is no test split" in row for row in rows)

    def test_an_unknown_protocol_is_told(self, run):
        assert (
            "flowers102 has no protocol 'all'; allowed: official, trainval"
            in run("info", "flowers102", "--protocol", "all")[2]
        )


class TestShow:
    def test_a_published_set_is_drawn_with_its_boxes_under_a_protocol(self, run, miniature, tmp_path):
        miniature("aircraft")
        code, out, _ = run("show", "aircraft", "--protocol", "trainval", "--out", tmp_path / "sheet.png")
        assert code == 0
        assert "aircraft, protocol trainval: 4 classes; images: 16 train, 4 test\n" in out
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.width > 500


class TestGet:
    def test_an_unknown_name_is_told_with_the_nearest(self, run):
        assert "no published data set is called 'cub_200'; did you mean 'cub200'?" in run("get", "cub_200")[2]

    def test_one_folder_is_enough(self, run, tmp_path):
        code, _, err = run("get", f"cub200@{tmp_path}", "--root", tmp_path)
        assert code == 2
        assert "both name a folder: leave out one" in err


class TestAudit:
    @pytest.fixture
    def birds(self, tmp_path, monkeypatch):
        """Write ten images a split, and in test a copy of one of train under another class."""
        monkeypatch.setattr(patch_codes, "NUM_CODES", 8)
        generator = np.random.default_rng(0)
        for split in ("train", "val", "test"):
            for name in "ab":
                folder = tmp_path / "birds" / split / name
                folder.mkdir(parents=True)
                for number in range(5):
                    pixels = generator.integers(0, 256, (70, 70, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{number}.png")
        shutil.copy(tmp_path / "birds/train/a/1.png", tmp_path / "birds/test/b/again.png")
        return tmp_path / "birds"

    def test_findings_are_printed_with_the_files_and_that_test_was_opened(self, run, birds, tmp_path):
        code, out, _ = run("audit", birds, "--out", tmp_path / "audit")
        assert code == 0
        assert "the same file, byte for byte" in out
        assert "in more than one split" in out
        assert "with more than one label" in out
        assert "WARNING: 1 of 11 test images have a copy in train" in out
        assert "every split was opened, the test split too; nothing was measured on it" in out
        assert [line for line in out.splitlines() if line.startswith(str(tmp_path / "audit"))] == [
            str(tmp_path / "audit" / name) for name in ("audit.json", "audit.png")
        ]

    def test_without_out_the_folder_is_named_by_the_data(self, run, birds, tmp_path, monkeypatch):
        monkeypatch.chdir(birds.parent)
        assert run("audit", birds.name)[0] == 0
        assert sorted(path.name for path in (tmp_path / "audit-birds").iterdir()) == ["audit.json", "audit.png"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("nothing",), "nothing is not there"),
            (("synthetic", "--weights", "a.pth"), "--weights a.pth needs the --backbone that they are of"),
            (("synthetic", "--protocol", "official"), "leave the protocol 'official' out"),
        ],
    )
    def test_mistakes_are_told_in_one_line(self, run, arguments, message):
        code, out, err = run("audit", *arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert len(err.splitlines()) == 1
