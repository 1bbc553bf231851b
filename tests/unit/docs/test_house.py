"""What the glossary and the architecture say about the code is true."""

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "layers/rlaas/python/rlaas"
GLOSSARY = (ROOT / "docs/glossary.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()


def find_code_names(text: str) -> list[str]:
    """The dotted names in the last column of the glossary's tables."""
    return re.findall(r"\| `([a-z_]+(?:\.\w+)*)` \|$", text, re.MULTILINE)


@pytest.mark.parametrize("name", find_code_names(GLOSSARY))
def test_every_word_of_the_glossary_is_where_the_glossary_says(name: str) -> None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            place: object = importlib.import_module("rlaas." + ".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            fields = getattr(place, "model_fields", {})
            assert part in fields or hasattr(place, part), name
            place = fields[part] if part in fields else getattr(place, part)
        return
    pytest.fail(f"there is no {name}")


def test_the_glossary_has_each_word_once() -> None:
    words = re.findall(r"^\| ([a-z][\w -]*) \|", GLOSSARY, re.MULTILINE)
    assert len(words) > 50
    assert len(set(words) - {"word"}) == len([word for word in words if word != "word"])


def test_every_room_and_every_function_is_in_the_architecture() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    functions = {path.parent.name for path in ROOT.glob("functions/*/handler.py")} - {
        "bootstrap",
        "find_entities",
        "learning_steps",
        "rollout_steps",
    }
    missing = {name for name in rooms | functions if not re.search(rf"\b{name}\b", ARCHITECTURE)}
    assert missing == set()


ERRORS = {"Conflict", "DependencyUnavailable", "Forbidden", "InvalidInput", "NotFound", "QuotaExceeded", "Unauthorized", "ValueError"}


def find_raising_functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, set[str]]]:
    """The public functions that raise errors by themselves, and which; validators of pydantic report theirs by
    field."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or function.name.startswith("_"):
            continue
        if any(isinstance(by, ast.Name) and by.id.endswith("_validator") for by in function.decorator_list):
            continue
        names = {
            statement.exc.func.id
            for statement in ast.walk(function)
            if isinstance(statement, ast.Raise) and isinstance(statement.exc, ast.Call) and isinstance(statement.exc.func, ast.Name)
        }
        if names & ERRORS:
            yield function, names & ERRORS


def test_a_public_function_that_raises_says_so() -> None:
    silent = [
        f"{path.relative_to(PACKAGE)}: {function.name} raises {', '.join(sorted(names))}"
        for path in PACKAGE.rglob("*.py")
        if path.parent.name not in ("api", "admin")  # entry points: they answer with errors
        for function, names in find_raising_functions(ast.parse(path.read_text()))
        if "Raises:" not in (ast.get_docstring(function) or "")
    ]
    assert silent == []


PARTICIPLES = frozenset(
    """
    told named taken acted begun begins pardoned found known asked held given said kept wanted shown written answered heard made counted
    came
    """.split()
)
STORED = {("experiments/sequential.py", "answered"), ("voices.py", "heard")}
"""Arguments that are called as a field is that lies in the tables."""


def find_names(text: str) -> Iterator[str]:
    """What a module calls its variables, arguments, attributes and functions; but for fields, which may be on the
    wire."""
    tree = ast.parse(text)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    fields = {id(statement.target) for node in classes for statement in node.body if isinstance(statement, ast.AnnAssign)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store) and id(node) not in fields:
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name


def test_what_holds_something_is_a_noun() -> None:
    folders = (PACKAGE, *(ROOT / name for name in ("functions", "infra", "training_jobs", "local", "benchmarks", "clients/python/src")))
    names = {
        (str(path.relative_to(folder)), name)
        for folder in folders
        for path in folder.rglob("*.py")
        for name in find_names(path.read_text())
        if name.strip("_") in PARTICIPLES
    }
    assert names == STORED
