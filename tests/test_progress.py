import io
import itertools
import re

import pytest
from rich.console import Console

from finevote.progress import Meter, describe_seconds


def plain_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=200)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_off_a_terminal_lines_are_sparse_and_carry_count_rate_time_left_and_note():
    console = plain_console()
    seconds = itertools.count(step=4)  # every look at the clock takes 4 s
    with Meter("read", total=100, console=console, seconds_between_lines=30, clock=lambda: next(seconds)) as meter:
        for _ in range(10):
            meter.advance(10, note="loss 1.5")
    lines = text_of(console).splitlines()
    assert 1 <= len(lines) <= 3
    assert lines[0].startswith("read ")
    assert "images/s" in lines[0]
    assert "left" in lines[0]
    assert lines[0].endswith("loss 1.5")


def test_off_a_terminal_a_quick_job_writes_nothing():
    console = plain_console()
    with Meter("read", total=3, console=console) as meter:
        meter.advance(3)
    assert text_of(console) == ""


def test_on_a_terminal_the_bar_shows_the_note_and_leaves_only_printed_lines():
    console = Console(file=io.StringIO(), force_terminal=True, width=200, legacy_windows=False)
    with Meter("train", total=10, unit="steps", console=console) as meter:
        meter.advance(4, note="[loss] 1.5")
        meter.print("epoch 1 [done]")
    written = text_of(console)
    assert "4/10" in written
    assert "[loss] 1.5" in written
    assert "epoch 1 [done]" in written


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_narrow_terminal_the_note_is_cut_and_the_rest_stays(width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, legacy_windows=False, color_system=None)
    note = "epoch 12/300, step 103/468, lr 0.00018, loss 3.2141, part 2.1131, complement 4.2119, triplet 0.3121"
    with Meter("train", total=1_000_000, console=console) as meter:
        meter.advance(12_345, note=note)
        meter._bar.refresh()
    lines = [line for line in text_of(console).splitlines() if "epoch 12/" in line]
    assert lines
    assert all("12345/1000000" in line and "images/s" in line and line.rstrip().endswith("…") for line in lines)
    assert all(re.search(r"train .{12} +\d.*images/s (\d+:\d\d|--:--)", line) for line in lines)


def test_the_rate_leaves_out_what_was_done_before():
    seconds = iter([0.0, 0.0, 5.0])
    meter = Meter("train", total=100, done=50, console=plain_console(), clock=lambda: next(seconds, 5.0))
    with meter:
        meter.done += 10
    assert meter.per_second == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (-1, "0 s")]
)
def test_durations_read_in_two_units(seconds, words):
    assert describe_seconds(seconds) == words


def test_bytes_are_shown_in_larger_units_with_their_rate():
    console = plain_console()
    seconds = itertools.count(step=10)
    with Meter("a.tgz", total=345_000_000, unit="bytes", console=console, clock=lambda: next(seconds)) as meter:
        for _ in range(4):
            meter.advance(10_000_000)
    assert re.match(
        r"a\.tgz \d0\.0 MB/345\.0 MB, [\d.]+ (MB|kB)/s, \d+ min \d+ s left$", text_of(console).splitlines()[0]
    )


def test_on_a_terminal_bytes_share_one_unit():
    console = Console(file=io.StringIO(), force_terminal=True, width=80, legacy_windows=False, color_system=None)
    with Meter("a.tgz", total=345_000_000, unit="bytes", console=console) as meter:
        meter.advance(12_300_000)
    assert "12.3/345.0 MB" in text_of(console)


def test_a_total_that_nobody_knows_is_not_shown():
    console = plain_console()
    seconds = itertools.count(step=10)
    with Meter("a.tgz", total=None, unit="bytes", console=console, clock=lambda: next(seconds)) as meter:
        for _ in range(4):
            meter.advance(2_000)
    assert re.match(r"a\.tgz [\d.]+ kB, \d+ bytes/s$", text_of(console).splitlines()[0])
