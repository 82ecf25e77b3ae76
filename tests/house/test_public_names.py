import ast
import subprocess
import sys

import pytest

import finevote
from tests.house.repository import PACKAGE

PUBLIC = {
    "Client",
    "Config",
    "Explanation",
    "FineGrainedClassifier",
    "FinevoteError",
    "Predictor",
    "__version__",
    "batch_hard_triplet",
    "build_model",
    "evaluate",
    "fit",
    "list_recipes",
    "load",
    "load_config",
    "open_source",
    "resume",
}


def test_the_public_names_are_these_and_no_others():
    assert set(finevote.__all__) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_every_public_name_can_be_had(name):
    assert getattr(finevote, name) is not None


def test_load_reads_a_predictor():
    assert finevote.load.__self__ is finevote.Predictor


def test_the_names_for_type_checkers_are_those_loaded_on_use():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported | {"load", "__version__"} == PUBLIC


def test_an_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(AttributeError, match=r"no attribute 'lod'; it offers Client, .*load"):
        finevote.lod  # noqa: B018


def test_importing_the_package_loads_nothing_of_it():
    code = "import sys, finevote; print(*[name for name in sys.modules if name.startswith('finevote.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
