from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from finevote.backbones.rollout import attention_rollout
from finevote.errors import RunError
from finevote.evaluation.curves import delete_and_insert
from finevote.evaluation.faithfulness import FaithfulnessCurves, follow_orders, load_curves, save_curves
from finevote.evaluation.faithfulness_figures import area_under, describe, measure_faithfulness
from finevote.evaluation.patch_orders import order_by_votes, order_patches, random_orders
from finevote.types import Batch, Predictions, Record
from tests.models import tiny_model

ORDERS = ("votes", "random", "rollout")
RECORDS = [Record(image_id=f"{number}.jpg", label=0) for number in range(5)]
IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def batches(size=2):
    for rows in torch.arange(5).split(size):
        yield Batch(IMAGES[rows], torch.zeros(len(rows), dtype=torch.int64), rows)


def follow(model, **options):
    return follow_orders(model, batches(), records=RECORDS, device="cpu", **options)


class TestFollowing:
    def test_each_order_has_the_curves_of_its_own_patches(self):
        model = tiny_model()
        found = follow(model, num_steps=4, num_draws=2)
        assert found.orders == ORDERS
        np.testing.assert_allclose(found.shares, [0, 0.25, 0.5, 0.75, 1])
        with torch.inference_mode():
            drawn = random_orders(found.image_ids, 16, num_draws=2)
            rolled = order_patches(attention_rollout(model.backbone, IMAGES))
            orders = [order_by_votes(model(IMAGES).votes), *drawn, rolled]
            grid = model.backbone.grid
            expected = delete_and_insert(
                IMAGES, orders, grid=grid, score=lambda views: model(views).logits.softmax(-1), num_steps=4
            )
        for name in ("deletion", "insertion"):
            votes, first, second, rollout = getattr(expected, name).unbind(1)
            whole = torch.stack([votes, (first + second) / 2, rollout], dim=1)
            np.testing.assert_allclose(getattr(found, name), whole, atol=1e-5)

    @pytest.mark.parametrize("changes", [{"model__voting__enabled": False}, {"model__voting__refine": False}])
    def test_without_final_votes_random_and_rollout_are_left(self, changes):
        assert follow(tiny_model(**changes), num_steps=2).orders == ("random", "rollout")

    @pytest.mark.parametrize(
        "changes",
        [
            {"model__backbone": "dinov2_vits14_reg4"},
            {"model__backbone": "siglip2_vitb16_224"},
            {"data__image_size": [16, 40], "data__resize": [16, 40], "model__voting__num_votes_per_head": 3},
            {"model__voting__keep_rate": 0.5, "model__voting__keep_layers": [1]},
        ],
        ids=["registers", "without CLS", "rectangle", "keep rate"],
    )
    def test_any_kind_of_model_can_be_followed(self, changes):
        model = tiny_model(**changes)
        rows, columns = model.backbone.image_size
        images = torch.randn(2, 3, rows, columns)
        loader = [Batch(images, torch.tensor([0, 0]), torch.tensor([0, 1]))]
        found = follow_orders(model, loader, records=RECORDS, device="cpu", num_steps=3)
        assert found.deletion.shape == (2, 3, 4)
        assert np.isfinite(found.insertion).all()

    def test_the_model_is_put_back_as_it_was_and_runs_in_evaluation_mode(self):
        model = tiny_model(model__dropout=0.5, model__drop_path=0.5)
        expected = follow(model, num_steps=2)
        model.train()
        assert np.array_equal(follow(model, num_steps=2).deletion, expected.deletion)
        assert all(module.training for module in model.modules())


def curves(num_images=40, *, orders=ORDERS, seed=0):
    generator = np.random.default_rng(seed)
    shape = (num_images, len(orders), 5)
    return FaithfulnessCurves(
        image_ids=tuple(f"{number}.jpg" for number in range(num_images)),
        orders=tuple(orders),
        shares=np.array([0, 0.25, 0.5, 0.75, 1]),
        deletion=np.sort(generator.random(shape), axis=-1)[..., ::-1].astype(np.float32),
        insertion=np.sort(generator.random(shape), axis=-1).astype(np.float32),
        weights_sha256="abc",
        keep_rate=0.5,
    )


def predictions_of(found, **changes):
    """Return predictions of these images among others, in another order."""
    ids = (*found.image_ids, "other.jpg")[::-1]
    return Predictions(ids, np.zeros(len(ids), np.int64), np.zeros((len(ids), 2), np.float32), **changes)


def shifted(found, order, by):
    """Return the curves with one order's moved by a constant and a little noise, an image's both ways."""
    place = found.orders.index(order)
    noise = np.random.default_rng(1).normal(0, 0.01, (len(found.image_ids), 1))
    deletion, insertion = found.deletion.copy() / 2 + 0.25, found.insertion.copy() / 2 + 0.25
    for name in ("random", "rollout"):
        deletion[:, found.orders.index(name)] = insertion[:, found.orders.index(name)] = deletion[:, place]
    deletion[:, place] += by + noise
    insertion[:, place] = insertion[:, found.orders.index("random")] - by + noise
    return replace(found, deletion=deletion, insertion=insertion)


class TestFigures:
    def test_areas_are_by_the_trapezoid_rule(self):
        assert area_under(np.array([[1.0, 0.5, 0.0]]), np.array([0, 0.5, 1])) == pytest.approx(0.5)
        assert area_under(np.array([1.0, 0.5, 0.0]), np.array([0, 0.25, 1])) == pytest.approx(0.375)
        found = curves()
        expected = np.trapezoid(found.deletion[7, 1].astype(np.float64), found.shares)
        assert area_under(found.deletion, found.shares)[7, 1] == pytest.approx(expected)

    def test_differences_are_paired_and_their_intervals_those_of_their_mean(self):
        found = curves(400)
        section = measure_faithfulness(found, predictions_of(found))
        areas = area_under(found.insertion, found.shares)
        row = next(row for row in section.differences if (row.kind, row.versus) == ("insertion", "rollout"))
        paired = areas[:, 0] - areas[:, 2]
        low, high = stats.t.interval(0.95, 399, loc=paired.mean(), scale=stats.sem(paired))
        assert row.difference == pytest.approx((paired.mean(), low, high), abs=1e-4)
        curve = next(curve for curve in section.curves if (curve.kind, curve.order) == ("insertion", "rollout"))
        assert curve.area.value == pytest.approx(areas[:, 2].mean())
        assert curve.scores == pytest.approx(found.insertion[:, 2].mean(0))
        assert all(low <= mean <= high for low, mean, high in zip(curve.low, curve.scores, curve.high, strict=True))

    @pytest.mark.parametrize(("by", "shown", "words"), [(-0.1, "better", "faster"), (0.1, "worse", "more slowly")])
    def test_what_an_interval_without_0_shows_is_told(self, by, shown, words):
        found = shifted(curves(), "votes", by)
        section = measure_faithfulness(found, predictions_of(found))
        assert [row.shown for row in section.differences] == [shown] * 4
        assert all(words in describe(row) for row in section.differences)
        assert all(describe(row) in section.notes() for row in section.differences)

    def test_an_interval_with_0_shows_no_difference(self):
        found = shifted(curves(), "votes", 0.0)
        section = measure_faithfulness(found, predictions_of(found))
        assert {row.shown for row in section.differences} == {"no difference shown"}
        assert section.headline() == "voted patches and random ones: no difference shown"
        assert "no difference is shown between changing patches by votes and at random" in section.notes()[1]

    def test_without_votes_rollout_stands_beside_random(self):
        found = curves(orders=("random", "rollout"))
        section = measure_faithfulness(found, predictions_of(found))
        pairs = {(row.order, row.versus) for row in section.differences}
        assert pairs == {("rollout", "random")}
        assert section.headline().startswith("patches named by rollout")

    def test_few_images_or_subjects_show_nothing(self):
        found = shifted(curves(9), "votes", -0.1)
        section = measure_faithfulness(found, predictions_of(found))
        assert {row.shown for row in section.differences} == {"no difference shown"}
        assert section.notes()[1:] == ["fewer than 10 images, or subjects, cannot show a difference between orders"]
        many = shifted(curves(40), "votes", -0.1)
        groups = np.array([f"bird {number % 4}" for number in range(41)])
        section = measure_faithfulness(many, predictions_of(many, groups=groups))
        assert section.num_groups == 4
        assert {row.shown for row in section.differences} == {"no difference shown"}

    def test_photographs_of_one_subject_count_as_one(self):
        found = curves(40)
        alike = replace(
            found,
            image_ids=tuple(f"{number}.jpg" for number in range(160)),
            deletion=np.repeat(found.deletion, 4, axis=0),
            insertion=np.repeat(found.insertion, 4, axis=0),
        )
        groups = np.array([f"bird {number // 4}" for number in range(161)])[::-1]
        by_subject = measure_faithfulness(alike, predictions_of(alike, groups=groups))
        alone = measure_faithfulness(found, predictions_of(found))
        for row, other in zip(by_subject.differences, alone.differences, strict=True):
            assert row.difference == pytest.approx(other.difference, abs=1e-6)

    def test_images_that_were_not_predicted_are_refused(self):
        found = curves()
        others = predictions_of(replace(found, image_ids=found.image_ids[1:]))
        with pytest.raises(RunError, match=r"of 1 images that were not predicted, the first is 0\.jpg: measure"):
            measure_faithfulness(found, others)


class TestFile:
    def test_what_is_saved_is_loaded_again(self, tmp_path):
        save_curves(tmp_path / "f.npz", curves())
        got = load_curves(tmp_path / "f.npz")
        for name, value in vars(curves()).items():
            mine = getattr(got, name)
            np.testing.assert_array_equal(mine, value)
            assert type(mine) is type(value)

    def test_a_file_that_is_missing_or_cut_is_refused(self, tmp_path):
        path = tmp_path / "f.npz"
        with pytest.raises(RunError, match=r"cannot read the deletion and insertion curves .*f\.npz .*: do it again$"):
            load_curves(path, advice="do it again")
        save_curves(path, curves())
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(RunError, match="cannot read the deletion and insertion curves"):
            load_curves(path)

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"deletion": np.zeros((40, 3, 4), np.float32)}, r"deletion are no probabilities of shape \(40, 3, 5\)"),
            ({"insertion": np.full((40, 3, 5), 1.5, np.float32)}, "insertion are no probabilities"),
            ({"insertion": np.full((40, 3, 5), np.nan, np.float32)}, "insertion are no probabilities"),
            ({"shares": np.array([0, 0.5, 0.4, 0.7, 1])}, "shares that do not go up from 0 to 1"),
            ({"shares": np.array([0, 0.1, 0.4, 0.7, 0.9])}, "shares that do not go up from 0 to 1"),
            ({"orders": ("votes", "random", "depth")}, "its orders are votes, random, depth"),
            ({"image_ids": ("a.jpg",)}, r"no probabilities of shape \(1, 3, 5\)"),
        ],
    )
    def test_arrays_that_do_not_fit_are_told(self, tmp_path, changes, told):
        save_curves(tmp_path / "f.npz", replace(curves(), **changes))
        with pytest.raises(RunError, match=told):
            load_curves(tmp_path / "f.npz")

    def test_another_format_and_other_arrays_are_told(self, tmp_path):
        np.savez(tmp_path / "f.npz", a=np.zeros(3))
        with pytest.raises(RunError, match="no deletion, format_version, image_ids"):
            load_curves(tmp_path / "f.npz")
