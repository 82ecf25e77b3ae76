import os
import subprocess
import sys
import zipfile

import pytest

from tests.house.repository import PACKAGE, ROOT


@pytest.mark.slow
def test_the_wheel_holds_the_package_with_its_recipes_templates_and_licence(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    patterns = ("*.py", "*.yaml", "py.typed", "*.html", "*.css", "*.js")
    source = {path for pattern in patterns for path in PACKAGE.rglob(pattern)}
    assert {path.relative_to(PACKAGE.parent).as_posix() for path in source} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
