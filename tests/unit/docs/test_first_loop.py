"""Each call in the guides is a call of the API, with a valid body."""

import json
import re
from pathlib import Path

import jsonschema_rs
import pytest

ROOT = Path(__file__).parents[3]
API = json.loads((ROOT / "docs/reference/openapi.json").read_text())
GUIDES = "\n".join((ROOT / "docs" / name).read_text() for name in ("first-loop.md", "decisions-explained.md"))
CALLS = re.findall(r"`(GET|PUT|POST) \$URL/v1/([^`?]+)[^`]*`(?:[^`]* with\s+`(\{[^`]*\})`)?", GUIDES)
CALLS += re.findall(r"^    (PUT) \$URL/v1/(\S+)\s+(\{.*\})$", GUIDES, re.MULTILINE)


def test_the_guide_names_calls() -> None:
    assert len(CALLS) >= 11


@pytest.mark.parametrize(("method", "path", "body"), CALLS)
def test_a_call_of_the_guide_is_one_that_the_api_takes(method: str, path: str, body: str) -> None:
    operation = next(
        item[method.lower()]
        for template, item in API["paths"].items()
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), f"/v1/{path}")
    )
    if body:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        jsonschema_rs.validate({**schema, "components": API["components"]}, json.loads(body))
