"""A folder that holds only some packages, and Python in it: as a virtual environment without the others."""

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.house.repository import PACKAGE, ROOT


def requirements(file: Path) -> list[str]:
    """Return the names in a file of requirements and in those that it takes in."""
    names = []
    for line in file.read_text().splitlines():
        if line.startswith("-r "):
            names += requirements(file.parent / line.removeprefix("-r "))
        elif line and not line.startswith("#"):
            names.append(line)
    return names


def with_all_they_need(names: list[str]) -> set[str]:
    """Return the packages, and what they need in turn on this machine."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        found.add(name)
        needed = [Requirement(text) for text in distribution(name).requires or ()]
        left += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def make_bare(folder: Path, requirements_file: str, *, with_finevote: bool = True) -> Path:
    """Fill a folder with links to what a file of `container/` lists, and to finevote."""
    folder.mkdir()
    for name in with_all_they_need(requirements(ROOT / "container" / requirements_file)):
        link_package(folder, name)
    if with_finevote:
        (folder / "finevote").symlink_to(PACKAGE)
        metadata = folder / "finevote-0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: finevote\nVersion: 0\n")
    return folder


def link_package(folder: Path, name: str) -> None:
    try:
        found = distribution(name)
    except PackageNotFoundError:
        return
    tops = {path.parts[0] for path in found.files or () if path.parts[0] not in {"..", "__pycache__"}}
    for top in tops:
        if not (folder / top).exists():
            (folder / top).symlink_to(Path(str(found.locate_file(top))))


def run_bare(folder: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with the packages of the folder and no others."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "SYSTEMROOT", "COVERAGE_RCFILE") if name in os.environ}
    return subprocess.run(
        [sys.executable, "-S", *map(str, arguments)],
        cwd=cwd,
        env=kept | {"PYTHONPATH": str(folder), "HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=120,
    )
