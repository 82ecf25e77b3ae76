import pytest
import torch

from finevote.run_folder import RunFolder
from finevote.training.fit import fit
from finevote.training.telemetry import MetricsLog
from tests.training.helpers import changed, final_state, make_photographs, tiny_config


@pytest.mark.slow
def test_two_processes_do_the_work_of_one(tmp_path):
    # SGD, because Adam divides by the gradient's size: it turns the rounding of a gradient near 0 into a whole step.
    config = changed(tiny_config(epochs=2), "optim", name="sgd", lr=0.02, new_lr=0.02)
    config = changed(config, "model", zero_init_classifier=False)
    data = make_photographs(tmp_path / "data")
    one = RunFolder(fit(config, data, out=tmp_path / "one", devices=1))
    two = RunFolder(fit(config, data, out=tmp_path / "two", devices=2))

    state, other = final_state(one.path), final_state(two.path)
    for name, value in state["model"].items():  # parameters and buffers
        torch.testing.assert_close(other["model"][name], value, atol=1e-5, rtol=0, msg=name)
    torch.testing.assert_close(other["average"], state["average"], atol=1e-5, rtol=0)

    rows, others = MetricsLog(one.metrics_jsonl).rows(), MetricsLog(two.metrics_jsonl).rows()
    assert len(rows) == len(others) == 2
    for row, other_row in zip(rows, others, strict=True):
        assert other_row["budget"] == row["budget"]
        assert other_row["val_num_images"] == row["val_num_images"] == 9  # merging refuses doubles
        for name in ("loss", "loss_triplet", "train_top1", "spread", "gradient_norm", "val_top1", "val_loss"):
            assert other_row[name] == pytest.approx(row[name], abs=1e-5)
