import pytest

from finevote.audit.findings import Audit, Finding, ImageRef, count_leaked
from finevote.errors import ArgumentError
from finevote.evaluation.label_errors import Judgement

TRAIN, VAL, TEST, AGAIN = (
    ImageRef(name, split, "a") for name, split in (("1", "train"), ("2", "val"), ("3", "test"), ("4", "test"))
)


def test_the_json_of_an_audit_has_the_documented_keys():
    finding = Finding("near_duplicate", (TRAIN, TEST), "correlation 0.95", 0.95123456, ("a",), ("across_splits",))
    saved = Audit(
        "birds", {"train": 1, "test": 1}, 2, (finding,), "features", Judgement((), 0.9, 4, 0.75, 0.5)
    ).to_dict()
    assert list(saved) == [
        "format",
        "data",
        "splits_opened",
        "num_images",
        "num_classes",
        "counts",
        "num_leaked",
        "probe",
        "notes",
        "findings",
    ]
    assert saved["format"] == 1
    assert saved["counts"]["near_duplicate"] == 1
    assert saved["counts"]["grey"] == 0
    assert saved["probe"] == {
        "features": "features",
        "agreement": 0.9,
        "trial_num_flipped": 4,
        "trial_recall": 0.75,
        "trial_precision": 0.5,
    }
    assert saved["findings"] == [
        {
            "kind": "near_duplicate",
            "images": [
                {"id": "1", "split": "train", "class": "a", "group": None},
                {"id": "3", "split": "test", "class": "a", "group": None},
            ],
            "classes": ["a"],
            "tags": ["across_splits"],
            "score": 0.9512,
            "detail": "correlation 0.95",
        }
    ]


def test_every_image_with_a_copy_elsewhere_counts_once():
    found = [
        Finding("same_file", (TRAIN, TEST)),
        Finding("near_duplicate", (TRAIN, TEST, AGAIN)),
        Finding("same_pixels", (VAL, TEST)),
    ]
    assert count_leaked(found) == {
        "test": {"train": 2, "val": 1},
        "train": {"test": 1},
        "val": {"test": 1},
    }


def test_likenesses_and_other_findings_are_no_copies():
    assert (
        count_leaked([Finding("similar_embedding", (TRAIN, TEST)), Finding("group_in_two_splits", (TRAIN, VAL))]) == {}
    )


def test_an_unknown_kind_is_refused():
    with pytest.raises(ArgumentError, match="unknown kind of finding 'blurred'; allowed: unreadable, same_file"):
        Finding("blurred")
