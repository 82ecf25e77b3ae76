"""`Predictor.explain`: what an explanation says is what the model and its calibration say, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from finevote.build import build_model, build_preprocessing
from finevote.bundle.record import record_gallery
from finevote.bundle.write import save_bundle
from finevote.collecting import collect_gallery
from finevote.data.images import read_image
from finevote.data.transforms import eval_transform, read_resized
from finevote.errors import ArgumentError, BundleError, DataError
from finevote.evaluation.answers import AnswerRule
from finevote.evaluation.calibrator import SetRule, calibrate
from finevote.predictor import Predictor
from finevote.torch_engine import TorchEngine
from finevote.types import DataSource, Predictions, Record
from tests.models import FAMILIES, tiny_config
from tests.test_predictor import paint
from tests.tiny import CLASSES, make_config, make_model, write_bundle


def write_calibrated(folder, *, keep_rate=1.0, num_images=60):
    model, preprocessing = make_model(make_config())
    rng = np.random.default_rng(0)
    logits, embeddings = rng.normal(size=(num_images, 3)), rng.normal(size=(num_images, model.backbone.dim))
    labels = np.where(rng.random(num_images) < 0.7, logits.argmax(axis=1), rng.integers(0, 3, num_images))
    predictions = Predictions(
        tuple(map(str, range(num_images))), labels, logits.astype(np.float32), embeddings=embeddings.astype(np.float32)
    )
    means = rng.normal(size=(3, model.backbone.dim))
    return save_bundle(
        folder,
        model,
        config=make_config(),
        class_names=CLASSES,
        preprocessing=preprocessing,
        details={},
        calibration=calibrate(predictions, keep_rate=keep_rate, class_means=means),
    )


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return Predictor.load(write_calibrated(tmp_path_factory.mktemp("run") / "bundle"))


@pytest.fixture(scope="module")
def uncalibrated(tmp_path_factory):
    return Predictor.load(write_bundle(tmp_path_factory.mktemp("run") / "bundle"))


@pytest.fixture
def photo(tmp_path):
    return paint(tmp_path / "photo.png")


def test_the_maps_are_those_of_the_forward_pass_on_this_photograph(predictor, photo):
    resized = read_resized(lambda: read_image(photo), predictor.preprocessing)
    with torch.inference_mode():
        output = predictor.model(eval_transform(predictor.preprocessing)(resized)[None], with_head_votes=True)
    why = predictor.explain(photo)
    assert np.array_equal(why.votes.final.ravel(), output.votes.per_patch()[0].numpy())
    assert np.array_equal(why.votes.ballots.reshape(why.votes.num_layers, -1), output.votes.ballots[0].numpy())
    assert np.array_equal(why.votes.selected, output.votes.selected[0].numpy())
    assert np.array_equal(why.votes.head_votes.ravel(), output.votes.head_votes[0].numpy().ravel())


def test_classes_set_and_verdict_are_those_that_predict_gives(predictor, tmp_path):
    photos = [paint(tmp_path / f"{'x' * number}.png") for number in range(1, 9)]
    asked = {"coverage": 0.6, "false_alarms": 0.5, "unknown_by": "max_softmax"}
    explanations = predictor.explain_all(photos, top=2, **asked)
    ranked = predictor.predict_all(photos, top=2)
    sets = predictor.predict_all(photos, sets=SetRule(0.6))
    answers = predictor.predict_all(photos, rule=AnswerRule(0.5, "max_softmax"))
    for why, expected, its_set, answer in zip(explanations, ranked, sets, answers, strict=True):
        assert why.ranked.class_names == expected.class_names
        np.testing.assert_allclose(why.ranked.probabilities, expected.probabilities, atol=1e-6)
        assert why.prediction_set.class_names == its_set.class_names
        assert why.verdict.is_unknown == (answer.answer.kind == "unknown")
        assert why.verdict.is_unknown == (why.verdict.score > why.verdict.threshold)
        assert why.is_calibrated
        assert why.notes == ()


def test_promises_are_made_unasked_where_they_can_be_kept(predictor, photo):
    why = predictor.explain(photo)
    assert (why.prediction_set.coverage, why.verdict.false_alarms, why.verdict.method) == (0.9, 0.05, "distance")


def test_without_calibration_a_note_says_what_is_missing(uncalibrated, photo):
    why = uncalibrated.explain(photo)
    assert (why.prediction_set, why.verdict, why.is_calibrated) == (None, None, False)
    (note,) = why.notes
    assert "has no calibration for sets or unknowns" in note


@pytest.mark.parametrize("asked", [{"coverage": 0.9}, {"false_alarms": 0.1}])
def test_promises_that_are_asked_for_and_cannot_be_kept_are_refused(uncalibrated, photo, asked):
    with pytest.raises(ArgumentError, match="has no calibration for sets or unknowns"):
        uncalibrated.explain(photo, **asked)


def test_at_another_keep_rate_nothing_is_promised(tmp_path, photo):
    predictor = Predictor.load(write_calibrated(tmp_path / "bundle"), keep_rate=0.5)
    why = predictor.explain(photo)
    assert (why.prediction_set, why.verdict, why.is_calibrated) == (None, None, False)
    assert "calibrated at keep rate 1" in why.notes[0]


def test_too_few_images_for_a_verdict_leave_the_set(tmp_path, photo):
    predictor = Predictor.load(write_calibrated(tmp_path / "bundle", num_images=12))
    why = predictor.explain(photo)
    assert why.prediction_set is not None
    assert why.verdict is None
    assert "false alarms of 0.05 take 19 validation images" in why.notes[0]


@pytest.mark.parametrize(
    ("asked", "expected"), [((), (0, 1)), (("green",), None), (("red", "green"), ("red", "green"))]
)
def test_a_contrast_is_of_the_classes_asked_for(predictor, photo, asked, expected):
    ranks = predictor.predict(photo, top=3).class_names
    contrast = predictor.explain(photo, contrast=asked, num_permutations=4).contrast
    if asked == ():
        expected = ranks[:2]
    elif expected is None:
        expected = ("green", next(name for name in ranks if name != "green"))
    assert (contrast.class_a, contrast.class_b) == expected


def test_a_contrast_starts_from_the_difference_of_the_logits(predictor, photo):
    contrast = predictor.explain(photo, contrast=("red", "blue"), num_permutations=4).contrast
    resized = read_resized(lambda: read_image(photo), predictor.preprocessing)
    with torch.inference_mode():
        logits = predictor.model(eval_transform(predictor.preprocessing)(resized)[None]).logits[0]
    assert contrast.difference == pytest.approx(float(logits[CLASSES.index("red")] - logits[0]), abs=1e-5)
    assert contrast.contributions.sum() == pytest.approx(contrast.difference - contrast.difference_without, abs=1e-5)


def test_no_contrast_is_made_unasked(predictor, photo):
    assert predictor.explain(photo).contrast is None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"contrast": ("gren",)}, r"there is no class 'gren'; did you mean 'green'\?"),
        ({"contrast": ("red", "red")}, "two different classes"),
        ({"contrast": "red"}, r"must be \(\), \(A,\) or \(A, B\)"),
        ({"contrast": (), "num_permutations": 3}, "must be an even number from 4"),
        ({"top": 0}, "top=0 must be 1 or more"),
        ({"coverage": 2.0}, "coverage=2 must lie between 0 and 1"),
        ({"unknown_by": "smell", "false_alarms": 0.1}, "no score of the unknown is called 'smell'"),
    ],
)
def test_questions_that_make_no_sense_are_refused(predictor, photo, asked, message):
    with pytest.raises(ArgumentError, match=message):
        predictor.explain(photo, **asked)


def test_a_plain_backbone_cannot_be_explained(tmp_path, photo):
    config = tiny_config(model__voting__enabled=False)
    model = build_model(config, num_classes=3).eval()
    ways = build_preprocessing(config.data, model.backbone)
    save_bundle(tmp_path / "b", model, config=config, class_names=CLASSES, preprocessing=ways, details={})
    with pytest.raises(ArgumentError, match=r"has no votes to explain it by.*enabled=false.*fit one that votes"):
        Predictor.load(tmp_path / "b").explain(photo)


def test_what_is_explained_is_the_plain_view(tmp_path, photo):
    predictor = Predictor.load(write_bundle(tmp_path / "bundle"), views="flip")
    with pytest.raises(ArgumentError, match="what is explained is the plain view, not views='flip'"):
        predictor.explain(photo)


def test_records_tell_their_true_classes_and_batches_do_not_matter(predictor, tmp_path):
    records = tuple(Record(f"{n}", n % 3, paint(tmp_path / f"{'x' * n}.png")) for n in range(1, 12))
    source = DataSource("photos", CLASSES, {"val": records}, lambda record: read_image(record.path))
    steps = []
    explanations = predictor.explain_records(source, records, advance=steps.append)
    assert [why.image_id for why in explanations] == [record.image_id for record in records]
    assert [why.true_name for why in explanations] == [CLASSES[record.label] for record in records]
    assert sum(steps) == len(records)
    alone = predictor.explain(records[9].path)
    assert alone.true_name is None
    np.testing.assert_allclose(alone.ranked.probabilities, explanations[9].ranked.probabilities, atol=1e-6)


@pytest.fixture
def with_gallery(tmp_path):
    """A bundle whose gallery are nine photographs, three of each class."""
    folder = write_bundle(tmp_path / "bundle")
    records = tuple(Record(f"{n}.png", n % 3, paint(tmp_path / "train" / f"{'g' * n}.png")) for n in range(1, 10))
    source = DataSource("photos", CLASSES, {"train": records}, lambda record: read_image(record.path))
    predictor = Predictor.load(folder)
    ways = predictor.preprocessing
    record_gallery(folder, collect_gallery(predictor.model, source, preprocessing=ways, metric="euclidean"))
    return folder, records


def test_evidence_is_the_nearest_of_the_likeliest_class_and_of_the_runner_up(with_gallery, photo):
    folder, records = with_gallery
    predictor = Predictor.load(folder)
    why = predictor.explain(photo, num_neighbours=2)
    assert [group.class_name for group in why.evidence] == list(why.ranked.class_names[:2])

    def embedding(path):
        resized = read_resized(lambda: read_image(path), predictor.preprocessing)
        with torch.inference_mode():
            return predictor.model(eval_transform(predictor.preprocessing)(resized)[None]).embedding[0].double()

    for group in why.evidence:
        label = CLASSES.index(group.class_name)
        away = {r.image_id: float((embedding(r.path) - embedding(photo)).norm()) for r in records if r.label == label}
        expected = sorted(away, key=away.__getitem__)[:2]
        assert [near.image_id for near in group.neighbours] == expected
        assert [near.distance for near in group.neighbours] == pytest.approx([away[n] for n in expected], rel=0.02)
        assert all(near.class_name == group.class_name for near in group.neighbours)
        assert [near.picture.size for near in group.neighbours] == [(60, 40)] * 2


def test_a_training_photograph_is_no_evidence_for_itself(with_gallery):
    folder, records = with_gallery
    why = Predictor.load(folder).explain(records[4].path)
    assert records[4].image_id not in {near.image_id for group in why.evidence for near in group.neighbours}


def test_photographs_that_are_gone_are_named_alone(with_gallery, photo):
    folder, records = with_gallery
    for record in records:
        record.path.unlink()
    evidence = Predictor.load(folder).explain(photo).evidence
    assert [len(group.neighbours) for group in evidence] == [3, 3]
    assert all(near.picture is None for group in evidence for near in group.neighbours)


def test_a_gallery_of_another_keep_rate_shows_nothing_and_a_note_says_so(with_gallery, photo):
    folder, _ = with_gallery
    why = Predictor.load(folder, keep_rate=0.5).explain(photo)
    assert why.evidence == ()
    assert any("the gallery is of keep rate 1, so no training photographs are shown" in note for note in why.notes)


def test_without_a_gallery_or_a_wish_for_it_there_is_no_evidence(uncalibrated, with_gallery, photo):
    assert uncalibrated.explain(photo).evidence == ()
    assert Predictor.load(with_gallery[0]).explain(photo, num_neighbours=0).evidence == ()


def test_a_damaged_gallery_is_refused(with_gallery, photo):
    folder, _ = with_gallery
    predictor = Predictor.load(folder)
    (folder / "gallery.safetensors").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"gallery\.safetensors has 7 bytes"):
        predictor.explain(photo)


def test_photographs_decoded_fast_are_explained_as_they_are_predicted(tmp_path):
    predictor = Predictor.load(write_bundle(tmp_path / "bundle"))
    fast = replace(predictor.bundle, preprocessing=replace(predictor.preprocessing, decoding="fast"))
    predictor = Predictor(TorchEngine(fast))
    large = paint(tmp_path / "large.jpg", size=(1600, 1200))
    why, ranked = predictor.explain(large), predictor.predict(large)
    assert why.ranked.class_names == ranked.class_names
    np.testing.assert_allclose(why.ranked.probabilities, ranked.probabilities, atol=1e-6)
    assert why.photograph.size == (1024, 768)


def test_photographs_are_shown_in_their_own_proportions_and_not_too_large(predictor, tmp_path):
    why = predictor.explain(paint(tmp_path / "large.png", size=(2100, 700)))
    assert why.photograph.size == (1024, 341)
    assert predictor.explain(paint(tmp_path / "small.png", size=(30, 90))).photograph.size == (30, 90)


def test_pictures_and_arrays_can_be_explained_and_what_cannot_be_read_is_named(predictor, photo, tmp_path):
    with Image.open(photo) as opened:
        picture = opened.copy()
    finals = [why.votes.final.tolist() for why in predictor.explain_all([photo, picture, np.asarray(picture)])]
    assert finals[0] == finals[1] == finals[2]
    with pytest.raises(DataError, match=r"cannot read the image .*gone\.jpg"):
        predictor.explain(tmp_path / "gone.jpg")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_explained_on_a_rectangle(family, tmp_path, photo):
    config = tiny_config(**FAMILIES[family], data__image_size=[32, 48], data__resize=[40, 52])
    model = build_model(config, num_classes=3).eval()
    ways = build_preprocessing(config.data, model.backbone)
    save_bundle(tmp_path / "b", model, config=config, class_names=CLASSES, preprocessing=ways, details={})
    why = Predictor.load(tmp_path / "b").explain(photo, contrast=(), num_permutations=4)
    assert why.votes.grid == (4, 6)
    assert why.votes.final.sum() == 12
    assert (why.view.top, why.view.left) == pytest.approx((4 / 40, 2 / 52))
    assert why.contrast.contributions.shape == (4, 6)
