import pytest

from finevote.bench.loader import RATE, measure_loader
from tests.bench.cases import tiny_plan
from tests.training.helpers import make_photographs


def test_the_loader_has_a_rate_in_all_and_by_stage_beside_that_of_a_step(tmp_path):
    plan = tiny_plan(data=str(make_photographs(tmp_path)), overrides=(*tiny_plan().overrides, "loss.triplet_weight=0"))
    (samples,) = measure_loader(plan)
    rates = {(sample.contender, sample.part): sample.value for sample in samples if sample.quantity == RATE}
    stages = {"whole", "decode", "augment", "decode, resize and augment"}
    assert set(rates) == {*(("loader", stage) for stage in stages), ("step", "whole")}
    (ratio,) = [sample.value for sample in samples if sample.quantity == "loader / step"]
    assert ratio == pytest.approx(rates["loader", "whole"] / rates["step", "whole"])
