"""The documents must stay true: links, file names, code names, settings, commands and make targets exist."""

import importlib
import re
import shlex
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path

import pytest
import typer

from finevote.backbones.published import PUBLISHED
from finevote.cli import app
from finevote.config import Config, list_recipes
from tests.house.repository import DOCUMENTS, PACKAGE, ROOT, modules

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
SECTIONS = "|".join(name for name, field in Config.model_fields.items() if hasattr(field.annotation, "model_fields"))

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


@pytest.fixture
def text(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def test_the_readme_can_be_read_in_one_sitting():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


@each_document
def test_relative_links_lead_somewhere(document, text):
    broken = []
    for target in LINK.findall(text):
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        if target.startswith("https://"):
            continue
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_code_files_that_are_named_exist(text):
    named = {code for code in CODE.findall(text) if re.fullmatch(r"[\w/]+\.(py|sh)", code)}
    assert {name for name in named if not (PACKAGE / name).exists() and not (ROOT / name).exists()} == set()


@each_document
def test_code_names_exist(text):
    code = [*CODE.findall(text), *(block for language, block in FENCE.findall(text) if language == "python")]
    named = {name for piece in code for name in re.findall(r"\bfinevote\.([a-zA-Z]\w*)", piece)}
    package = importlib.import_module("finevote")
    assert {name for name in named if not hasattr(package, name) and find_spec(f"finevote.{name}") is None} == set()


@each_document
def test_settings_that_are_named_exist(text):
    unknown = []
    for name in re.findall(rf"\b((?:{SECTIONS})(?:\.[a-z_0-9]+)+)=?", without_files(text)):
        try:
            attrgetter(name)(Config())
        except AttributeError:
            unknown.append(name)
    assert unknown == []


def without_files(text: str) -> str:
    return re.sub(r"[\w/]+\.(md|py|png|json|yaml|csv|safetensors|onnx|pt2)\b", "", text)


@each_document
def test_commands_that_are_shown_can_be_parsed(text):
    for line in commands(text):
        command, words = typer.main.get_command(app), shlex.split(line)[1:]
        while hasattr(command, "commands") and words and not words[0].startswith("-"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if word.startswith("--")} <= options, line


def commands(text: str) -> list[str]:
    """Return the `finevote ...` lines of code blocks and of inline code."""
    blocks = [line.removeprefix("$ ") for _, block in FENCE.findall(text) for line in block.splitlines()]
    lines = [line.split(" #")[0].split(" > ")[0] for line in [*blocks, *CODE.findall(FENCE.sub("", text))]]
    return [line for line in lines if line.startswith("finevote ") and " COMMAND" not in line]


@each_document
def test_make_targets_that_are_named_exist(text):
    named = set(re.findall(r"(?:`|\$ )make ([a-z]+)", text))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named <= targets


def test_the_architecture_names_every_module_and_no_other():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `([\w/]+\.py)`", text, re.MULTILINE))
    there = {path.relative_to(PACKAGE).as_posix() for path in modules()}
    assert named == {name for name in there if name == "__init__.py" or not name.endswith("/__init__.py")}


def test_the_architecture_shows_the_layers_that_are_kept():
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert "\n".join(layers) in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_readme_lists_every_recipe():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(list_recipes()) <= set(re.findall(r"^\| `(\w+)`", text, re.MULTILINE))


def test_the_page_on_data_lists_every_published_set_with_its_numbers():
    from finevote.data.catalogue import DATASETS

    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    section = text.partition("## Published sets")[2].partition("## Protocols")[0]
    for name, info in DATASETS.items():
        (row,) = re.findall(rf"^\| (?:`\w+`, )*`{name}`(?:, `\w+`)* \|(.*)\|$", section, re.MULTILINE)
        counts = [info.count(info.protocols[0], split) for split in ("train", "val", "test")]
        assert [cell.strip() for cell in row.split("|")[1:4]] == [f"{count:,}" if count else "" for count in counts]
        assert f"{info.num_classes:,}" in row.split("|")[0]
        assert row.split("|")[-1].strip() == info.licence


def test_the_page_on_backbones_lists_every_short_name_with_its_licence():
    text = (ROOT / "docs" / "backbones.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|.* (\d+) \| (\d+) \| ([\w.-]+) \|$", text, re.MULTILINE)
    assert rows == [(i.name, str(i.patch_px), str(i.native_px), i.licence) for i in PUBLISHED.values()]
