"""CSV files of any tool: a column map says which column holds which field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlaas_sdk.imports.conversation import LoggedAnswer, LoggedPrompt, read_prompt
from rlaas_sdk.imports.exchange import Exchange, ImportContext, build_exchange_events, build_feedback, build_task_result
from rlaas_sdk.imports.identity import make_bound_id
from rlaas_sdk.imports.rows import JsonObject, RowRefused, find_first, read_moment, read_number, read_text

FIELDS = tuple(
    """
    id occurred_at thread_id user_id system prompt messages text finish_reason input_tokens output_tokens latency_ms final_text action
    rating comment label tag
    """.split()
)
"""The fields that one column each can be mapped to."""
FAMILIES = ("inputs", "metadata", "metric", "task_result")
"""The families of fields that columns can be mapped to by name, as in `inputs.question`."""
_FEEDBACK = ("final_text", "action", "rating", "comment", "label")
_KIND = {"final_text": "edit"}
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


class MapRefused(ValueError):
    """The column map cannot be used; the message says what was given and what to do."""


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Which column holds each field: `{"text": "draft", "inputs.email": "incoming"}`."""

    columns: dict[str, str]

    @classmethod
    def parse(cls, pairs: Sequence[str]) -> ColumnMap:
        """The map in texts of the form `field=column`. Raises: MapRefused."""
        columns: dict[str, str] = {}
        for pair in pairs:
            field, equals, column = pair.partition("=")
            family, _, name = field.partition(".")
            if not equals or not column or (field not in FIELDS and not (family in FAMILIES and name)):
                families = ", ".join(f"{family}.NAME" for family in FAMILIES)
                raise MapRefused(f"--map {pair!r} is not FIELD=COLUMN; FIELD is one of {', '.join(FIELDS)}, {families}")
            if field in columns:
                raise MapRefused(f"--map gives {field!r} twice: {columns[field]!r} and {column!r}; keep one")
            columns[field] = column
        if not columns.keys() & {"prompt", "messages"} and not any(field.startswith("inputs.") for field in columns):
            raise MapRefused("the map names no prompt; add --map prompt=COLUMN, messages=COLUMN (JSON) or inputs.NAME=COLUMN")
        return cls(columns)

    def check(self, header: Sequence[str], file: str) -> None:
        """Check that every mapped column is in the file's header. Raises: MapRefused."""
        missing = [column for column in self.columns.values() if column not in header]
        if missing:
            raise MapRefused(f"{file} has no column {', '.join(map(repr, missing))}; its columns are {', '.join(map(repr, header))}")

    def build_events(self, row: JsonObject, context: ImportContext, own_id: str) -> list[JsonObject]:
        """The events of one line. Raises: RowRefused."""
        cells: JsonObject = {field: row.get(column) for field, column in self.columns.items()}
        own_id = read_text(cells, "id") or own_id
        at = read_moment(cells, "occurred_at")
        text = read_text(cells, "text") or read_text(cells, "final_text")  # a text that a person wrote without a draft is a demonstration
        tag = read_text(cells, "tag")
        exchange = Exchange(
            own_id=own_id,
            prompt=self._read_prompt(cells),
            answers=(LoggedAnswer(text, read_text(cells, "finish_reason")),) if text is not None else (),
            asked_at=at,
            thread=read_text(cells, "thread_id"),
            user=read_text(cells, "user_id"),
            tags=(tag,) if tag else (),
            metadata={name: cells[f"metadata.{name}"] for name in self._list_names("metadata") if cells[f"metadata.{name}"]},
            usage=(read_number(cells, "input_tokens"), read_number(cells, "output_tokens")),
            latency_ms=read_number(cells, "latency_ms"),
        )
        interaction_id = context.identity.make_interaction_id(own_id)
        events = build_exchange_events(exchange, context)
        feedback_fields = [field for field in _FEEDBACK if read_text(cells, field) is not None]
        metrics = [name for name in self._list_names("metric") if read_text(cells, f"metric.{name}") is not None]
        if (feedback_fields or metrics) and text is None:
            raise RowRefused("no_answer", "the row has feedback but no text that the feedback is about", param="text")
        for field in feedback_fields:
            value = read_number(cells, field) if field == "rating" else read_text(cells, field)
            content: JsonObject = {"kind": _KIND.get(field, field), field: value}
            feedback_id = make_bound_id("fbk", interaction_id, field)
            events.append(build_feedback(context, interaction_id, content, at=at, feedback_id=feedback_id))
        for name in metrics:
            content = {"kind": "metric", "metric": name, "value": _parse_value(str(cells[f"metric.{name}"]))}
            feedback_id = make_bound_id("fbk", interaction_id, "metric", name)
            events.append(build_feedback(context, interaction_id, content, at=at, feedback_id=feedback_id))
        for name in self._list_names("task_result"):
            result = read_text(cells, f"task_result.{name}")
            if result is not None:
                events.append(build_task_result(context, interaction_id, name, _parse_value(result), at=at))
        return events

    def _list_names(self, family: str) -> list[str]:
        return [field.removeprefix(f"{family}.") for field in self.columns if field.startswith(f"{family}.")]

    def _read_prompt(self, cells: JsonObject) -> LoggedPrompt:
        inputs = {name: str(cells[f"inputs.{name}"] or "") for name in self._list_names("inputs")}
        if any(inputs.values()):
            return LoggedPrompt(inputs=inputs)
        prompt = read_prompt(find_first(cells, "messages"), param="messages") if find_first(cells, "messages") else None
        if prompt is None:
            prompt_text = read_text(cells, "prompt")
            if prompt_text is None:
                raise RowRefused("no_input", "the row's prompt is empty", param="prompt")
            prompt = LoggedPrompt(messages=[{"role": "user", "content": prompt_text}])
        system = read_text(cells, "system")
        if system and prompt.messages is not None:
            return replace(prompt, messages=[{"role": "system", "content": system}, *prompt.messages])
        return prompt


def _parse_value(text: str) -> bool | float | str:
    if text.lower() in _TRUTHS:
        return _TRUTHS[text.lower()]
    try:
        number = float(text)
    except ValueError:
        return text
    return number if number - number == 0 else text
