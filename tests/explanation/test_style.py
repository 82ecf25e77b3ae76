from hypothesis import given
from hypothesis import strategies as st

from finevote.explanation import style

names = st.text(st.characters(codec="latin-1", exclude_categories=["C"]), max_size=60)


@given(names, st.integers(1, 3))
def test_fitted_text_stays_within_its_width_and_lines(name, max_lines):
    lines = style.fit_text(name, width_in=1.2, max_lines=max_lines, size=9).split("\n")
    assert len(lines) <= max_lines
    assert all(style.text_width_in(line, size=9) <= 1.2 for line in lines)


def test_short_text_is_left_as_it_is():
    assert style.fit_text("snow bunting", width_in=3, max_lines=2, size=9) == "snow bunting"


def test_long_text_breaks_at_spaces():
    assert (
        style.fit_text("hard-leaved pocket orchid", width_in=1.0, max_lines=2, size=9) == "hard-leaved\npocket orchid"
    )


def test_what_does_not_fit_is_cut_with_an_ellipsis():
    fitted = style.fit_text("Donaudampfschifffahrtsgesellschaft", width_in=1.0, max_lines=1, size=9)
    assert fitted.startswith("Donaudam")
    assert fitted.endswith("…")


def test_bytes_that_are_no_letters_are_drawn_as_question_marks():
    assert style.drawable("wren\udcff.png") == "wren?.png"
    assert style.text_width_in("wren\udcff", size=9) == style.text_width_in("wren?", size=9)
    figure = style.new_figure(2, 1)
    style.add_text(figure, style.fit_text("a wren \udcff", width_in=2, max_lines=1, size=9), 0, 0)
    figure.canvas.draw()
