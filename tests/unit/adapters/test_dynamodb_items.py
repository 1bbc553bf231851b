import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from rlaas.adapters.aws.dynamodb_items import from_item, to_item
from rlaas.errors import InvalidInput

NUMBERS = st.integers(-(10**37), 10**37) | st.floats(1e-100, 1e100) | st.just(0.0)
VALUES = st.recursive(
    st.none() | st.booleans() | st.text() | NUMBERS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1), inner, max_size=4),
    max_leaves=10,
)


@given(VALUES.filter(lambda value: value is not None))
def test_what_fits_comes_back_as_it_was(value: JsonValue) -> None:
    assert from_item(to_item({"metadata": value})) == {"metadata": value}


def nested(levels: int) -> JsonValue:
    value: JsonValue = json.loads("[" * levels + "]" * levels)
    return value


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ({"ratio": 1e-200}, "metadata.ratio"),
        ({"sizes": [1, 1e200]}, "metadata.sizes.1"),
        ({"count": 10**40 + 1}, "metadata.count"),
        ({"a": {"": 1}}, "metadata.a"),
        (nested(40), "metadata"),
    ],
)
def test_what_the_table_cannot_hold_is_refused_by_its_path(value: JsonValue, param: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        to_item({"metadata": value})
    assert refused.value.param == param
