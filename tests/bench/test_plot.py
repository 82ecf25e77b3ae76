from finevote.bench.plan import Action, What
from finevote.bench.plot import plot_growth
from finevote.bench.results import Sample
from tests.bench.cases import tiny_case


def sample(contender, num_tokens, value, *, quantity="time", what=What.STEP, **case):
    return Sample(what, quantity, contender, value, "s").of(tiny_case(**case), num_tokens=num_tokens)


def test_time_is_drawn_in_ms_an_image_over_the_tokens():
    samples = [sample("ours", tokens, tokens / 1000, batch=4) for tokens in (200, 100)]
    (axes,) = plot_growth(samples).axes
    (line,) = axes.lines
    assert line.get_xydata().tolist() == [[100, 25], [200, 50]]


def test_each_action_and_quantity_has_a_panel_and_each_circumstance_a_row():
    samples = [
        sample("plain", tokens, 1.0, action=action, quantity=quantity, precision=precision)
        for tokens in (100, 200)
        for action in Action
        for quantity in ("time", "peak memory")
        for precision in ("fp32", "bf16")
    ]
    assert len(plot_growth(samples).axes) == 8


def test_what_failed_and_what_has_one_size_is_not_drawn():
    assert plot_growth([sample("ours", 100, 1.0), sample("naive", 200, None)]) is None


def test_other_numbers_of_classes_at_one_size_do_not_meet_the_curve():
    curve = [sample("ours", tokens, 1.0, what=What.GROWTH) for tokens in (100, 200, 300)]
    more = [sample("ours", 100, 9.0, what=What.GROWTH, num_classes=number) for number in (10, 1000)]
    (line,) = plot_growth([*curve, *more]).axes[0].lines
    assert line.get_ydata().tolist() == [250, 250, 250]
