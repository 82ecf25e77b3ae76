import pytest

from finevote.bench.startup import measure_startup
from tests.bench.cases import tiny_plan


@pytest.mark.slow
@pytest.mark.long
def test_the_command_and_the_bare_script_are_timed_as_processes_and_by_part():
    (samples,) = measure_startup(tiny_plan(rounds=1))
    assert [sample.note for sample in samples if sample.value is None] == []
    times = {(s.contender, s.part): s.value for s in samples if s.quantity == "time"}
    for name in ("plain", "ours"):
        parts = [times[name, part] for part in ("imports", "load", "forward")]
        assert min(parts) > 0
    assert sum(times["plain", part] for part in ("imports", "load", "forward")) < times["plain", "whole process"]
    (ratio,) = [sample.value for sample in samples if sample.quantity == "time ratio"]
    assert ratio == times["ours", "whole process"] / times["plain", "whole process"]
