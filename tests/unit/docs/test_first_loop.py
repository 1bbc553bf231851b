"""docs/first-loop.md: each call that it names is one of the API, and each body is one that the API takes."""

import json
import re
from pathlib import Path

import jsonschema_rs
import pytest

ROOT = Path(__file__).parents[3]
API = json.loads((ROOT / "docs/reference/openapi.json").read_text())
CALLS = re.findall(r"`(GET|PUT|POST) \$URL/v1/([^`?]+)[^`]*`(?:[^`]* with\s+`(\{[^`]*\})`)?", (ROOT / "docs/first-loop.md").read_text())


def test_the_guide_names_calls() -> None:
    assert len(CALLS) >= 9


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_a_call_of_the_guide_is_one_that_the_api_takes(method: str, path: str, body: str) -> None:
    operation = next(
        item[method.lower()]
        for template, item in API["paths"].items()
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), f"/v1/{path}")
    )
    if body:
        asked = operation["requestBody"]["content"]["application/json"]["schema"]
        jsonschema_rs.validate({**asked, "components": API["components"]}, json.loads(body))
