import json

import numpy as np
import pytest

from finevote.errors import ArgumentError, StorageError
from finevote.explain.run import default_out, explain_files, file_stem
from finevote.predictor import Predictor
from tests.test_predictor import paint
from tests.tiny import write_bundle


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor.load(write_bundle(tmp_path_factory.mktemp("run") / "bundle"))


def explained(predictor, paths, out, **options):
    return explain_files(predictor, paths, out=out, unreadable={}, **options)


def test_a_figure_and_its_numbers_lie_side_by_side(predictor, tmp_path):
    photo = paint(tmp_path / "photo.png")
    (one,) = explained(predictor, [photo], tmp_path / "out", contrast=(), num_permutations=4)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        one.figure.with_suffix(".json").name,
        one.figure.name,
    ]
    assert one.figure.read_bytes().startswith(b"\x89PNG")
    record = json.loads(one.figure.with_suffix(".json").read_text())
    why = predictor.explain(photo, contrast=(), num_permutations=4)
    assert record["image"] == str(photo) == one.image_id
    assert record["figure"] == one.figure.name
    assert [item["class"] for item in record["top"]] == list(why.ranked.class_names)
    assert record["votes"]["final"] == why.votes.final.tolist()
    assert record["votes"]["ballots"] == why.votes.ballots.tolist()
    assert [len(part) for part in record["votes"]["selected"]] == list(why.votes.budget) == record["votes"]["budget"]
    assert [patch for part in record["votes"]["selected"] for patch in part] == why.votes.selected.tolist()
    np.testing.assert_allclose(record["contrast"]["contributions"], why.contrast.contributions)
    assert record["set"] is None
    assert record["unknown"] is None
    assert "has no calibration" in record["notes"][0]


def test_photographs_of_one_name_do_not_collide(predictor, tmp_path):
    photos = [paint(tmp_path / folder / "photo.png") for folder in ("a", "b")]
    found = explained(predictor, photos, tmp_path / "out")
    assert len({one.figure for one in found}) == 2
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_the_name_of_files_depends_on_the_photograph_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert file_stem("a/photo.png") == file_stem(str(tmp_path / "a" / "photo.png")) != file_stem("b/photo.png")
    assert file_stem("photo.png") != file_stem("photo.jpg")
    for name in ("x" * 300, "\N{CJK UNIFIED IDEOGRAPH-9E1F}" * 200, "a b/../c d?*.png", "bad\udcff.png"):
        stem = file_stem(name)
        assert len(f".{stem}.json".encode()) + 40 < 255
        assert not set(stem) & set("/?* \udcff")


def test_explained_again_the_files_are_replaced(predictor, tmp_path):
    photo = paint(tmp_path / "photo.png")
    first, second = (explained(predictor, [photo], tmp_path / "out", top=top)[0] for top in (1, 2))
    assert first.figure == second.figure
    assert len(json.loads(second.figure.with_suffix(".json").read_text())["top"]) == 2


def test_what_is_done_when_a_later_photograph_fails_stays(predictor, tmp_path):
    photos = [paint(tmp_path / f"{number}.png") for number in range(3)]
    steps = []

    def stop(count):
        steps.append(count)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explained(predictor, photos, tmp_path / "out", advance=stop)
    assert len(list((tmp_path / "out").glob("*.json"))) == 3
    assert not list((tmp_path / "out").glob(".*"))


def test_unreadable_photographs_are_told_and_passed_over(predictor, tmp_path):
    good, bad = paint(tmp_path / "good.png"), tmp_path / "bad.jpg"
    bad.write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    unreadable, steps = {}, []
    paths = [bad, good, tmp_path / "gone.jpg", tmp_path / "empty"]
    found = explain_files(predictor, paths, out=tmp_path / "out", unreadable=unreadable, advance=steps.append)
    assert [one.image_id for one in found] == [str(good)]
    assert unreadable == {
        str(bad): "not an image, or of an unknown format",
        str(tmp_path / "gone.jpg"): "No such file or directory",
        str(tmp_path / "empty"): "no images in this folder",
    }
    assert sum(steps) == 4


def test_a_file_is_no_place_to_write_to(predictor, tmp_path):
    photo = paint(tmp_path / "photo.png")
    with pytest.raises(ArgumentError, match=r"photo.png is a file: give a folder"):
        explained(predictor, [photo], photo)


def test_a_place_below_a_file_cannot_be_written(predictor, tmp_path):
    photo = paint(tmp_path / "photo.png")
    with pytest.raises(StorageError, match=r"photo\.png"):
        explained(predictor, [photo], photo / "out")


def test_a_layer_that_is_not_there_is_refused_before_anything_is_read(predictor, tmp_path):
    with pytest.raises(ArgumentError, match=r"--layer 4: the classifier has 3 layers that vote: give 1 to 3"):
        explained(predictor, [tmp_path / "gone.png"], tmp_path / "out", layer=4)


def test_explanations_of_a_run_lie_in_it_and_of_a_bundle_here(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: x")
    assert default_out(tmp_path / "run") == tmp_path / "run" / "explanations"
    assert str(default_out(tmp_path / "bundle")) == "explanations"
