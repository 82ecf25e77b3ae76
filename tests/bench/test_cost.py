from statistics import median

import pytest

from finevote.bench.cost import measure_times, peaks_of, times_of
from finevote.bench.plan import Action, Mode, Precision, What
from tests.bench.cases import tiny_case, tiny_plan


def test_each_contender_has_a_time_and_its_ratio_to_plain():
    samples = times_of(tiny_case(), tiny_plan(), what=What.STEP)
    times = {sample.contender: sample for sample in samples if sample.quantity == "time"}
    ratios = {sample.contender: sample for sample in samples if sample.quantity == "time ratio"}
    assert set(times) == {"plain", "plain_cls", "ours"}
    assert set(ratios) == {"plain_cls", "ours"}
    assert all(len(sample.raw) == 2 and sample.low <= sample.value <= sample.high for sample in times.values())
    for name, ratio in ratios.items():
        assert ratio.value == pytest.approx(
            median(a / b for a, b in zip(times[name].raw, times["plain"].raw, strict=True))
        )
    assert all(sample.num_tokens == 17 and sample.size == 32 for sample in samples)


@pytest.mark.parametrize("precision", Precision)
def test_every_action_of_the_plan_is_timed(precision):
    cells = list(measure_times(tiny_plan(precisions=(precision,), rounds=1)))
    assert [cell[0].action for cell in cells] == list(Action)
    assert all(sample.value is not None and sample.precision == precision for cell in cells for sample in cell)


def test_what_cannot_be_built_is_noted_and_the_others_are_timed():
    samples = times_of(tiny_case(backbone="siglip2_vitb16_224"), tiny_plan(), what=What.STEP)
    (failed,) = [sample for sample in samples if sample.value is None]
    assert failed.contender == "plain_cls"
    assert failed.note.startswith("UnsupportedModelError: plain_cls needs a CLS token")
    assert {sample.contender for sample in samples if sample.value is not None} == {"plain", "ours"}


def test_a_size_that_is_no_multiple_of_the_patch_is_rounded_for_everybody():
    samples = times_of(tiny_case(size=35), tiny_plan(), what=What.STEP)
    assert all(sample.value is not None and sample.num_tokens == 17 for sample in samples)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("action", Action)
def test_a_compiled_model_is_timed_like_any_other(action):
    samples = times_of(tiny_case(mode=Mode.COMPILE, action=action), tiny_plan(), what=What.STEP)
    assert {sample.contender for sample in samples if sample.quantity == "time"} == {"plain", "plain_cls", "ours"}
    assert all(sample.mode == "compile" for sample in samples)


@pytest.mark.slow
@pytest.mark.long
def test_memory_grows_with_the_batch_and_has_its_ratio_to_plain():
    large = ("model.backbone_args={patch_size: 8, embed_dim: 192, depth: 3, num_heads: 3}",)
    small, big = (
        peaks_of(tiny_case(more=large, size=128, batch=batch, action=Action.STEP), tiny_plan(), what=What.MEMORY)
        for batch in (2, 16)
    )
    for before, after in zip(small, big, strict=True):
        assert before.contender == after.contender
        if before.quantity == "peak memory":
            assert 10 < before.value < after.value  # MiB
    assert {sample.contender for sample in big if sample.quantity == "peak memory ratio"} == {"plain_cls", "ours"}
