import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from finevote.errors import RunError
from finevote.run_folder import RunFolder, next_run_path

HOLD_LOCK = """
import sys
from pathlib import Path
from finevote.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""


def make_run(path: Path) -> RunFolder:
    run = RunFolder.create(path)
    for file in (run.config_yaml, run.data_json, run.split_json):
        file.write_text("{}", encoding="utf-8")
    return run


def hold_lock(path: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD_LOCK, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "locked\n"
    return holder


def test_create_makes_the_folder_and_open_finds_it(tmp_path):
    run = make_run(tmp_path / "runs" / "one")
    assert run.last_checkpoint.parent.is_dir()
    assert RunFolder.open(tmp_path / "runs" / "one") == run


def test_create_takes_an_empty_folder(tmp_path):
    assert RunFolder.create(tmp_path).path == tmp_path


def test_create_refuses_a_run_and_says_how_to_go_on(tmp_path):
    make_run(tmp_path / "one")
    with pytest.raises(RunError, match=r"already holds a run: go on with `--resume .*one`, or give another --out"):
        RunFolder.create(tmp_path / "one")


def test_create_refuses_a_folder_with_other_files(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="already exists and is not an empty folder: give another --out"):
        RunFolder.create(tmp_path)


def test_create_says_why_a_folder_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"cannot make the run folder .*: Not a directory"):
        RunFolder.create(tmp_path / "file" / "run")


def test_open_names_the_command_when_there_is_no_folder(tmp_path):
    with pytest.raises(RunError, match=r"there is no run folder .*none: `finevote fit DATA --out"):
        RunFolder.open(tmp_path / "none")


def test_open_names_what_is_missing(tmp_path):
    make_run(tmp_path / "one").split_json.unlink()
    with pytest.raises(RunError, match=r"is not a run of finevote: it has no split\.json"):
        RunFolder.open(tmp_path / "one")


def test_read_json_names_a_file_cut_short(tmp_path):
    run = make_run(tmp_path / "one")
    run.data_json.write_text(json.dumps({"data": "synthetic"})[:-4], encoding="utf-8")
    with pytest.raises(RunError, match=r"cannot read .*data\.json of the run \(.*\): bring it back as it was"):
        run.read_json(run.data_json)
    run.data_json.write_text("[]", encoding="utf-8")
    with pytest.raises(RunError, match=r"of the run \(it holds a list\): make another"):
        run.read_json(run.data_json, advice="make another")


def test_a_second_process_is_refused_with_the_number_of_the_first(tmp_path):
    run = make_run(tmp_path / "one")
    holder = hold_lock(run.path)
    try:
        with pytest.raises(RunError, match=rf"another process \(PID {holder.pid}\) is training in"), run.lock():
            pass
    finally:
        holder.communicate("")


def test_the_lock_of_a_killed_process_does_not_block(tmp_path):
    run = make_run(tmp_path / "one")
    holder = hold_lock(run.path)
    holder.kill()
    holder.communicate()
    with run.lock():
        assert (run.path / ".lock").read_text(encoding="utf-8") == str(os.getpid())


def test_a_run_that_may_not_be_written_says_so(tmp_path, monkeypatch):
    def locked(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", locked)
    with (
        pytest.raises(RunError, match=r"cannot write in the run folder .*: Permission denied; check its permissions"),
        RunFolder(tmp_path).lock(),
    ):
        pass


def test_the_next_run_takes_the_lowest_free_number(tmp_path):
    (tmp_path / "demo-birds-1").mkdir()
    (tmp_path / "demo-birds-3").mkdir()
    assert next_run_path(tmp_path, "demo-birds") == tmp_path / "demo-birds-2"
