import numpy as np
import pytest
from matplotlib.colors import to_hex

from finevote.errors import ArgumentError
from finevote.explanation import style
from finevote.explanation.explain_figure import explain_figure
from finevote.explanation.explained import Evidence
from finevote.explanation.vote_map import strongest_heads
from finevote.types import Ranked
from tests.explanation.explanations import some_contrast, some_evidence, some_explanation, some_votes
from tests.explanation.extents import overlapping

LONG = "a_very_long_Latin_name_Pseudophilautus_hypomelas_subsp._longissimus_var._elongatus"


def written(figure):
    return [text.get_text().replace("\n", " ") for text in figure.texts]


def pictures(figure):
    return [axes for axes in figure.axes if axes.images and axes.images[0].get_array().shape[0] > 1]


CASES = {
    "plain": {},
    "tall": {"size": (30, 200)},
    "wide": {"size": (400, 40)},
    "many layers": {"votes": some_votes(budget=(3,) * 39, grid=(16, 16))},
    "one layer": {"votes": some_votes(budget=(5,))},
    "two heads": {"votes": some_votes(num_heads=2)},
    "no contrast": {"contrast": None},
    "tall without contrast": {"contrast": None, "size": (60, 300)},
    "nothing promised": {"prediction_set": None, "verdict": None, "is_calibrated": False, "notes": ("no " * 90, LONG)},
    "evidence": {"evidence": (some_evidence("great tit"), some_evidence("blue tit"))},
    "no evidence": {"evidence": (some_evidence("great tit"), Evidence("blue tit", ()))},
    "evidence by name": {"evidence": (some_evidence(LONG, with_pictures=False),)},
    "long names": {
        "image_id": "/".join([LONG] * 4),
        "ranked": Ranked("x", tuple(f"{number}{LONG}" for number in range(10)), (0.1,) * 10),
        "contrast": some_contrast(some_votes(), names=(LONG, f"not {LONG}")),
    },
    "no second vote": {"votes": some_votes(has_second_vote=False)},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_drawn_over_anything_else_or_beyond_the_page(case):
    figure = explain_figure(some_explanation(**CASES[case]))
    texts = [text for text in figure.texts if text.get_text()]
    assert overlapping(texts) == []
    drawn = [axes.get_window_extent() for axes in figure.axes]
    for number, box in enumerate(drawn):
        assert not any(box.overlaps(other) for other in drawn[number + 1 :])
        assert not any(box.overlaps(text.get_window_extent()) for text in texts)
    for box in [*drawn, *(text.get_window_extent() for text in texts)]:
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1 + 1
        assert figure.bbox.y0 <= box.y0
        assert box.y1 <= figure.bbox.y1


def test_a_contrast_is_headed_by_the_class_that_was_not_named():
    assert "Why not blue tit" in written(explain_figure(some_explanation()))
    other = some_contrast(some_votes(), names=("coal_tit", "blue tit"))
    assert "Why coal tit and not blue tit" in written(explain_figure(some_explanation(contrast=other)))


def test_the_title_says_the_finding():
    title = written(explain_figure(some_explanation()))[0]
    assert title.startswith("great tit, 93%: half of the votes on ")


def test_photograph_votes_contrast_layers_and_heads_each_have_a_picture():
    figure = explain_figure(some_explanation())
    assert len(pictures(figure)) == 3 + 3 + 3
    assert {"layer 1", "layer 2", "layer 3"} <= set(written(figure))
    assert len(pictures(explain_figure(some_explanation(contrast=None)))) == 2 + 3 + 3


def test_all_pictures_keep_the_proportions_of_the_photograph_or_of_its_view():
    explanation = some_explanation(size=(120, 60))
    shapes = {
        round(box.width / box.height, 1)
        for box in (a.get_window_extent() for a in pictures(explain_figure(explanation)))
    }
    assert shapes == {2.0, 1.8}  # the view has 0.8 of the width and 0.9 of the height


def test_the_heads_are_those_of_the_layer_with_most_key_tokens_or_of_the_one_asked_for():
    explanation = some_explanation()
    likeliest = int(explanation.votes.key_picks.argmax())
    assert f"Strongest heads of layer {likeliest + 1}" in written(explain_figure(explanation))
    other = (likeliest + 1) % 3
    text = written(explain_figure(explanation, layer=other))
    assert f"Strongest heads of layer {other + 1}" in text
    for head, share in strongest_heads(explanation.votes, other):
        assert f"head {head + 1}: {share:.0%}" in text


@pytest.mark.parametrize("layer", [-1, 3])
def test_a_layer_that_does_not_vote_is_refused(layer):
    with pytest.raises(ArgumentError, match=f"layer={layer + 1} does not vote: give one of the 3 that do"):
        explain_figure(some_explanation(), layer=layer)


def test_the_bars_are_the_budget_and_the_key_tokens():
    explanation = some_explanation()
    bars = [
        patch.get_height()
        for axes in explain_figure(explanation).axes
        for patch in axes.patches
        if patch.get_width() == 0.8
    ]
    assert bars == [*explanation.votes.budget, *explanation.votes.key_picks.tolist()]


def test_bars_of_classes_in_the_set_are_blue():
    figure = explain_figure(some_explanation())
    colors = [
        to_hex(p.get_facecolor()).upper()
        for axes in figure.axes
        for p in axes.patches
        if p.get_height() == 1.0 and p.get_width() < 1
    ]
    assert colors[:5] == [style.RIGHT.upper()] * 2 + [style.MUTED.upper()] * 3


def test_selections_are_called_what_they_are():
    text = " ".join(written(explain_figure(some_explanation(votes=some_votes(has_second_vote=False), contrast=None))))
    assert "There is no second vote" in text
    assert "half of the selections on" in text
    assert "Final votes" not in text


def test_what_cannot_be_promised_is_told():
    figure = explain_figure(
        some_explanation(
            prediction_set=None, verdict=None, is_calibrated=False, notes=("the bundle has no calibration",)
        )
    )
    assert {"The probabilities are not calibrated.", "The bundle has no calibration"} <= set(written(figure))


def test_evidence_names_class_distance_and_photograph():
    text = " ".join(written(explain_figure(some_explanation(evidence=(some_evidence("great tit"),)))))
    assert "Nearest training photographs of great tit" in text
    assert "0.1 away 0.jpg" in text


def test_an_image_on_which_nobody_voted_is_drawn():
    votes = some_votes()
    votes.final[:] = 0
    assert "no votes" in written(explain_figure(some_explanation(votes=votes)))[0]
    assert np.isfinite(explain_figure(some_explanation(votes=votes)).get_size_inches()).all()
