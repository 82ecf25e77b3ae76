import pytest

from finevote.bench.failure import DOES_NOT_FIT, describe_failure
from finevote.bench.timing import ratio_of, spread_of, time_in_turn


def test_every_round_starts_with_another_contender():
    calls = []
    actions = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds, failures = time_in_turn(actions, num_rounds=3, num_warmup_rounds=1)
    assert ["".join(calls[start : start + 3]) for start in range(0, 12, 3)] == ["abc", "bca", "cab", "abc"]
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert failures == {}


def test_a_contender_that_fails_leaves_the_others_to_go_on():
    calls = []

    def fail():
        calls.append("fail")
        raise RuntimeError("no kernel\nfor this")

    seconds, failures = time_in_turn({"bad": fail, "good": lambda: None}, num_rounds=2)
    assert failures == {"bad": "RuntimeError: no kernel for this"}
    assert calls == ["fail"]
    assert {name: len(values) for name, values in seconds.items()} == {"good": 2}


def test_the_ratio_is_the_median_of_those_round_by_round():
    ratio = ratio_of([2.0, 4.0, 9.0], [4.0, 4.0, 3.0])
    assert ratio.value == 4.0 / 4.0
    assert (ratio.low, ratio.high) == (0.75, 2.0)  # quartiles of 0.5, 1 and 3


def test_one_round_has_no_spread():
    assert spread_of([3.0]) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_want_of_memory_is_told_as_such(error):
    assert describe_failure(error) == DOES_NOT_FIT
