"""What the Dockerfile and compose.yaml claim, line by line; no image is built here."""

import json
import re
import shlex
from typing import NamedTuple

import pytest
import typer
import yaml

from finevote.cli import app
from tests.house.repository import ROOT


class Instruction(NamedTuple):
    """A line of the Dockerfile, continuations joined; `stage` is the last name after FROM."""

    stage: str
    name: str
    text: str


def instructions() -> list[Instruction]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    found, stage = [], ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, text = line.strip().partition(" ")
        if name == "FROM":
            stage = text.rpartition(" AS ")[2]
        if name:
            found.append(Instruction(stage, name, " ".join(text.split())))
    return found


def bases() -> dict[str, str]:
    """Return {stage: what it is made from}."""
    return {line.stage: line.text.split()[0] for line in instructions() if line.name == "FROM"}


def lines_of(stage: str, name: str) -> list[str]:
    """Return the texts of a kind of instruction in a stage and those below it."""
    below = bases().get(bases()[stage], None) and bases()[stage]
    mine = [line.text for line in instructions() if line.stage == stage and line.name == name]
    return (lines_of(below, name) if below else []) + mine


def service() -> dict:
    (only,) = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].values()
    return only


each_image = pytest.mark.parametrize("image", ["onnx", "torch"])


def test_the_image_without_torch_is_what_is_built_unless_another_is_asked_for():
    assert list(bases())[-1] == "onnx"


@each_image
def test_it_runs_as_nobody_in_particular(image):
    assert lines_of(image, "USER")[-1] == "10001:10001"
    last_user = max(n for n, line in enumerate(instructions()) if line.name == "USER")
    assert not any(line.name == "RUN" for line in instructions()[last_user:])


@each_image
def test_its_health_is_asked_of_the_server_at_the_port_that_it_listens_at(image):
    (check,) = lines_of(image, "HEALTHCHECK")
    (port,) = lines_of(image, "EXPOSE")
    assert f"http://127.0.0.1:{port}/healthz" in check
    assert json.loads(lines_of(image, "CMD")[-1])[-2:] == ["--port", port]


@each_image
def test_signals_reach_the_server(image):
    assert json.loads(lines_of(image, "ENTRYPOINT")[-1]) == ["finevote", "serve"]  # no shell between
    assert lines_of(image, "STOPSIGNAL") == ["SIGTERM"]


@each_image
def test_what_is_written_goes_to_tmp_alone(image):
    settings = dict(pair.split("=", 1) for text in lines_of(image, "ENV") for pair in shlex.split(text))
    assert settings["HOME"] == "/tmp"
    assert settings["XDG_CACHE_HOME"].startswith("/tmp/")
    assert settings["PYTHONDONTWRITEBYTECODE"] == "1"


@each_image
def test_nobody_is_told_of_what_is_served(image):
    settings = dict(pair.split("=", 1) for text in lines_of(image, "ENV") for pair in shlex.split(text))
    assert settings["ORT_DISABLE_TELEMETRY"] == "1"


def test_nothing_is_fetched_by_add_and_nothing_is_the_latest():
    assert not any(line.name == "ADD" for line in instructions())
    outside = [base for base in bases().values() if base not in bases()]
    assert set(outside) == {"python:${PYTHON}"}
    assert next(line.text for line in instructions() if line.name == "ARG") == "PYTHON=3.13-slim"


def test_no_secret_is_built_in():
    settings = [line.text for line in instructions() if line.name in {"ENV", "ARG"}]
    assert not any(re.search("key|token|secret|password", text, re.IGNORECASE) for text in settings)


def test_torch_is_installed_from_the_index_that_was_given_or_not_at_all():
    runs = lines_of("torch-packages", "RUN")
    assert next(n for n, text in enumerate(runs) if "exit 1" in text) < next(
        n for n, text in enumerate(runs) if "pip install" in text and " torch " in text
    )
    assert not any("torch" in text for text in lines_of("onnx-packages", "RUN"))
    assert "pip install --no-deps ." in lines_of("onnx-packages", "RUN")


def test_all_that_is_copied_is_there_and_sent_to_the_builder():
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [line.text.split() for line in instructions() if line.name == "COPY" and "--from" not in line.text]
    names = {name for words in copied for name in words[:-1]}
    assert names == allowed
    assert all((ROOT / name).exists() for name in names)


def test_versions_are_those_that_the_project_is_tested_with():
    pinned = {canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert requirements("serve.txt") <= pinned
    installs = [text for text in lines_of("onnx-packages", "RUN") if "--requirement" in text]
    assert installs
    assert all("--constraint constraints.txt" in text for text in installs)


def requirements(file: str) -> set[str]:
    found = set()
    for line in (ROOT / "container" / file).read_text().splitlines():
        if line.startswith("-r "):
            found |= requirements(line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            found.add(canonical(line))
    return found


def canonical(requirement: str) -> str:
    return re.split(r"[<>=!~\[ ;]", requirement)[0].replace("_", "-").lower()


def test_what_is_needed_without_torch_is_part_of_what_is_needed_with_it():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {canonical(name) for name in (*project["dependencies"], *extras["serve"], *extras["onnx"])}
    assert requirements("serve.txt") <= known
    assert {canonical(name) for name in extras["serve"]} <= requirements("serve.txt")
    assert not {"torch", "torchvision", "timm", "lightning"} & requirements("serve.txt")


@pytest.mark.parametrize("source", ["onnx", "torch", "compose"])
def test_the_server_is_started_with_options_that_it_has(source):
    words = service()["command"] if source == "compose" else json.loads(lines_of(source, "CMD")[-1])
    serve = typer.main.get_command(app).commands["serve"]
    options = {option for parameter in serve.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options
    assert words[0].startswith("/model")


def test_the_composed_server_can_change_nothing():
    found = service()
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["user"] == "10001:10001"
    assert [volume["read_only"] for volume in found["volumes"]] == [True]
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc"} & found.keys()


def test_the_composed_server_has_a_place_for_what_it_must_write():
    (place,) = service()["tmpfs"]
    assert place.split(":")[0] == "/tmp"
    assert {"noexec", "nosuid", "nodev"} <= set(place.split(":")[1].split(","))


def test_the_composed_server_is_for_this_machine_alone():
    assert service()["ports"] == ["127.0.0.1:8000:8000"]


def test_the_composed_server_is_bounded_and_given_time_to_finish():
    found = service()
    assert {"mem_limit", "pids_limit"} <= found.keys()
    assert int(found["stop_grace_period"].removesuffix("s")) > 30  # seconds that a request may take
