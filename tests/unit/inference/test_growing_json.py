import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.inference.growing_json import GrowingObject

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='a"\\{}[]é', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='a"\\{}', max_size=4), inner, max_size=3),
)


@given(value=st.dictionaries(st.text(alphabet='k"\\}', max_size=4), VALUES, max_size=4), cuts=st.lists(st.integers(1, 9), max_size=30))
def test_an_object_has_ended_with_its_last_bracket_and_not_before(value: dict[str, object], cuts: list[int]) -> None:
    text, place, arguments = json.dumps(value, ensure_ascii=False), 0, GrowingObject()
    for cut in [*cuts, len(text)]:
        assert not arguments.has_ended or place >= len(text)
        arguments.add(text[place : place + cut])
        place += cut
    assert arguments.has_ended
    assert arguments.text == text


@pytest.mark.parametrize("text", ["[1]", "{,}", "}", "x", '{"a": 1', '"{}"', "{" * 100_000, '{"a": "}'])
def test_what_is_no_whole_object_has_not_ended(text: str) -> None:
    arguments = GrowingObject()
    for character in text:
        arguments.add(character)
    assert not arguments.has_ended
