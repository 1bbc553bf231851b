"""The guardrail of answers that must be JSON of a schema."""

import json
import re
from typing import TYPE_CHECKING, Literal

from pydantic import JsonValue, field_validator

from rlaas.ids import canonical_json
from rlaas.policies.guardrails.guardrail import MAX_CHARACTERS, AnswerGuardrail, AnswerTexts, Find
from rlaas.policies.json_schema import MAX_LOOKS, looks, schema_validator, values_in
from rlaas.wire import Json

if TYPE_CHECKING:
    import jsonschema_rs

MAX_EXPLAINED = 16 * 1024
"""Characters of an answer for which the reason says where it does not fit its schema."""
_FENCE = r"\s{0,100}```[A-Za-z0-9]{0,20}[ \t]{0,20}\r?\n(.*)\r?\n[ \t]{0,20}```\s{0,100}"


class StructuredOutput(AnswerGuardrail):
    """The answer must be JSON that fits `json_schema` (draft 2020-12; patterns without lookaround, references by
    `#/...` only, recursion along one path).

    `fences`: an answer that is one code fence around its JSON is taken without the fence (`unwrap`), or does not fit
    (`refuse`). An answer without text that calls tools is not looked at.
    """

    kind: Literal["json_schema"] = "json_schema"
    action: Literal["block", "regenerate", "flag"] = "regenerate"
    json_schema: dict[str, Json]
    fences: Literal["unwrap", "refuse"] = "unwrap"

    @field_validator("json_schema")
    @classmethod
    def _is_a_schema(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        schema_validator(canonical_json(value))
        return value

    def look_at(self, answer: AnswerTexts) -> Find | None:
        """Why the answer is not JSON of the schema: where in the schema, never what stands in the text."""
        text = answer.texts[0]
        if answer.calls_tools and not text:
            return None
        schema = canonical_json(self.json_schema)
        validator = schema_validator(schema)
        if values_in(text) * looks(schema) > MAX_LOOKS:
            return Find("too large to be held against the schema")
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
            return None if validator.is_valid(value) else Find("does not fit the schema" + _misfit(validator, value, len(text)))
        except (ValueError, RecursionError):  # half a surrogate pair or hundreds of levels parse, and cannot be validated
            return Find("not JSON")

    def unwrap(self, text: str) -> str | None:
        """The JSON that one code fence around all of `text` holds; None where there is none, or fences are refused."""
        if self.fences == "refuse" or len(text) > MAX_CHARACTERS:
            return None
        fenced = re.fullmatch(_FENCE, text, re.DOTALL)
        if fenced is None:
            return None
        try:
            json.loads(fenced[1])
        except (ValueError, RecursionError):
            return None
        return str(fenced[1])


def _misfit(validator: "jsonschema_rs.Validator", value: object, characters: int) -> str:
    """Where the first misfit is, for answers of ordinary length: an error tells of all that failed below it, which can
    be quadratic."""
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
