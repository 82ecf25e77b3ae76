import re

from tests.house.repository import ROOT, committed_files

MACHINE_PATH = re.compile(r"(?<![\w.~/-])/(?:root|home/\w+|Users/\w+|work|opt/\w+)/")
REGISTRY = re.compile(r"pypi\.org|pythonhosted|index-url|registry\.npmjs|download\.pytorch", re.IGNORECASE)
EXACT_PIN = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+")
THIS_FILE = "tests/house/test_committed_files.py"


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in committed_files():
        name = path.relative_to(ROOT).as_posix()
        text = path.read_bytes().decode("utf-8", "ignore")
        if name != THIS_FILE and "\0" not in text:
            found += [f"{name}:{number}" for number, line in enumerate(text.splitlines(), 1) if pattern.search(line)]
    return found


def test_no_path_of_one_machine():
    assert lines_with(MACHINE_PATH) == []


def test_no_package_registry():
    assert lines_with(REGISTRY) == []


def test_constraints_are_names_and_exact_versions_only():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#") and not EXACT_PIN.fullmatch(line)] == []


def test_every_dependency_is_pinned():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = {canonical(name) for group in (project["dependencies"], *extras) for name in group}
    pinned = {canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert wanted <= pinned


def canonical(requirement: str) -> str:
    return re.split(r"[<>=!~\[ ;]", requirement)[0].replace("_", "-").lower()


def test_no_large_file():
    assert [path.name for path in committed_files() if path.stat().st_size > 2**20] == []
