from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from finevote.errors import RunError
from finevote.evaluation.intervals import wilson_interval
from finevote.evaluation.probes import ProbeAnswers, ProbeName, compare_probes, load_answers, save_answers
from finevote.evaluation.shares import share
from finevote.types import Predictions

NAMES = (ProbeName("kNN", "cls", "CLS", 20), ProbeName("logistic", "cls_patches", "CLS + patches", 1e-3))


def make(*, num=60, seed=0):
    """Return a model that is right nine times in ten, and probes that are right less often."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 3, num)

    def said(share):
        return np.where(generator.random(num) < share, labels, (labels + 1) % 3)

    ids = tuple(f"{number}.jpg" for number in range(num))
    predictions = Predictions(ids, labels, np.eye(3, dtype=np.float32)[said(0.9)])
    return predictions, ProbeAnswers("vit", 100, NAMES, ids, np.stack([said(0.5), said(0.8)]))


def test_each_probe_has_its_accuracy_interval_and_paired_test():
    predictions, answers = make()
    right = predictions.logits.argmax(1) == predictions.labels
    found = compare_probes(predictions, answers, was_chosen_here=False)
    for row, said in zip(found.rows, answers.classes, strict=True):
        probe_right = said == predictions.labels
        assert row.top_1 == probe_right.mean()
        assert (row.low, row.high) == wilson_interval(int(probe_right.sum()), 60)
        alone = int((probe_right & ~right).sum()), int((right & ~probe_right).sum())
        assert (row.only_probe, row.only_model) == alone
        assert row.p_value == pytest.approx(binomtest(alone[0], sum(alone)).pvalue)
    assert found.model == (right.mean(), *wilson_interval(int(right.sum()), 60))
    first, second = sorted(found.rows, key=lambda row: row.p_value)
    assert first.p_value_holm == pytest.approx(2 * first.p_value)
    assert second.p_value_holm == pytest.approx(max(second.p_value, first.p_value_holm))


def test_images_of_one_subject_count_as_one():
    predictions, answers = make()
    alike = Predictions(
        tuple(f"{number}.jpg" for number in range(240)),
        np.repeat(predictions.labels, 4),
        np.repeat(predictions.logits, 4, axis=0),
        groups=np.repeat([f"bird {number}" for number in range(60)], 4),
    )
    repeated = replace(answers, image_ids=alike.image_ids, classes=np.repeat(answers.classes, 4, axis=1))
    found = compare_probes(alike, repeated, was_chosen_here=False)
    for row, classes in zip(found.rows, repeated.classes, strict=True):
        is_right = classes == alike.labels
        assert (row.low, row.high) == share(is_right, groups=alike.groups)[1:3]
        low, high = wilson_interval(int(is_right.sum()), 240)
        assert row.high - row.low > 1.5 * (high - low)
    alone = compare_probes(predictions, answers, was_chosen_here=False)
    assert [row.p_value for row in found.rows] == pytest.approx([row.p_value for row in alone.rows])
    model_right = alike.logits.argmax(1) == alike.labels
    assert found.model == share(model_right, groups=alike.groups)[:3]


def test_answers_are_matched_by_image_not_by_place():
    predictions, answers = make()
    order = np.random.default_rng(1).permutation(60)
    shuffled = ProbeAnswers(
        "vit", 100, NAMES, tuple(answers.image_ids[row] for row in order), answers.classes[:, order]
    )
    expected = compare_probes(predictions, answers, was_chosen_here=False)
    assert compare_probes(predictions, shuffled, was_chosen_here=False) == expected


def test_answers_on_other_images_are_refused():
    predictions, answers = make()
    fewer = ProbeAnswers("vit", 100, NAMES, answers.image_ids[1:], answers.classes[:, 1:])
    with pytest.raises(RunError, match=r"no answer for 1 of 60 images, the first is 0\.jpg: measure the split again"):
        compare_probes(predictions, fewer, was_chosen_here=False)


@pytest.mark.parametrize("was_chosen_here", [True, False])
def test_that_the_choice_was_made_on_the_same_images_is_told(was_chosen_here):
    notes = compare_probes(*make(), was_chosen_here=was_chosen_here).notes()
    assert any("chosen on the same validation images" in note for note in notes) is was_chosen_here


def test_answers_come_back_from_their_file(tmp_path):
    _, answers = make()
    save_answers(tmp_path / "probes.npz", answers)
    loaded = load_answers(tmp_path / "probes.npz")
    assert np.array_equal(loaded.classes, answers.classes)
    assert (loaded.names, loaded.image_ids, loaded.backbone, loaded.num_train) == (
        answers.names,
        answers.image_ids,
        "vit",
        100,
    )


def test_a_broken_file_of_answers_is_told(tmp_path):
    (tmp_path / "probes.npz").write_bytes(b"PK broken")
    with pytest.raises(RunError, match=r"cannot read the probes' answers .*probes.npz"):
        load_answers(tmp_path / "probes.npz")
