"""Help and settings must not wait for the heavy libraries; what is imported is compared in a fresh process."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "torchvision", "timm", "numpy", "scipy", "sklearn", "matplotlib", "lightning", "PIL", "safetensors"}

HELP_OF_ALL_COMMANDS = """
import sys, typer
from finevote.cli import app

def pages(command, path=()):
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from pages(child, (*path, name))

for path in list(pages(typer.main.get_command(app))):
    try:
        app([*path, "--help"])
    except SystemExit as stop:
        assert stop.code == 0, path
    heavy = HEAVY & set(sys.modules)
    assert not heavy, f"finevote {' '.join(path)} --help imports {heavy}"
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", f"HEAVY = {HEAVY}\n{code}"], capture_output=True, text=True)


def test_help_of_every_command_imports_no_heavy_library():
    done = run(HELP_OF_ALL_COMMANDS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage:") == 33  # finevote, its twenty-six commands, `data` and its five


@pytest.mark.parametrize("module", ["config", "errors", "types", "run_folder", "files", "progress", "cli"])
def test_light_modules_import_no_heavy_library(module):
    done = run(f"import sys, finevote.{module}\nprint(*sorted(HEAVY & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("module", ["onnx_engine", "predictor", "serving.server", "sharing.pull"])
def test_what_runs_where_there_is_no_torch_imports_none(module):
    left_out = {"torch", "timm", "sklearn", "matplotlib"}
    done = run(f"import sys, finevote.{module}\nprint(*sorted({left_out} & set(sys.modules)))")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
