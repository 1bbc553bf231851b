"""What the OpenAPI document declares that operations answer, and whether they do."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs

_DOCUMENT: dict[str, Any] = json.loads((Path(__file__).parents[1] / "docs" / "reference" / "openapi.json").read_text())


def check_answer(method: str, path: str, status: int, content: object) -> None:
    """Fail where a success answer is not what the document declares for that operation and status."""
    if not 200 <= status < 300:
        return
    template = _template(path)
    declared = _DOCUMENT["paths"][template][method.lower()]["responses"]
    assert str(status) in declared, f"{method} {template} answered {status}, which the document does not declare"
    faults = [
        f"{list(fault.instance_path)}: {fault.message}" for fault in _validator(template, method.lower(), str(status)).iter_errors(content)
    ]
    assert faults == [], f"{method} {template} answered {status} with {content}"


def _template(path: str) -> str:
    """The document's path that `path` fits, the one with the fewest parameters where several do."""
    fitting = [template for template in _DOCUMENT["paths"] if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)]
    return min(fitting, key=lambda template: template.count("{"))


@cache
def _validator(template: str, method: str, status: str) -> jsonschema_rs.Validator:
    schema = _DOCUMENT["paths"][template][method]["responses"][status]["content"]["application/json"]["schema"]
    return jsonschema_rs.Draft202012Validator({**schema, "components": _DOCUMENT["components"]}, validate_formats=True)
