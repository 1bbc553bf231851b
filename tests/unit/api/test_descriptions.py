"""Descriptions in the OpenAPI document are those of docstrings, however these are wrapped."""

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from docs.reference.generate import documents, join_lines

PARAGRAPH = "A rollout of `policy_id` to start; `settings` as in `RolloutSettings`. A `dryrun` starts nothing and answers with the plan."


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_description_does_not_depend_on_the_width_of_its_docstring(width: int) -> None:
    item = textwrap.fill(PARAGRAPH, width, initial_indent="- ", subsequent_indent="  ")
    text = "\n".join([textwrap.fill(PARAGRAPH, width), "", item, item, "", textwrap.fill(PARAGRAPH, width)])
    assert join_lines(text).split("\n") == [PARAGRAPH, "", f"- {PARAGRAPH}", f"- {PARAGRAPH}", "", PARAGRAPH]


def test_indented_code_and_numbered_items_keep_their_lines() -> None:
    text = "Such as\n\n    first = 1\n    second = 2\n\n1. one\n2. two"
    assert join_lines(text) == text


def test_no_description_breaks_a_line_inside_a_paragraph() -> None:
    for path, text in documents().items():
        descriptions = list(list_descriptions(json.loads(text)))
        assert descriptions, path
        assert [description for description in descriptions if description != join_lines(description)] == []


def list_descriptions(node: Any) -> Iterator[str]:
    """Every description below `node`."""
    if isinstance(node, list):
        for item in node:
            yield from list_descriptions(item)
    elif isinstance(node, dict):
        if isinstance(node.get("description"), str):
            yield node["description"]
        for value in node.values():
            yield from list_descriptions(value)
