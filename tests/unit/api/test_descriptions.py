"""Descriptions in the OpenAPI document are those of docstrings, however these are wrapped."""

import textwrap

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


def test_descriptions_of_operations_and_fields_are_paragraphs_on_one_line() -> None:
    texts = [text for path, text in documents().items() if path.name == "openapi.json"]
    assert "`settings` as in `RolloutSettings`. A `dryrun` starts nothing and answers with the plan, even one" in texts[0]
    assert "the first page is entered into the audit." in texts[0]
