import json
import math

import pytest

from finevote.errors import StorageError
from finevote.training.telemetry import CollapseWatch, MetricsLog, RunningMeans, describe_epoch, describe_losses

COLLAPSED = {"triplet": 1.0, "spread": 0.001}


def watch(steps, *, margin=1.0, patience=3):
    watcher = CollapseWatch(margin=margin, patience=patience)
    return [watcher.see(**step) for step in steps]


def test_a_collapse_is_called_once_after_patience_steps():
    assert watch([COLLAPSED] * 6) == [False, False, True, False, False, False]


def test_a_good_step_starts_the_count_again():
    good = {"triplet": 0.4, "spread": 0.5}
    assert watch([COLLAPSED, COLLAPSED, good, COLLAPSED, COLLAPSED, COLLAPSED])[-1]


@pytest.mark.parametrize("step", [{"triplet": 1.0, "spread": 0.5}, {"triplet": 0.9, "spread": 0.001}])
def test_neither_the_margin_nor_a_small_spread_alone_is_a_collapse(step):
    assert not any(watch([step] * 10))


def test_the_soft_margin_collapses_at_ln_2():
    assert any(watch([{"triplet": math.log(2), "spread": 0.0}] * 3, margin="soft"))


def test_a_figure_that_is_not_finite_is_null_which_every_reader_of_json_knows(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write({"kind": "step", "gradient_norm": math.inf, "loss": 0.5})
    assert log.path.read_text() == '{"kind": "step", "gradient_norm": null, "loss": 0.5}\n'


def test_rows_come_back_without_a_last_line_that_was_cut(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.rows() == []
    log.write({"kind": "step", "epoch": 1, "step": 10})
    with log.path.open("a", encoding="utf-8") as file:
        file.write('{"kind": "st')
    assert log.rows() == [{"kind": "step", "epoch": 1, "step": 10}]


def test_rows_after_a_checkpoint_are_dropped(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    rows = [
        {"kind": "step", "epoch": 1, "step": 10},
        {"kind": "epoch", "epoch": 1, "step": 12},
        {"kind": "step", "epoch": 2, "step": 20},
        {"kind": "epoch", "epoch": 2, "step": 24},
    ]
    for row in rows:
        log.write(row)
    log.keep_until(step=24, num_epochs=1)  # saved after the last step of epoch 2, before its validation
    assert [json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines()] == rows[:3]


def test_warnings_are_kept_by_their_step_and_not_by_their_epoch(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (20, 22):
        log.write({"kind": "warning", "epoch": 2, "step": step, "message": "collapsed"})
    log.keep_until(step=21, num_epochs=1)  # stopped in epoch 2
    assert [row["step"] for row in log.rows()] == [20]


def test_nothing_is_made_where_there_are_no_rows(tmp_path):
    MetricsLog(tmp_path / "metrics.jsonl").keep_until(step=0, num_epochs=0)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(StorageError, match=r"cannot write .*metrics\.jsonl: No space left on device: make room"):
        MetricsLog(tmp_path / "metrics.jsonl").write({"kind": "step", "epoch": 1, "step": 10})


def test_means_go_on_from_saved_sums():
    whole, first = RunningMeans(), RunningMeans()
    for value in (1.0, 2.0):
        whole.add({"loss": value})
        first.add({"loss": value})
    second = RunningMeans(first.sums, first.num_steps)
    whole.add({"loss": 6.0})
    second.add({"loss": 6.0})
    assert whole.means() == second.means() == {"loss": 3.0}


def test_there_are_no_means_before_any_step():
    assert RunningMeans().means() == {}


def test_a_single_term_is_not_told_twice():
    assert describe_losses({"loss": 1.0, "loss_part": 1.0}) == "loss 1.000"
    both = describe_losses({"loss": 1.0, "loss_part": 0.5, "loss_complement": 1.5})
    assert both == "loss 1.000 (part 0.500, complement 1.500)"


def test_the_line_of_an_epoch_says_what_was_reached():
    row = {"epoch": 2, "loss": 1.0, "train_top1": 0.5, "lr_max": 1e-4, "images_per_s": 12.34}
    line = describe_epoch(row | {"val_top1": 0.25, "val_loss": 1.0}, num_epochs=5, is_best=True)
    assert line == "epoch 2/5, loss 1.000, train top-1 50.0%, val top-1 25.0% (best), lr 0.0001, 12.3 images/s"
    assert "val" not in describe_epoch(row, num_epochs=5, is_best=False)
