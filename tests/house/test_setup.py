"""What the set-up says on a machine that it cannot work on; each in a PATH made for the purpose."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.house.repository import ROOT

NEEDED = ("sh", "dirname", "grep", "tail", "cut", "sleep", "rm", "mkdir", "ln")
OLD_PYTHON = '[ "$1" = --version ] && { echo Python 3.9.2; exit 0; }; exit 1'
NO_VENV = 'case "$2" in *ensurepip*) exit 1;; esac; exit 0'
SHIM = "echo 'python3.13: command not found' >&2; exit 127"
# Makes a .venv whose python is this script again; then `-m pip install` prints what pip prints and fails.
FAILING_PIP = """case "$1 $2 $3" in
    "-m venv .venv") mkdir .venv/bin; ln -s "$0" .venv/bin/python;;
    "-m pip install") printf '%s\\n' {lines}; exit 1;;
esac"""
NO_NETWORK = (
    "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(Failed to establish)': /torch/",
    "ERROR: Could not find a version that satisfies the requirement torch (from versions: none)",
    "ERROR: No matching distribution found for torch",
)
BROKEN_VENV = 'case "$2" in venv) echo "OSError: [Errno 28] No space left on device"; exit 1;; esac; exit 0'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "setup.sh", tmp_path / "tools")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in NEEDED:
        (tools / name).symlink_to(shutil.which(name))
    return tmp_path


def set_up(checkout: Path, **pythons: str) -> str:
    """Run the set-up with scripts in place of pythons; it must fail with one line, which is returned."""
    for name, script in pythons.items():
        path = checkout / "bin" / name.replace("_", ".")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHON"}
    done = subprocess.run(
        ["sh", checkout / "tools" / "setup.sh"],
        env=environment | {"PATH": str(checkout / "bin")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert not (checkout / ".venv" / "setup.done").exists()
    return done.stderr


def test_no_python_is_told(checkout):
    assert "Python 3.11 or newer is needed, but found no working python3.13" in set_up(checkout)


def test_an_old_python_is_told_with_its_version(checkout):
    assert "Python 3.11 or newer is needed, but found Python 3.9.2 (python3)" in set_up(checkout, python3=OLD_PYTHON)


def test_a_shim_that_only_fails_is_passed_over(checkout):
    assert "found Python 3.9.2 (python3)" in set_up(checkout, python3_13=SHIM, python3=OLD_PYTHON)


def test_a_python_without_venv_is_told(checkout):
    assert "python3 has no venv module" in set_up(checkout, python3=NO_VENV)


def failing_pip(*lines: str) -> str:
    return FAILING_PIP.format(lines=shlex.join(lines))


def test_no_network_is_told_though_pip_says_that_there_is_no_such_version(checkout):
    message = set_up(checkout, python3=failing_pip(*NO_NETWORK))
    assert "the package index cannot be reached: check the network (or the proxy) and run it again" in message


def test_a_missing_version_is_told_in_pip_s_last_words(checkout):
    message = set_up(checkout, python3=failing_pip(*NO_NETWORK[1:]))
    assert message.startswith("setup: ERROR: No matching distribution found for torch (log: .venv/setup.log)")


def test_a_full_disk_is_told(checkout):
    assert "the disk is full" in set_up(checkout, python3=BROKEN_VENV)
