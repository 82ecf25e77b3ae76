"""Test-time augmentation: views of images, averaged, beside the plain view that they never replace."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torchvision.transforms.v2 import functional as F

from finevote.build import build_eval_loader
from finevote.cli_options import Views
from finevote.data.images import read_image
from finevote.data.transforms import eval_transform, read_resized
from finevote.data.views import VIEWS, as_resized, view_cuts
from finevote.errors import ArgumentError, RunError
from finevote.evaluation.augmentation import measure_augmentation
from finevote.evaluation.calibrator import SetRule
from finevote.evaluation.metrics import softmax
from finevote.evaluation.paired import paired_test
from finevote.evaluation.predictions import load_predictions, save_predictions
from finevote.evaluation.rows import take_rows
from finevote.evaluation.shares import share
from finevote.measure.evaluate import evaluate
from finevote.predictor import Predictor
from finevote.types import PLAIN, Predictions, Preprocessing, Record
from tests.tiny import write_photographs, write_run

CORNERS = {"top left": (0, 0), "top right": (0, 4), "bottom left": (10, 0), "bottom right": (10, 4), "centre": (5, 2)}


@pytest.fixture
def preprocessing():
    return Preprocessing(image_size=(20, 24), resize=(30, 28), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    data = write_photographs(root / "data", num_test=2)
    return write_run(root / "run", data=data), data


@pytest.fixture
def finished(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "run")


def saved_predictions(run, split="val"):
    return load_predictions(run / "evaluation" / split / "predictions.npz")[0]


def naive_logits(predictor, path):
    """Return the logits (V, C) of the ten views of a file, each cut by hand and looked at alone."""
    preprocessing = predictor.preprocessing
    image = read_resized(lambda: read_image(path), preprocessing)
    (rows, columns), (height, width) = preprocessing.image_size, image.shape[1:]
    below, right = height - rows, width - columns
    found = []
    for top, left in ((round(below / 2), round(right / 2)), (0, 0), (0, right), (below, 0), (below, right)):
        cut = image[:, top : top + rows, left : left + columns].float() / 255
        tensor = F.normalize(cut, preprocessing.mean, preprocessing.std)[None]
        with torch.inference_mode():
            found.append([predictor.model(view).logits[0] for view in (tensor, tensor.flip(-1))])
    return torch.stack([view for mirrored in (0, 1) for view in [pair[mirrored] for pair in found]]).numpy()


def test_views_are_the_centre_the_corners_and_their_mirror_images(preprocessing):
    images = torch.randint(0, 256, (2, 3, 30, 28), dtype=torch.uint8)
    cuts = view_cuts(preprocessing, views="ten-crop")
    assert len(cuts) == 10
    for place, (top, left) in CORNERS.items():
        cut = images[..., top : top + 20, left : left + 24].float() / 255
        expected = F.normalize(cut, preprocessing.mean, preprocessing.std)
        torch.testing.assert_close(cuts[place](images), expected)
        assert torch.equal(cuts[f"{place}, mirrored"](images), cuts[place](images).flip(-1))
    assert torch.equal(cuts["centre, mirrored"](images), cuts["centre"](images.flip(-1)))


@pytest.mark.parametrize("kind", VIEWS)
def test_the_plain_view_comes_first_and_is_what_evaluation_sees(preprocessing, kind):
    image = torch.randint(0, 256, (3, 30, 28), dtype=torch.uint8)
    first = next(iter(view_cuts(preprocessing, views=kind).values()))
    assert torch.equal(first(image), eval_transform(preprocessing)(image))


@pytest.mark.parametrize("kind", ["five-crop", "ten-crop"])
def test_corners_that_are_the_centre_are_refused(preprocessing, kind):
    whole = replace(preprocessing, resize=(20, 24))
    assert len(view_cuts(whole, views="flip")) == 2
    with pytest.raises(
        ArgumentError, match=r"its corners are its centre: take the views 'flip', or train with a larger"
    ):
        view_cuts(whole, views=kind)


def test_unknown_views_are_refused(preprocessing):
    with pytest.raises(ArgumentError, match="there are no views 'flipp'; did you mean 'flip'"):
        view_cuts(preprocessing, views="flipp")


def test_the_command_offers_the_kinds_of_views():
    assert {PLAIN, *(views.value for views in Views)} == set(VIEWS)


def test_views_equal_a_loop_over_images_and_views(finished, made):
    evaluate(finished, views="ten-crop")
    found, predictor = saved_predictions(finished), Predictor.load(finished)
    for row, image_id in enumerate(found.image_ids):
        expected = naive_logits(predictor, made[1] / image_id)
        np.testing.assert_allclose(found.view_logits[row], expected, rtol=1e-4, atol=1e-5)


def test_headline_and_every_other_figure_stay_those_of_the_plain_view(finished):
    plain = evaluate(finished)
    arrays = saved_predictions(finished)
    augmented = evaluate(finished, views="ten-crop")
    again = saved_predictions(finished)
    assert np.array_equal(again.logits, arrays.logits)
    assert np.array_equal(again.final_votes, arrays.final_votes)
    assert np.array_equal(again.view_logits[:, 0], arrays.logits)
    values = augmented.to_dict()
    assert [row["views"] for row in values.pop("augmentation")["views"]] == ["flip", "five-crop", "ten-crop"]
    assert values == plain.to_dict()


def test_saved_views_give_the_same_rows_and_missing_ones_are_refused(finished):
    measured = evaluate(finished, views="flip").sections["augmentation"]
    assert [(row.views, row.num_passes) for row in measured.rows] == [("flip", 2)]
    assert evaluate(finished, saved=True).sections["augmentation"] == measured
    assert evaluate(finished, saved=True, views="flip").sections["augmentation"] == measured
    with pytest.raises(RunError, match=r"nothing is saved of the views 'ten-crop' .* --split val --views ten-crop"):
        evaluate(finished, saved=True, views="ten-crop")


def test_the_ledger_tells_the_views(finished):
    evaluate(finished, split="test", views="flip")
    (line,) = (finished / "test_ledger.jsonl").read_text().splitlines()
    assert json.loads(line)["views"] == "flip"


def test_unknown_views_cost_no_look_at_test(finished):
    with pytest.raises(ArgumentError, match="there are no views 'six-crop'"):
        evaluate(finished, split="test", views="six-crop")
    assert not (finished / "test_ledger.jsonl").exists()


@pytest.mark.parametrize("cache", ["none", "memory", "disk"])
@pytest.mark.parametrize("decoding", ["exact", "fast"])
def test_every_way_of_decoding_and_caching_gives_the_views(made, tmp_path, cache, decoding):
    predictor = Predictor.load(made[0])
    preprocessing = replace(predictor.preprocessing, decoding=decoding)
    records = (Record(path.name, 0, path) for path in sorted((made[1] / "val").rglob("*.png")))
    options = {"read": lambda record: read_image(record.path), "preprocessing": preprocessing, "batch_size": 4}
    loader = build_eval_loader(
        tuple(records), num_workers=0, cache=cache, cache_folder=tmp_path, transform=as_resized, **options
    )
    for _ in range(2):  # the second time from the cache
        batch = next(iter(loader))
        plain = view_cuts(preprocessing, views="flip")["centre"](batch.images)
        assert batch.images.dtype == torch.uint8
        assert plain.shape[-2:] == preprocessing.image_size


def test_answers_are_the_softmax_of_the_mean_logits(finished, made):
    path = made[1] / "val" / "red" / "0.png"
    expected = softmax(naive_logits(Predictor.load(finished), path).mean(axis=0)[None])[0]
    ranked = Predictor.load(finished, views="ten-crop").predict(path)
    assert ranked.probabilities == pytest.approx(sorted(expected, reverse=True), abs=1e-5)


def test_what_is_promised_of_the_plain_view_is_refused_for_others(finished, made):
    predictor = Predictor.load(finished, views="flip")
    with pytest.raises(ArgumentError, match=r"calibrated on the plain view, and does not hold for views='flip'"):
        predictor.predict(made[1] / "val" / "red" / "0.png", sets=SetRule(0.9))


def test_commands_take_views(finished, made, run):
    code, out, _ = run("evaluate", finished, "--views", "five-crop")
    assert code == 0
    assert re.search(r"^plain +1 +\d", out, re.MULTILINE)
    assert re.search(r"^five-crop +5 +\d", out, re.MULTILINE)
    code, out, _ = run("predict", finished, made[1] / "val" / "red" / "0.png", "--views", "flip", "--top", "1")
    assert code == 0
    assert "0.png" in out


def some_predictions(num_images=200, **options):
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=num_images)
    logits = (rng.normal(0, 1.5, (num_images, 2, 4)) + 2 * np.eye(4)[labels][:, None]).astype(np.float32)
    names = ("centre", "centre, mirrored")
    ids = tuple(map(str, range(num_images)))
    return Predictions(ids, labels, logits[:, 0], view_names=names, view_logits=logits, **options)


def test_a_row_holds_accuracy_gain_and_exact_test():
    found = some_predictions()
    (row,) = measure_augmentation(found).rows
    plain = found.logits.argmax(axis=1) == found.labels
    right = found.view_logits.mean(axis=1).argmax(axis=1) == found.labels
    assert row.accuracy.value == right.mean()
    assert row.gain.value == pytest.approx(right.mean() - plain.mean())
    assert row.gain.low < row.gain.value < row.gain.high
    assert (row.gained, row.lost) == ((right & ~plain).sum(), (plain & ~right).sum())
    assert row.p_value == pytest.approx(binomtest(row.gained, row.gained + row.lost).pvalue)


def test_images_of_one_subject_count_as_one():
    groups = np.repeat([f"group {number}" for number in range(20)], 10)
    found = some_predictions(groups=groups)
    (row,) = measure_augmentation(found).rows
    assert row.gain.num_units == 20
    right = [logits.argmax(axis=1) == found.labels for logits in (found.logits, found.view_logits.mean(axis=1))]
    assert row.p_value == paired_test(*right, groups=groups).p_value != paired_test(*right).p_value


def test_views_are_kept_in_the_file_and_with_their_rows(tmp_path):
    found = some_predictions(20)
    save_predictions(tmp_path / "a.npz", take_rows(found, np.array([3, 1])), list("abcd"))
    loaded, _ = load_predictions(tmp_path / "a.npz")
    assert loaded.view_names == found.view_names
    assert np.array_equal(loaded.view_logits, found.view_logits[[3, 1]])


def test_without_views_there_is_nothing_to_say():
    assert measure_augmentation(replace(some_predictions(), view_names=(), view_logits=None)) is None


def test_accuracy_by_views_draws_whole_groups_like_every_other_accuracy() -> None:
    labels = np.repeat(np.arange(2), 40)
    logits = np.eye(2, dtype=np.float32)[np.where(np.arange(80) % 20 < 5, 1 - labels, labels)]
    views = tuple(view.name for view in VIEWS["flip"])
    predictions = Predictions(
        image_ids=tuple(map(str, range(80))),
        labels=labels,
        logits=logits,
        groups=np.repeat(np.arange(16), 5).astype(np.str_),
        view_names=views,
        view_logits=np.repeat(logits[:, None], len(views), axis=1),
    )

    found = measure_augmentation(predictions)

    assert found is not None
    expected = share(logits.argmax(axis=1) == labels, groups=predictions.groups)[:3]
    assert tuple(found.plain) == expected
    assert tuple(found.rows[0].accuracy) == expected
    assert found.plain.high - found.plain.low > 0.3  # 16 groups tell less than 80 images
