import errno
import os

import numpy as np
import pytest
from PIL import Image

from finevote.build import build_eval_loader
from finevote.data.images import read_image
from finevote.data.listing import list_images
from finevote.errors import ArgumentError, BundleError, DataError
from finevote.evaluation.metrics import softmax
from finevote.evaluation.predict import predict
from finevote.predictor import Predictor
from finevote.types import DataSource, Record
from tests.tiny import CLASSES, write_bundle


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("run") / "bundle")


@pytest.fixture(scope="module")
def predictor(folder):
    return Predictor.load(folder)


@pytest.fixture
def photo(tmp_path):
    return paint(tmp_path / "photo.png")


def paint(path, *, size=(60, 40), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_classes_come_best_first_with_their_probabilities(predictor, photo):
    ranked = predictor.predict(photo)
    assert ranked.image_id == str(photo)
    assert sorted(ranked.class_names) == sorted(CLASSES)
    assert list(ranked.probabilities) == sorted(ranked.probabilities, reverse=True)
    assert sum(ranked.probabilities) == pytest.approx(1)


def test_top_limits_the_classes(predictor, photo):
    assert len(predictor.predict(photo, top=2).class_names) == 2


def test_path_picture_and_array_of_one_photograph_get_the_same_answer(predictor, photo):
    with Image.open(photo) as opened:
        picture = opened.copy()
    answers = predictor.predict_all([photo, str(photo), picture, np.asarray(picture)])
    assert len({(answer.class_names, answer.probabilities) for answer in answers}) == 1
    assert [answer.image_id for answer in answers[2:]] == ["image 2", "image 3"]


def test_photographs_are_turned_upright(predictor, tmp_path):
    upright = paint(tmp_path / "upright.png", size=(40, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    with Image.open(upright) as image:
        image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
    with Image.open(tmp_path / "lying.png") as lying:
        answers = predictor.predict_all([upright, tmp_path / "lying.png", lying])
    assert len({answer.probabilities for answer in answers}) == 1


def test_an_answer_is_the_softmax_of_what_evaluation_gives_for_the_same_record(predictor, photo):
    records = (Record("photo", 0, photo),)
    loader = build_eval_loader(
        records,
        read=lambda record: read_image(record.path),
        preprocessing=predictor.preprocessing,
        batch_size=1,
        num_workers=0,
    )
    logits = predict(predictor.model, loader, records=records, device="cpu").logits
    ranked = predictor.predict(photo)
    assert ranked.probabilities == tuple(sorted(softmax(logits)[0], reverse=True))


def test_records_of_a_split_are_predicted_in_order(predictor, tmp_path):
    records = tuple(Record(f"{n}", n % 3, paint(tmp_path / f"{'x' * n}.png")) for n in range(1, 6))
    source = DataSource("photos", CLASSES, {"val": records}, lambda record: read_image(record.path))
    predictions = predictor.predict_records(source, "val", batch_size=2)
    assert predictions.image_ids == ("1", "2", "3", "4", "5")
    assert predictions.grid == (4, 4)


def test_unreadable_files_are_skipped_with_their_reasons(predictor, photo, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    paint(tmp_path / "small.png", size=(2, 2))
    answers, unreadable = predictor.predict_files(
        [photo, tmp_path / "broken.jpg", tmp_path / "small.png", tmp_path / "gone.jpg"]
    )
    assert [answer.image_id for answer in answers] == [str(photo)]
    assert unreadable == {
        tmp_path / "broken.jpg": "not an image, or of an unknown format",
        tmp_path / "small.png": "2x2 pixels: at least 8 a side are needed",
        tmp_path / "gone.jpg": "No such file or directory",
    }


def test_folders_are_searched_at_any_depth_for_visible_images(predictor, tmp_path):
    expected = [paint(tmp_path / "a" / "deep" / "1.jpg"), paint(tmp_path / "a" / "2.PNG", format="png")]
    paint(tmp_path / "a" / "._2.png")
    paint(tmp_path / "a" / ".thumbs" / "deep" / "1.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    assert list_images([tmp_path / "a", expected[0]]) == sorted(expected)
    answers, unreadable = predictor.predict_files([tmp_path])
    assert [answer.image_id for answer in answers] == [str(path) for path in sorted(expected)]
    assert not unreadable


def test_images_of_a_hidden_folder_count_when_it_is_given(tmp_path):
    hidden = paint(tmp_path / ".photos" / "1.png")
    assert list_images([tmp_path / ".photos"]) == [hidden]


def test_a_folder_without_images_is_reported(predictor, tmp_path):
    assert predictor.predict_files([tmp_path]) == ([], {tmp_path: "no images in this folder"})


def test_a_folder_that_cannot_be_looked_into_is_reported_and_the_rest_predicted(predictor, tmp_path, monkeypatch):
    photo, closed = paint(tmp_path / "a" / "1.png"), tmp_path / "a" / "closed"
    paint(closed / "2.png")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path) == str(closed):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    answers, unreadable = predictor.predict_files([tmp_path / "a"])
    assert [answer.image_id for answer in answers] == [str(photo)]
    assert unreadable == {closed: "cannot look into this folder: Permission denied"}


def test_progress_counts_every_file(predictor, photo, tmp_path):
    done = []
    predictor.predict_files([photo, tmp_path / "gone.jpg", tmp_path / "lost.jpg"], batch_size=2, advance=done.append)
    assert done == [2, 1]


def test_answers_do_not_depend_on_what_else_is_in_the_batch(predictor, photo, tmp_path):
    others = [paint(tmp_path / f"{'y' * n}.png") for n in range(1, 5)]
    alone = predictor.predict(photo)
    together = predictor.predict_all([*others, photo])[-1]
    assert together.class_names == alone.class_names
    np.testing.assert_allclose(together.probabilities, alone.probabilities, atol=1e-6)


def test_a_run_folder_serves_as_well_as_its_bundle(folder, photo):
    assert Predictor.load(folder.parent).predict(photo) == Predictor.load(str(folder)).predict(photo)


def test_a_run_without_a_bundle_says_how_to_finish_it(tmp_path):
    (tmp_path / "config.yaml").write_text("name: x")
    with pytest.raises(BundleError, match=r"has no bundle yet: finish it with `finevote fit --resume"):
        Predictor.load(tmp_path)


@pytest.mark.parametrize(("name", "problem"), [("", "holds neither a bundle nor a run"), ("gone", "is not there")])
def test_anything_else_is_refused(tmp_path, name, problem):
    with pytest.raises(BundleError, match=problem):
        Predictor.load(tmp_path / name)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 20, 20), np.uint8), np.zeros((20, 20, 3)), np.zeros((20, 20), np.uint8)]
)
def test_arrays_of_another_form_are_refused(predictor, array):
    with pytest.raises(ArgumentError, match=r"a uint8 array \(rows, columns, 3\), but got (uint8|float64) \("):
        predictor.predict(array)


def test_an_unreadable_photograph_is_named(predictor, tmp_path):
    with pytest.raises(DataError, match=r"cannot read the image .*gone\.jpg: No such file"):
        predictor.predict(tmp_path / "gone.jpg")


def test_top_must_be_positive(predictor, photo):
    with pytest.raises(ArgumentError, match="top=0 must be 1 or more"):
        predictor.predict(photo, top=0)


def test_a_device_that_is_not_there_is_refused(folder):
    with pytest.raises(ArgumentError, match=r"device='gpu' cannot be used .*give 'cpu' or 'auto'"):
        Predictor.load(folder, device="gpu")


def test_photographs_of_one_subject_get_one_answer_by_the_product(predictor, tmp_path):
    paths = [paint(tmp_path / f"{'z' * n}.png") for n in range(1, 5)]
    alone = [predictor.predict(path, top=3) for path in paths]
    together = predictor.predict_together(paths)
    product = dict.fromkeys(CLASSES, 1.0)
    for answer in alone:
        for name, probability in zip(answer.class_names, answer.probabilities, strict=True):
            product[name] *= probability ** (1 / len(paths))
    expected = {name: value / sum(product.values()) for name, value in product.items()}
    assert dict(zip(together.class_names, together.probabilities, strict=True)) == pytest.approx(expected, abs=1e-6)
    assert together.photographs == tuple(map(str, paths))
    assert together.image_id == "4 photographs: z.png, zz.png, zzz.png, ..."


def test_one_photograph_together_with_none_gets_its_own_answer(predictor, photo):
    together, alone = predictor.predict_together([photo]), predictor.predict(photo)
    assert (together.class_names, together.probabilities) == (alone.class_names, alone.probabilities)
    assert together.image_id == "1 photograph: photo.png"


def test_batches_do_not_matter_to_photographs_together(predictor, tmp_path):
    paths = [paint(tmp_path / f"{'z' * n}.png") for n in range(1, 6)]
    expected = predictor.predict_together(paths)
    found = predictor.predict_together(paths, batch_size=2)
    assert found.class_names == expected.class_names
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)


def test_files_together_leave_out_what_cannot_be_read(predictor, photo, tmp_path):
    (tmp_path / "folder").mkdir()
    inside, broken = paint(tmp_path / "folder" / "in.png"), tmp_path / "folder" / "broken.jpg"
    broken.write_bytes(b"not an image")
    answer, unreadable = predictor.predict_files_together([photo, tmp_path / "folder"])
    assert answer == predictor.predict_together([photo, inside])
    assert unreadable == {broken: "not an image, or of an unknown format"}
    assert predictor.predict_files_together([broken]) == (None, unreadable)


def test_no_photographs_together_are_refused(predictor):
    with pytest.raises(ArgumentError, match="there are no images: give one or more photographs of a subject"):
        predictor.predict_together([])
