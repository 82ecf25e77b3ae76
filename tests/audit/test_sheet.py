import io

import pytest
from PIL import Image

from finevote.audit.findings import Audit, Finding, ImageRef
from finevote.audit.sheet import NUM_DRAWN, draw_findings
from finevote.data.folder import open_folder
from finevote.evaluation.label_errors import Judgement


@pytest.fixture
def source(tmp_path):
    for index in range(12):
        for name in ("blue_tit", "crested tit"):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (40, 30), (20 * index, 90, 120)).save(tmp_path / name / f"{index}.png")
    return open_folder(tmp_path, splits=["train"])


def image(number, name="blue_tit"):
    return ImageRef(f"{name}/{number}.png", "train", name)


def draw(source, *findings):
    return draw_findings(Audit("birds", {"train": 24}, 2, findings, "patches", Judgement(())), source)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def test_copies_stand_side_by_side_under_their_kind(source):
    figure = draw(source, Finding("same_file", (image(1), image(2)), "why"))
    assert len(figure.axes) == 2
    assert {"The same file, byte for byte", "blue_tit/1.png  train: blue tit", "why"} <= set(texts(figure))


def test_no_more_than_eight_findings_of_a_kind_are_drawn_and_the_rest_is_counted(source):
    figure = draw(source, *(Finding("grey", (image(number),)) for number in range(12)))
    assert len(figure.axes) == NUM_DRAWN == 8
    assert "8 of 12" in texts(figure)


def test_copies_with_two_labels_come_first_and_say_so(source):
    plain = Finding("same_file", (image(1), image(2)))
    mixed = Finding("same_file", (image(3), image(3, "crested tit")), tags=("mixed_labels",))
    names = [text for text in texts(draw(source, plain, mixed)) if ".png" in text]
    assert names[0].startswith("blue_tit/3.png")
    assert "two labels" in texts(draw(source, plain, mixed))


def test_of_many_copies_one_in_another_class_is_shown_beside_the_first(source):
    figure = draw(source, Finding("same_file", (image(1), image(2), image(4, "crested tit"))))
    assert [text for text in texts(figure) if ".png" in text][1].startswith("crested tit/4.png")
    assert "and 1 more" in texts(figure)


def test_beside_a_label_in_doubt_stands_the_class_that_it_looks_like(source):
    doubted = Finding("label_error", (image(1),), classes=("crested tit",))
    other = Finding("label_error", (image(0, "crested tit"),), classes=("blue_tit",))
    names = [text for text in texts(draw(source, doubted, other)) if ".png" in text]
    assert names == [
        "blue_tit/1.png  train: blue tit",
        "crested tit/1.png  train: crested tit",  # the first of its class that is not in doubt itself
        "crested tit/0.png  train: crested tit",
        "blue_tit/0.png  train: blue tit",
    ]


def test_findings_without_pictures_are_not_drawn(source, tmp_path):
    (tmp_path / "blue_tit" / "5.png").write_bytes(b"broken")
    assert draw(source, Finding("imbalance", detail="x"), Finding("unreadable", (image(5),))) is None


def test_the_page_can_be_written(source):
    content = io.BytesIO()
    draw(source, Finding("long", (image(1),), "400 x 100 px")).savefig(content, format="png")
    assert content.getvalue().startswith(b"\x89PNG")
