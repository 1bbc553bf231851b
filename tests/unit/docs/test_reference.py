from collections.abc import Iterator
from typing import Any

from docs.reference.generate import documents, openapi


def test_the_checked_in_reference_is_what_the_models_say() -> None:
    stale = [path.name for path, text in documents().items() if not path.exists() or path.read_text() != text]
    assert stale == [], "run: python docs/reference/generate.py"


def test_every_success_answer_has_a_type() -> None:
    document: Any = openapi()
    schemas = {
        f"{method} {path} {status}": content["schema"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        for status, answer in operation["responses"].items()
        for content in answer["content"].values()
        if status.startswith("2")
    }
    assert len(schemas) > 60
    assert [
        place for place, schema in schemas.items() if not schema.keys() & {"$ref", "anyOf", "properties"} and schema["type"] == "object"
    ] == []
    names = set(document["components"]["schemas"])
    assert {reference for reference in references(document) if reference.split("/")[3] not in names} == set()


def references(node: Any) -> Iterator[str]:
    """Every `$ref` below `node`."""
    if isinstance(node, list):
        for item in node:
            yield from references(item)
    elif isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
