"""CSV files of any tool: a column map says which column is what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlaas_sdk.imports.conversation import Answer, Prompt, prompt_of
from rlaas_sdk.imports.exchange import Exchange, Making, exchange_events, feedback, task_result
from rlaas_sdk.imports.identity import bound
from rlaas_sdk.imports.rows import JsonObject, RowRefused, first, moment_of, number_of, text_of

FIELDS = (
    "id", "occurred_at", "thread_id", "user_id", "system", "prompt", "messages", "text", "finish_reason", "input_tokens", "output_tokens",
    "latency_ms", "final_text", "action", "rating", "comment", "label", "tag",
)  # fmt: skip
"""What a column can be mapped to once."""
FAMILIES = ("inputs", "metadata", "metric", "task_result")
"""What columns can be mapped to by name, as in `inputs.question`."""
_FEEDBACK = ("final_text", "action", "rating", "comment", "label")
_KIND = {"final_text": "edit"}
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}


class MapRefused(ValueError):
    """A column map that cannot be used; the message says what was given and what to do."""


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """Which column holds each field: `{"text": "draft", "inputs.email": "incoming"}`."""

    columns: dict[str, str]

    @classmethod
    def parse(cls, pairs: Sequence[str]) -> ColumnMap:
        """From `field=column` texts. Raises: MapRefused."""
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
        """Raises: MapRefused when a mapped column is not in the file's header."""
        missing = [column for column in self.columns.values() if column not in header]
        if missing:
            raise MapRefused(f"{file} has no column {', '.join(map(repr, missing))}; its columns are {', '.join(map(repr, header))}")

    def events_of(self, row: JsonObject, making: Making, own_id: str) -> list[JsonObject]:
        """The events of one line. Raises: RowRefused."""
        cells: JsonObject = {field: row.get(column) for field, column in self.columns.items()}
        own_id = text_of(cells, "id") or own_id
        at = moment_of(cells, "occurred_at")
        text = text_of(cells, "text") or text_of(cells, "final_text")  # what a person wrote without a draft demonstrates
        tag = text_of(cells, "tag")
        exchange = Exchange(
            own_id=own_id,
            prompt=self._prompt(cells),
            answers=(Answer(text, text_of(cells, "finish_reason")),) if text is not None else (),
            asked_at=at,
            thread=text_of(cells, "thread_id"),
            user=text_of(cells, "user_id"),
            tags=(tag,) if tag else (),
            metadata={name: cells[f"metadata.{name}"] for name in self._family("metadata") if cells[f"metadata.{name}"]},
            usage=(number_of(cells, "input_tokens"), number_of(cells, "output_tokens")),
            latency_ms=number_of(cells, "latency_ms"),
        )
        interaction_id = making.identity.interaction(own_id)
        events = exchange_events(exchange, making)
        said = [field for field in _FEEDBACK if text_of(cells, field) is not None]
        metrics = [name for name in self._family("metric") if text_of(cells, f"metric.{name}") is not None]
        if (said or metrics) and text is None:
            raise RowRefused("no_answer", "the row has feedback and no text that it is about", param="text")
        for field in said:
            value = number_of(cells, field) if field == "rating" else text_of(cells, field)
            what: JsonObject = {"kind": _KIND.get(field, field), field: value}
            events.append(feedback(making, interaction_id, what, at=at, feedback_id=bound("fbk", interaction_id, field)))
        for name in metrics:
            what = {"kind": "metric", "metric": name, "value": _value(str(cells[f"metric.{name}"]))}
            events.append(feedback(making, interaction_id, what, at=at, feedback_id=bound("fbk", interaction_id, "metric", name)))
        for name in self._family("task_result"):
            result = text_of(cells, f"task_result.{name}")
            if result is not None:
                events.append(task_result(making, interaction_id, name, _value(result), at=at))
        return events

    def _family(self, family: str) -> list[str]:
        return [field.removeprefix(f"{family}.") for field in self.columns if field.startswith(f"{family}.")]

    def _prompt(self, cells: JsonObject) -> Prompt:
        inputs = {name: str(cells[f"inputs.{name}"] or "") for name in self._family("inputs")}
        if any(inputs.values()):
            return Prompt(inputs=inputs)
        prompt = prompt_of(first(cells, "messages"), param="messages") if first(cells, "messages") else None
        if prompt is None:
            asked = text_of(cells, "prompt")
            if asked is None:
                raise RowRefused("no_input", "the row's prompt is empty", param="prompt")
            prompt = Prompt(messages=[{"role": "user", "content": asked}])
        system = text_of(cells, "system")
        if system and prompt.messages is not None:
            return replace(prompt, messages=[{"role": "system", "content": system}, *prompt.messages])
        return prompt


def _value(text: str) -> bool | float | str:
    if text.lower() in _TRUTHS:
        return _TRUTHS[text.lower()]
    try:
        number = float(text)
    except ValueError:
        return text
    return number if number - number == 0 else text
