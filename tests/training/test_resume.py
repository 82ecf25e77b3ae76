import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from finevote.bundle.read import load_bundle
from finevote.config import dump_config
from finevote.errors import DataError, RunError
from finevote.run_folder import RunFolder
from finevote.training import loop
from finevote.training.fit import fit, resume
from tests.training.helpers import assert_same_state, final_state, make_photographs, tiny_config

KILLED_AT_STEP_8 = """
import os, signal, sys
from pathlib import Path
from finevote.config import load_config
from finevote.training import loop
from finevote.training.fit import fit

take_step = loop.Training._take_step

def take_step_or_die(training, batch):
    if training.num_steps_done == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return take_step(training, batch)

loop.Training._take_step = take_step_or_die
fit(load_config(sys.argv[1]), sys.argv[2], out=Path(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return make_photographs(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def uninterrupted(photographs, tmp_path_factory):
    return fit(tiny_config(), photographs, out=tmp_path_factory.mktemp("runs") / "whole")


def interrupt_at(step, number, monkeypatch):
    """Send this process a signal in the middle of the given step."""
    accumulate = loop.accumulate
    num_steps = 0

    def interrupted(*arguments, **options):
        nonlocal num_steps
        num_steps += 1
        if num_steps == step:
            os.kill(os.getpid(), number)
        return accumulate(*arguments, **options)

    monkeypatch.setattr(loop, "accumulate", interrupted)


def assert_same_run(first, second):
    assert_same_state(final_state(first), final_state(second), ignored={"images_per_s", "seconds"})
    assert_same_rows(RunFolder(first), RunFolder(second))


def assert_same_rows(first, second):
    def rows(run):
        timed = {"images_per_s", "seconds"}
        return [
            {name: row[name] for name in row if name not in timed} for row in loop.MetricsLog(run.metrics_jsonl).rows()
        ]

    assert rows(first) == rows(second)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(photographs, uninterrupted, tmp_path):
    (tmp_path / "tiny.yaml").write_text(dump_config(tiny_config()), encoding="utf-8")
    command = [sys.executable, "-c", textwrap.dedent(KILLED_AT_STEP_8), "tiny.yaml", str(photographs), "run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert final_state(tmp_path / "run")["position"]["epoch"] == 2
    assert_same_run(resume(tmp_path / "run"), uninterrupted)


@pytest.mark.parametrize(("step", "number"), [(2, signal.SIGINT), (5, signal.SIGTERM), (6, signal.SIGINT)])
def test_a_run_told_to_stop_in_any_step_goes_on_to_the_same_bits(
    step, number, photographs, uninterrupted, tmp_path, monkeypatch, capfd
):
    with monkeypatch.context() as patch:
        interrupt_at(step, number, patch)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_config(), photographs, out=tmp_path / "run")
    assert f"finevote fit --resume {tmp_path / 'run'}" in capfd.readouterr().out
    position = final_state(tmp_path / "run")["position"]
    assert position["epoch"] * 3 + position["step"] == step
    assert not RunFolder(tmp_path / "run").bundle.exists()
    assert_same_run(resume(tmp_path / "run"), uninterrupted)


def test_a_run_stopped_twice_goes_on_to_the_same_bits(photographs, uninterrupted, tmp_path, monkeypatch):
    for start in (lambda: fit(tiny_config(), photographs, out=tmp_path / "run"), lambda: resume(tmp_path / "run")):
        with monkeypatch.context() as patch:
            interrupt_at(4, signal.SIGINT, patch)
            with pytest.raises(KeyboardInterrupt):
                start()
    assert_same_run(resume(tmp_path / "run"), uninterrupted)


def test_a_run_without_a_checkpoint_starts_from_the_beginning(photographs, uninterrupted, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "_train_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_config(), photographs, out=tmp_path / "run")
    assert_same_run(resume(tmp_path / "run"), uninterrupted)


def test_rows_from_before_the_first_checkpoint_are_written_again(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "STEPS_BETWEEN_ROWS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "_close_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_config(epochs=1), photographs, out=tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    assert [row["step"] for row in loop.MetricsLog(run.metrics_jsonl).rows()] == [1, 2, 3]
    with run.metrics_jsonl.open("a", encoding="utf-8") as file:
        file.write('{"kind": "st')
    resume(run.path)
    rows = [json.loads(line) for line in run.metrics_jsonl.read_text(encoding="utf-8").splitlines()]
    assert [(row["kind"], row["step"]) for row in rows] == [("step", 1), ("step", 2), ("step", 3), ("epoch", 3)]


@pytest.mark.parametrize("num_saved", [1, 2])
def test_a_run_killed_between_its_two_checkpoints_can_go_on(num_saved, photographs, tmp_path, monkeypatch):
    save_checkpoint, saved = loop.save_checkpoint, []

    def save_or_die(path, state):
        save_checkpoint(path, state)
        saved.append(path)
        if len(saved) == num_saved:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", save_or_die)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_config(epochs=1), photographs, out=tmp_path / "run")
    run = RunFolder(resume(tmp_path / "run"))
    assert load_bundle(run.bundle).manifest.details["best_epoch"] == 1


def test_a_finished_run_says_so(uninterrupted):
    with pytest.raises(RunError, match="is finished: measure it with `finevote evaluate"):
        resume(uninterrupted)


@pytest.fixture
def stopped(photographs, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_at(4, signal.SIGINT, patch)
        with pytest.raises(KeyboardInterrupt):
            fit(tiny_config(), photographs, out=tmp_path / "run")
    return RunFolder(tmp_path / "run")


def test_a_cut_checkpoint_names_the_other_which_can_stand_in(stopped, uninterrupted):
    whole = stopped.last_checkpoint.read_bytes()
    stopped.last_checkpoint.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"last\.pt is cut short.*best\.pt is whole: copy it to"):
        resume(stopped.path)
    stopped.last_checkpoint.write_bytes(stopped.best_checkpoint.read_bytes())
    assert_same_run(resume(stopped.path), uninterrupted)


def test_a_copy_of_the_last_checkpoint_does_not_pass_for_the_best(photographs, tmp_path, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_beats", lambda _, best: best is None)  # the first epoch stays the best
        patch.setattr(loop, "save_bundle", lambda *_, **__: (_ for _ in ()).throw(RunError("no bundle")))
        with pytest.raises(RunError, match="no bundle"):
            fit(tiny_config(epochs=2), photographs, out=tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    run.best_checkpoint.write_bytes(run.last_checkpoint.read_bytes())
    with pytest.raises(RunError, match=r"best\.pt holds the weights after 2 epochs, but the best epoch is 1:"):
        resume(run.path)
    assert "all epochs are done, only the bundle is left to write" in capfd.readouterr().out
    assert not run.bundle.exists()


def test_temporary_files_of_a_killed_process_are_removed(stopped):
    left = stopped.last_checkpoint.with_name(f".last.pt.{'0' * 32}.tmp")
    left.touch()
    resume(stopped.path)
    assert not left.exists()


def test_changed_settings_are_refused(stopped):
    text = stopped.config_yaml.read_text(encoding="utf-8").replace("lr: 0.001", "lr: 0.01")
    stopped.config_yaml.write_text(text, encoding="utf-8")
    with pytest.raises(RunError, match=r"config\.yaml has changed since .*last\.pt was written"):
        resume(stopped.path)


def test_a_run_in_use_is_refused(stopped, monkeypatch):
    monkeypatch.setattr("finevote.run_folder._lock", lambda _: False)
    with pytest.raises(RunError, match="another process"):
        resume(stopped.path)


def test_data_that_is_elsewhere_is_refused(stopped, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        resume(stopped.path, data=tmp_path / "empty")
