"""Files and functions stay as small as the conventions have them."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDERS = ("layers/rlaas/python/rlaas", "functions", "training_jobs", "local", "clients/python/src")
FILE_LINES = 400
FUNCTION_LINES = 60


def read_sources(folder: str) -> Iterator[tuple[str, str]]:
    """Paths of a folder's Python files from the repository's root, and their text."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        yield str(file.relative_to(ROOT)), file.read_text()


def list_functions(text: str) -> Iterator[tuple[str, int]]:
    """Names of all functions and methods, and their lines, decorators apart."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_no_file_has_over_400_lines() -> None:
    lines = {path: len(text.splitlines()) for folder in FOLDERS for path, text in read_sources(folder)}
    assert len(lines) > 300
    assert {path: count for path, count in lines.items() if count > FILE_LINES} == {}


def test_no_function_has_over_60_lines() -> None:
    lines = [(f"{path}:{name}", count) for folder in FOLDERS for path, text in read_sources(folder) for name, count in list_functions(text)]
    assert len(lines) > 1000
    assert [(name, count) for name, count in lines if count > FUNCTION_LINES] == []
