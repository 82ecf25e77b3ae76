import json

import numpy as np
import pytest

from finevote.build import build_frozen_backbone
from finevote.errors import RunError
from finevote.evaluation.shares import share
from finevote.probe.features import KINDS, Features, describe_space
from finevote.probe.fitted import fit_probes, load_probes, save_probes
from finevote.probe.logistic import PENALTIES, fit_logistic
from finevote.probe.neighbours import NUM_NEIGHBOURS, classify_by_neighbours, unit_parts
from tests.models import tiny_config

NUM_CLASSES = 4


def make(*, num, seed):
    """Return features whose CLS half tells little and whose patch half tells more, and their classes."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(NUM_CLASSES, 6))
    labels = np.arange(num) % NUM_CLASSES
    parts = [centres[labels] + noise * generator.normal(size=(num, 6)) for noise in (3.0, 1.5)]
    return Features(*(part.astype(np.float32) for part in parts)), labels


@pytest.fixture(scope="module")
def space():
    return describe_space(tiny_config(), build_frozen_backbone(tiny_config()))


@pytest.fixture(scope="module")
def fitted(space):
    return fit_probes(*make(num=120, seed=0), *make(num=80, seed=1), space=space, num_classes=NUM_CLASSES)


def test_there_is_a_row_for_each_classifier_on_each_kind_of_features(fitted):
    assert [(name.classifier, name.kind) for name in fitted.names] == [
        ("kNN", "cls"),
        ("logistic", "cls"),
        ("kNN", "cls_patches"),
        ("logistic", "cls_patches"),
    ]


def test_the_number_of_neighbours_is_the_smallest_of_the_best_on_validation(fitted):
    (train, labels), (validation, expected) = make(num=120, seed=0), make(num=80, seed=1)
    for name, found in zip(fitted.names[::2], fitted.accuracies[::2], strict=True):
        right = round(80 * found.value)
        queries, bank = unit_parts(validation.parts(name.kind)), unit_parts(train.parts(name.kind))
        counts = {
            k: int((classify_by_neighbours(bank, labels, queries, num_neighbours=[k], num_classes=4) == expected).sum())
            for k in NUM_NEIGHBOURS
        }
        assert right == max(counts.values())
        assert name.chosen == min(k for k, count in counts.items() if count == right)


def test_the_penalty_is_the_strongest_of_the_best_on_validation(fitted):
    (train, labels), (validation, expected) = make(num=120, seed=0), make(num=80, seed=1)
    for name, accuracy in zip(fitted.names[1::2], fitted.accuracies[1::2], strict=True):
        right = round(80 * accuracy.value)
        found = fit_logistic(train.joined(name.kind), labels, num_classes=NUM_CLASSES)
        said = [one.logits(validation.joined(name.kind)).argmax(1) for one in found]
        counts = dict(zip(PENALTIES, [int((classes == expected).sum()) for classes in said], strict=True))
        assert right == max(counts.values())
        assert name.chosen == max(penalty for penalty, count in counts.items() if count == right)


def test_asked_again_they_name_as_many_validation_images_right(fitted):
    validation, labels = make(num=80, seed=1)
    assert (fitted.classify(validation) == labels).mean(axis=1).tolist() == [row.value for row in fitted.accuracies]


def test_files_give_the_same_answers(fitted, tmp_path):
    files = {"arrays": tmp_path / "probe.safetensors", "description": tmp_path / "probe.json"}
    save_probes(fitted, **files)
    loaded = load_probes(**files)
    images, _ = make(num=30, seed=2)
    assert np.array_equal(loaded.classify(images), fitted.classify(images))
    assert (loaded.names, loaded.accuracies, loaded.space) == (fitted.names, fitted.accuracies, fitted.space)
    assert set(loaded.linear) == set(KINDS)


def test_the_description_states_what_was_tried_and_chosen_with_intervals(fitted):
    told = json.loads(json.dumps(fitted.to_dict()))
    assert told["tried"] == {"kNN": [5, 10, 20, 50], "logistic": list(PENALTIES)}
    assert [row["chosen"] for row in told["rows"]] == [name.chosen for name in fitted.names]
    assert all(row["low"] <= row["top_1"] <= row["high"] for row in told["rows"])


def test_intervals_are_those_of_subjects_where_images_have_one(fitted, space):
    options = {"space": space, "num_classes": NUM_CLASSES}
    groups = np.repeat([f"bird {number}" for number in range(20)], 4)
    grouped = fit_probes(*make(num=120, seed=0), *make(num=80, seed=1), groups=groups, **options)
    validation, labels = make(num=80, seed=1)
    for row, said in zip(grouped.accuracies, fitted.classify(validation), strict=True):
        assert row == share(said == labels, groups=groups)[:3]
    assert grouped.accuracies != fitted.accuracies


@pytest.mark.parametrize("damaged", ["probe.safetensors", "probe.json"])
def test_a_damaged_file_is_told(fitted, tmp_path, damaged):
    files = {"arrays": tmp_path / "probe.safetensors", "description": tmp_path / "probe.json"}
    save_probes(fitted, **files)
    content = (tmp_path / damaged).read_bytes()
    (tmp_path / damaged).write_bytes(content[: len(content) // 2])
    with pytest.raises(RunError, match=r"cannot read the probes in .*probe.safetensors and probe.json"):
        load_probes(**files)
