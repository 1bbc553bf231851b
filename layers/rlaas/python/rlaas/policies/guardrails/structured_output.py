"""The guardrail against answers that are not JSON of a given schema."""

import json
import re
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue, field_validator

from rlaas.ids import encode_canonical_json
from rlaas.policies.guardrails.guardrail import MAX_CHARACTERS, AnswerGuardrail, AnswerTexts, Find
from rlaas.policies.json_schema import MAX_LOOKS, compile_schema, count_looks, count_values
from rlaas.wire import Json

if TYPE_CHECKING:
    import jsonschema_rs

MAX_EXPLAINED = 16 * 1024
"""The most characters of an answer for which the reason says where it does not fit its schema."""
_FENCE = r"\s{0,100}```[A-Za-z0-9]{0,20}[ \t]{0,20}\r?\n(.*)\r?\n[ \t]{0,20}```\s{0,100}"


class StructuredOutput(AnswerGuardrail):
    """Acts unless the answer is JSON that fits `json_schema` (draft 2020-12; patterns without lookaround, references by
    `#/...` only, recursion along one path).

    `fences`: when the answer is JSON in one code fence, the fence is taken off (`unwrap`), or the answer does not fit
    (`refuse`). An answer that calls tools and has no text is not checked.
    """

    kind: Literal["json_schema"] = "json_schema"
    action: Literal["block", "regenerate", "flag"] = "regenerate"
    json_schema: dict[str, Json]
    fences: Literal["unwrap", "refuse"] = "unwrap"

    @field_validator("json_schema")
    @classmethod
    def _is_a_schema(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        compile_schema(encode_canonical_json(value))
        return value

    def look_at(self, answer: AnswerTexts) -> Find | None:
        """Why the answer does not fit: the place in the schema, without any of the text."""
        text = answer.texts[0]
        if answer.calls_tools and not text:
            return None
        schema = encode_canonical_json(self.json_schema)
        validator = compile_schema(schema)
        if count_values(text) * count_looks(schema) > MAX_LOOKS:
            return Find("too large to be checked with the schema")
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
            return None if validator.is_valid(value) else Find("does not fit the schema" + _locate_misfit(validator, value, len(text)))
        except (ValueError, RecursionError):  # half a surrogate pair, or hundreds of levels, can be parsed but not validated
            return Find("not JSON")

    def unwrap(self, text: str) -> str | None:
        """The JSON in the one code fence that is all of `text`; None without one, or when fences are refused."""
        if self.fences == "refuse" or len(text) > MAX_CHARACTERS:
            return None
        match = re.fullmatch(_FENCE, text, re.DOTALL)
        if match is None:
            return None
        try:
            json.loads(match[1])
        except (ValueError, RecursionError):
            return None
        return str(match[1])


def _locate_misfit(validator: "jsonschema_rs.Validator", value: object, characters: int) -> str:
    """Where the answer first fails the schema; empty for long answers, because an error describes everything that
    failed below it, which can take quadratic time."""
    if characters > MAX_EXPLAINED:
        return ""
    import jsonschema_rs

    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return " at " + "/".join(map(str, error.schema_path))
    return ""


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
