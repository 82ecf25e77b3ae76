import io

import pytest
from rich.console import Console

from finevote.audit.findings import Audit, Finding, ImageRef
from finevote.audit.report import audit_table, leak_lines
from finevote.evaluation.label_errors import Judgement

COPIES = (ImageRef("b/1.jpg", "train", "b"), ImageRef("b/2.jpg", "test", "b"), ImageRef("b/3.jpg", "test", "b"))


def make(*findings, judgement=None, **changes):
    values = {"num_images": {"train": 100, "val": 20, "test": 50}, "num_classes": 3, "num_leaked": {}, **changes}
    judgement = judgement or Judgement((), 0.9, 5, 0.8, 0.6)
    return Audit(data="birds", findings=findings, features="patches", judgement=judgement, **values)


def printed(audit):
    console = Console(file=io.StringIO(), width=200)
    console.print(audit_table(audit))
    return console.file.getvalue()


def test_findings_are_counted_by_kind_with_an_example():
    text = printed(make(Finding("same_file", COPIES, tags=("across_splits",)), Finding("grey", COPIES[:1], "mode L")))
    (copies,) = [line for line in text.splitlines() if line.startswith("the same file")]
    copies = copies.rstrip()
    assert copies.endswith("1        3   b/1.jpg (train) = b/2.jpg (test) and 1 more")
    assert any(line.split()[:5] == ["in", "more", "than", "one", "split"] for line in text.splitlines())
    assert "b/1.jpg (train): mode L" in text


def test_kinds_that_were_not_found_have_no_row():
    assert "CMYK" not in printed(make(Finding("grey", COPIES[:1])))
    assert "nothing found" in printed(make())


def test_names_are_printed_as_they_are():
    assert "[red]/1.jpg" in printed(make(Finding("grey", (ImageRef("[red]/1.jpg", "train", "[b]"),), "[x]")))


def test_every_way_that_flatters_a_figure_is_warned_of():
    leaked = {"test": {"train": 3, "val": 2}, "val": {"train": 1, "test": 2}, "train": {"test": 3, "val": 1}}
    lines = leak_lines(make(num_leaked=leaked))
    assert [line.split(":")[1].strip() for line in lines] == [
        "3 of 50 test images have a copy in train",
        "2 of 50 test images have a copy in val",
        "1 of 20 val images have a copy in train",
    ]
    assert all(line.startswith("WARNING: ") and "will flatter" in line for line in lines)


@pytest.mark.parametrize(("precision", "is_weak"), [(0.6, False), (0.26, True)])
def test_how_the_labels_were_judged_is_said_and_a_weak_judge_is_called_one(precision, is_weak):
    text = " ".join(printed(make(judgement=Judgement((), 0.573, 40, 0.625, precision))).split())
    assert "patches, which out of fold agree with 57.3% of them" in text
    assert "62% of 40 flipped labels were found" in text
    assert ("most doubts are wrong here" in text) == is_weak


def test_labels_that_could_not_be_judged_are_said_to_be_so():
    assert "the labels were not judged" in printed(make(judgement=Judgement(())))
