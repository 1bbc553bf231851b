"""What the pages name exists: links, files, modules, make targets, paths of the API, names of the code, items and
states; and their prose is no wider than the code's."""

import importlib
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "layers/rlaas/python/rlaas"
FILES = [name for name in subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines() if (ROOT / name).is_file()]
PAGES = [name for name in FILES if name.endswith(".md")]
GUIDES = [name for name in PAGES if "/decisions/" not in name and name != "CHANGELOG.md"]
"""The pages that say what is so today; decisions also name what was given up."""
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
API = json.loads((ROOT / "docs/reference/openapi.json").read_text())["paths"]
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
FOLDERS = {name.split("/")[0] for name in FILES if "/" in name} | {path.name for path in PACKAGE.iterdir() if path.is_dir()}
OF_OTHERS = {"as_v2", "search_result", "set_tracing_disabled", "ROLLBACK_FAILED"}
"""An example of a name, and names of other people's APIs."""
SOURCES = (".py", ".ts", ".tsx", ".mjs", ".json", ".toml", ".lock", "Makefile")
WIDTH = 120


@cache
def list_words() -> frozenset[str]:
    """The words of the code, and the names of files."""
    texts = [Path(name).stem for name in FILES] + [read_page(name) for name in FILES if name.endswith(SOURCES)]
    return frozenset(word for text in texts for word in re.findall(r"\w+", text))


def read_page(name: str) -> str:
    return (ROOT / name).read_text()


def find_quoted(text: str) -> Iterator[str]:
    """The texts between backticks, without blocks of code."""
    yield from re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL).replace("\n", " "))


def make_anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    broken = set()
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", read_page(page)):
        path, _, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if target.suffix == ".md" and target.exists() else []
        if not target.exists() or (anchor and anchor not in map(make_anchor, headings)):
            broken.add(link)
    assert broken == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_file_exists(page: str) -> None:
    """Folders of the repository and of the package, and whatever has the ending of a file."""
    names = {name.split("/")[-1] for name in FILES}
    places = (ROOT, PACKAGE, PACKAGE.parent, (ROOT / page).parent)
    quoted = {text for text in find_quoted(read_page(page)) if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", text)}
    paths = {text for text in quoted if "/" in text and (text.split("/")[0] in FOLDERS or re.search(r"\.(py|json|mjs|md|lock)$", text))}
    files = {text for text in quoted - paths if re.search(r"\.py$", text)}
    assert {path for path in paths if not any((place / path).exists() for place in places)} | (files - names) == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_module_exists(page: str) -> None:
    missing = set()
    for name in {text for text in find_quoted(read_page(page)) if re.fullmatch(r"rlaas(\.\w+)+", text)}:
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            try:
                getattr(importlib.import_module(module), attribute)
            except (ModuleNotFoundError, AttributeError):
                missing.add(name)
    assert missing == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_exists(page: str) -> None:
    code = [*find_quoted(read_page(page)), *re.findall(r"^ {4}(.*)$", read_page(page), re.MULTILINE)]
    targets = {target for text in code for target in re.findall(r"(?:^|&& )make ([a-z][a-z-]*)", text)}
    assert targets - TARGETS == set()


@pytest.mark.parametrize("page", GUIDES)
def test_every_path_of_the_api_exists(page: str) -> None:
    patterns = [re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in API]
    paths = {path.rstrip(".,:") for path in re.findall(r"(?<![\w.])(/(?:v1|ofrep)/[\w/.:@<>{}$-]+)", read_page(page))}
    assert {path for path in paths if not any(pattern.fullmatch(path) for pattern in patterns)} <= {"/v1/admin"}


@pytest.mark.parametrize("page", GUIDES)
def test_every_name_with_an_underscore_is_in_the_code(page: str) -> None:
    named = {word for text in find_quoted(read_page(page)) for word in re.findall(r"(?<!\$)\b[A-Za-z]+(?:_[A-Za-z0-9]+)+\b", text)}
    assert named - list_words() - OF_OTHERS == set()


def test_the_diagram_of_the_tables_has_the_keys_of_the_code() -> None:
    [diagram] = re.findall(r"^erDiagram$(.*?)^```", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    code = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    assert set(re.findall(r"\b([A-Z]+)#", diagram)) - {"BUDGETS"} == set(re.findall(r"(?:\"|#)([A-Z]+)#", code))


@pytest.mark.parametrize("machine", ["learning", "rollout"])
def test_the_diagram_of_a_state_machine_has_its_states(machine: str) -> None:
    states = json.loads((ROOT / f"infra/state_machines/{machine}.asl.json").read_text())["States"].keys()
    [diagram] = re.findall(rf"{machine}\.asl\.json.*?^stateDiagram-v2$(.*?)^```", ARCHITECTURE, re.MULTILINE | re.DOTALL)
    names = set(re.findall(r"^    (\w+)(?::| -->)|--> (\w+)", diagram, re.MULTILINE))
    assert {name for pair in names for name in pair if name} <= states
    assert len(names) > 6


def list_prose(text: str) -> Iterator[str]:
    """The lines outside of blocks of code, tables, and links that cannot be broken."""
    for line in re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL).splitlines():
        if not line.startswith(("|", "    ")) and " " in line.strip("-* "):
            yield line


@pytest.mark.parametrize("page", PAGES)
def test_no_line_of_prose_is_wider_than_120_columns(page: str) -> None:
    assert [line for line in list_prose(read_page(page)) if len(line) > WIDTH] == []
