import numpy as np
import pytest

from finevote.explanation.similarity import Part, budget_lines, cka_maps, vote_shares
from tests.explanation.extents import is_within, overlapping

LONG = "CLS changes most from layer 23 to refinement: CKA 0.41 " * 3


def texts_of(figure):
    figure.canvas.draw()
    return [text for text in figure.texts if text.get_text()]


@pytest.mark.parametrize("num_layers", [1, 3, 13, 25])
def test_maps_of_few_and_many_layers_are_legible(num_layers):
    values = np.eye(num_layers)
    names = [f"layer {number}" for number in range(1, num_layers)] + ["refinement"]
    maps = {kind: dict.fromkeys(("unbiased", "standard"), values) for kind in ("CLS", "Mean patch")}
    figure = cka_maps(maps, names, title=LONG, subtitle=LONG * 2)
    texts = texts_of(figure)
    assert overlapping(texts) == []
    assert all(is_within(text, figure) for text in texts)
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert len(numbers) == (num_layers**2 if num_layers <= 13 else 0)


def test_a_cell_without_a_value_is_left_open():
    values = np.array([[1, np.nan], [np.nan, np.nan]])
    figure = cka_maps({"CLS": {"standard": values}}, ["layer 1", "layer 2"], title="t", subtitle="s")
    assert [text.get_text() for text in figure.axes[0].texts] == ["1.00", "-", "-", "-"]


@pytest.mark.parametrize("num_layers", [1, 2, 11, 39])
def test_lines_are_named_at_their_ends_without_overlap(num_layers):
    counts = np.full((5, num_layers), 3)
    figure = budget_lines([0.2, 1, 2, 3, 4], counts.tolist(), title=LONG, subtitle=LONG)
    texts = texts_of(figure)
    assert [text.get_text() for text in texts][2:] == [f"layer {n}: 3" for n in range(1, num_layers + 1)]
    assert overlapping(texts) == []
    assert all(is_within(text, figure) for text in texts)


def test_a_budget_seen_once_is_drawn():
    assert budget_lines([0.5], [[4, 4]], title="t", subtitle="s").axes[0].get_xlim() == (0, 0.5)


@pytest.mark.parametrize(("num_layers", "num_heads"), [(1, 1), (2, 4), (23, 16)])
def test_shares_and_heads_stand_side_by_side(num_layers, num_heads):
    heads = np.linspace(0, 1, num_layers * num_heads).reshape(num_layers, num_heads)
    parts = [Part(1 / num_layers, 0.5, 0.4, 0.6)] * num_layers
    figure = vote_shares(parts, heads, area=0.2, title=LONG, subtitle=LONG * 2)
    texts = texts_of(figure)
    assert overlapping(texts) == []
    assert all(is_within(text, figure) for text in texts)
    assert len(figure.axes[1].texts) == num_layers * num_heads


def test_heads_that_never_agree_are_drawn():
    parts = [Part(0.5, 0.5, 0.4, 0.6)] * 2
    assert vote_shares(parts, np.zeros((2, 3)), area=0.0, title="t", subtitle="s").axes
