import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_make_finds_the_packages_that_pytest_finds() -> None:
    [line] = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("export PYTHONPATH := ")]
    folders = line.removeprefix("export PYTHONPATH := ").replace("$(CURDIR)", str(ROOT)).split(":")
    pytest = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["pythonpath"]
    assert {Path(folder) for folder in folders} == {ROOT / folder for folder in pytest}


def test_ci_checks_the_python_package_with_tools_of_one_version() -> None:
    makefile = (ROOT / "Makefile").read_text()
    made = re.findall(r"^\s*make ([a-z-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert "test-package" in made
    assert [target for target in made if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []
    [recipe] = re.findall(r"^test-package:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    [tools] = re.findall(r"pip install --quiet (.+)", recipe)
    assert all(re.fullmatch(r"[a-z-]+==[0-9.]+", tool) for tool in tools.split())
    assert "twine check --strict" in recipe
    assert "check-wheel-contents .rlaas" in recipe
