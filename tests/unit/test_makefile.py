import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_make_finds_the_packages_that_pytest_finds() -> None:
    [line] = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("export PYTHONPATH := ")]
    folders = line.removeprefix("export PYTHONPATH := ").replace("$(CURDIR)", str(ROOT)).split(":")
    pytest = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["pythonpath"]
    assert {Path(folder) for folder in folders} == {ROOT / folder for folder in pytest}
