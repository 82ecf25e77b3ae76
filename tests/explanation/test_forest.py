import pytest

from finevote.errors import ArgumentError
from finevote.explanation import style
from finevote.explanation.forest import ForestRow, forest_plot
from tests.explanation.extents import is_within, overlapping

FULL = ForestRow("full", 0.9, 0.88, 0.92, (0.89, 0.9, 0.91), None, stands_out=False)
PLAIN = ForestRow("plain", 0.8, 0.76, 0.84, (0.78, 0.8, 0.82), (-0.1, -0.14, -0.06), stands_out=True)


def test_accuracies_and_differences_stand_side_by_side():
    accuracies, differences = forest_plot([FULL, PLAIN], title="t").axes
    assert [list(line.get_xdata()) for line in accuracies.lines if len(line.get_xdata()) == 3][1] == [0.78, 0.8, 0.82]
    assert list(differences.lines[-1].get_xdata()) == [-0.1]
    assert differences.lines[-1].get_color() == style.WRONG


def test_one_variant_has_no_differences():
    assert len(forest_plot([FULL], title="t").axes) == 1


def test_nothing_to_draw_is_refused():
    with pytest.raises(ArgumentError, match="at least one variant"):
        forest_plot([], title="t")


def test_long_names_stay_in_the_picture_and_apart():
    long = "model.voting.dilations=[1], optim.lr=0.001, optim.weight_decay=0.05"
    figure = forest_plot([FULL._replace(name=long), PLAIN], title=long * 3, subtitle=long * 4)
    assert overlapping(figure.texts) == []
    assert all(is_within(text, figure) for text in figure.texts)
