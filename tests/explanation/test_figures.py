import logging

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from finevote.errors import ArgumentError, FinevoteError
from finevote.explanation import style
from finevote.explanation.figures import Example, contact_sheet, example_grid, save_figure, training_curves
from finevote.types import Box

LONG = "a_very_long_Latin_name_Pseudophilautus_hypomelas_subsp._longissimus_var._elongatus"


def photo(width=60, height=40):
    return Image.fromarray(np.full((height, width, 3), 128, np.uint8))


def example(true="lily", predicted="lily", **options):
    return Example(photo(), true, predicted, 0.873, **options)


def written(figure):
    return [text.get_text() for text in figure.texts]


def boxes_of_text(figure):
    renderer = figure.canvas.get_renderer()
    return [text.get_window_extent(renderer) for text in figure.texts if text.get_text()]


def test_a_right_and_a_wrong_answer_differ_in_colour_and_in_sign():
    figure = example_grid([example(), example(predicted="rose")], title="Validation")
    colors = [to_hex(axes.spines["top"].get_edgecolor()).upper() for axes in figure.axes]
    assert colors == [style.RIGHT, style.WRONG]
    assert f"{style.TICK} 87% lily" in written(figure)
    assert f"{style.CROSS} 87% rose" in written(figure)
    assert "is lily" in written(figure)


def test_long_names_overlap_neither_each_other_nor_the_pictures():
    wrong = [example(true=LONG, predicted=f"not {LONG}") for _ in range(5)]
    figure = example_grid(wrong, title=LONG, subtitle=LONG * 3)
    texts = boxes_of_text(figure)
    pictures = [axes.get_window_extent() for axes in figure.axes]
    for number, box in enumerate(texts):
        assert not any(box.overlaps(other) for other in texts[number + 1 :] + pictures)
        assert figure.bbox.x0 <= box.x0
        assert box.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= box.y0


def test_pictures_keep_their_proportions():
    figure = contact_sheet([photo(60, 40), photo(30, 90)], ["wide", "tall"])
    sizes = [axes.get_window_extent() for axes in figure.axes]
    assert sizes[0].width / sizes[0].height == pytest.approx(1.5)
    assert sizes[1].width / sizes[1].height == pytest.approx(1 / 3)


def test_votes_are_discs_on_their_patches_of_an_area_in_proportion():
    votes = np.zeros((2, 4))
    votes[0, 3], votes[1, 0] = 4, 1
    figure = example_grid([example(votes=votes)], title="Validation")
    (discs,) = figure.axes[0].collections
    np.testing.assert_allclose(discs.get_offsets(), [[3.5 / 4, 0.25], [0.5 / 4, 0.75]])
    sizes = discs.get_sizes()
    assert sizes[0] / sizes[1] == pytest.approx(4)


def test_an_example_without_a_single_vote_is_drawn_plain():
    figure = example_grid([example(votes=np.zeros((2, 2)))], title="Validation")
    assert not len(figure.axes[0].collections[0].get_offsets())


def test_boxes_of_one_name_have_one_colour_told_in_the_key():
    boxes = [[Box("beak", 0.1, 0.1, 0.3, 0.3)], [Box("wing bar", 0.5, 0.5, 0.9, 0.9), Box("beak", 0, 0, 0.1, 0.1)]]
    figure = contact_sheet([photo(), photo()], ["a", "b"], boxes, title="synthetic")
    edges = [[to_hex(patch.get_edgecolor()).upper() for patch in axes.patches[1::2]] for axes in figure.axes]
    assert edges == [[style.SERIES[0]], [style.SERIES[1], style.SERIES[0]]]
    assert {
        text.get_text(): to_hex(text.get_color()).upper() for text in figure.texts if "beak" in text.get_text()
    } == {"□ beak": style.SERIES[0]}


def test_a_sheet_refuses_titles_that_are_not_as_many_as_its_images():
    with pytest.raises(ArgumentError, match="2 images, 1 titles and 2 box lists"):
        contact_sheet([photo(), photo()], ["a"])


@pytest.mark.parametrize("draw", [lambda: example_grid([], title=""), lambda: contact_sheet([], [])])
def test_nothing_to_draw_is_refused(draw):
    with pytest.raises(ArgumentError, match="nothing to draw"):
        draw()


def test_a_key_that_is_wider_than_the_sheet_is_cut_and_not_written_over_its_edge():
    boxes = [Box(f"a part with a long name {number:02d}", 0.1, 0.1, 0.5, 0.5) for number in range(20)]
    figure = contact_sheet([Image.new("RGB", (40, 30))], ["a bird"], [boxes])
    key = [text for text in figure.texts if "long name" in text.get_text()]
    assert 0 < len(key) < 20
    assert min(text.get_window_extent().x0 for text in key) >= 0


def epoch(number, **figures):
    return {"kind": "epoch", "epoch": number, "step": number, "loss": 1.0, "lr_min": 1e-5, "lr_max": 1e-3, **figures}


def drawn(figure):
    return {line.get_label(): line.get_xydata().tolist() for axes in figure.axes for line in axes.lines}


def test_the_title_of_the_curves_says_the_finding():
    rows = [epoch(1, val_top1=0.5), epoch(2, val_top1=0.813), epoch(3, val_top1=0.7)]
    assert "Validation top-1 peaks at 81.3% in epoch 2 of 3" in written(training_curves(rows))


def test_curves_without_validation_say_so():
    assert "Epoch 1: training top-1 10.0%, not validated" in written(training_curves([epoch(1, train_top1=0.1)]))


def test_epochs_without_validation_leave_no_gap_in_its_curve():
    rows = [epoch(1, val_top1=0.5), epoch(2), epoch(3, val_top1=0.6)]
    assert drawn(training_curves(rows))["validation"] == [[1, 0.5], [3, 0.6]]


def test_each_loss_term_and_group_has_its_curve():
    rows = [epoch(1, loss_part=1.0, loss_complement=1.2, loss_triplet=0.9)]
    names = set(drawn(training_curves(rows)))
    assert {"total", "part", "complement", "triplet", "highest group", "lowest group"} <= names


def test_rates_are_told_apart_on_their_axis_and_a_perfect_epoch_fits_into_its_own():
    _, accuracy, rate = training_curves([epoch(1, val_top1=1.0)]).axes
    assert rate.yaxis.get_major_formatter()(0.00175) == "0.00175"
    assert accuracy.get_ylim()[1] > 1


def test_steps_are_not_drawn():
    with pytest.raises(ArgumentError, match="no epoch is finished"):
        training_curves([epoch(1) | {"kind": "step"}])


def test_names_in_other_scripts_and_with_dollar_signs_are_drawn_without_a_warning(tmp_path, caplog):
    figure = style.new_figure(2, 1)
    with caplog.at_level(logging.WARNING):
        style.add_text(figure, style.fit_text("王莲 $5 lily $", width_in=2, max_lines=1, size=9), 0.1, 0.1)
        save_figure(figure, tmp_path / "text.png")
    assert not caplog.records


def test_a_figure_is_saved_at_its_size(tmp_path):
    path = save_figure(style.new_figure(3, 2), tmp_path / "empty.png")
    with Image.open(path) as image:
        assert image.size == (3 * style.DPI, 2 * style.DPI)


def test_a_figure_that_cannot_be_saved_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(FinevoteError, match="taken"):
        save_figure(style.new_figure(1, 1), tmp_path / "taken" / "figure.png")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
