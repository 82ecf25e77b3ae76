import pytest
from PIL import Image

from finevote.errors import ArgumentError
from finevote.explanation import style
from finevote.explanation.panels import Panel, Section, panel_sheet


def section(num_panels, *, size=(60, 40), remark="", name="a.png"):
    picture = Image.new("RGB", size, "teal")
    return Section("Twice", "note", tuple(Panel((picture, picture), (name, name), remark) for _ in range(num_panels)))


def boxes(figure):
    figure.canvas.draw()
    return [axes.get_window_extent() for axes in figure.axes]


def test_pictures_of_all_sections_lie_on_the_page_and_apart():
    figure = panel_sheet([section(5), section(3, size=(20, 90))], title="Audit")
    page = figure.bbox
    found = boxes(figure)
    assert len(found) == 16
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= page.x1 and box.y1 <= page.y1 for box in found)
    overlaps = [(a, b) for i, a in enumerate(found) for b in found[i + 1 :] if a.overlaps(b)]
    assert not overlaps


def test_text_stays_on_the_page_and_the_note_behind_the_heading():
    long = "a_very/long/path/" * 9 + "image_00001.jpg"
    figure = panel_sheet([section(4, remark="a reason that is long " * 8, name=long)], title="T " * 300)
    figure.canvas.draw()
    extents = {text.get_text(): text.get_window_extent() for text in figure.texts if text.get_text()}
    assert all(box.x1 <= figure.bbox.x1 and box.y0 >= 0 for box in extents.values())
    assert extents["note"].x0 > extents["Twice"].x1


def test_of_a_long_name_the_end_is_kept():
    figure = panel_sheet([section(1, name="folder/" * 20 + "image_00001.jpg")], title="T")
    (name, *_) = [text.get_text() for text in figure.texts if text.get_text().startswith("…")]
    assert name.endswith("folder/image_00001.jpg")


def test_a_picture_that_is_a_thin_line_is_still_seen():
    found = boxes(panel_sheet([section(1, size=(4000, 8))], title="T"))
    assert all(box.height > 0.02 * style.DPI for box in found)


def test_a_page_without_panels_is_refused():
    with pytest.raises(ArgumentError, match="nothing to draw"):
        panel_sheet([Section("Twice", "0", ())], title="T")
