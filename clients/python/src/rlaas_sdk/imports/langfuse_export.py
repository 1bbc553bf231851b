"""Langfuse: observations, traces and scores, from the UI's export, the API and the blob storage export (JSON, JSON
Lines, CSV).

Field names are camelCase in the UI and the API and snake_case in the blob storage export; both are read. Generations
become interactions and outputs, scores become feedback on the output they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from rlaas_sdk.imports.conversation import answers_of, prompt_of
from rlaas_sdk.imports.exchange import Exchange, Making, exchange_events, feedback
from rlaas_sdk.imports.identity import metric_name
from rlaas_sdk.imports.rows import Json, JsonObject, RowRefused, RowSkipped, decoded, first, moment_of, number_of, object_of, text_of

_OBSERVATION_TYPES = {
    "SPAN", "GENERATION", "EVENT", "AGENT", "TOOL", "CHAIN", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL",
}  # fmt: skip
_TRUTHS = {"true": 1.0, "false": 0.0}
_TEXT_KINDS: dict[str, tuple[str, str, int | None]] = {
    "CORRECTION": ("edit", "final_text", None),
    "TEXT": ("comment", "comment", None),
    "CATEGORICAL": ("label", "label", 128),
}
_NOISE = {"resourceAttributes", "scope", "attributes"}
_LIST_COLUMNS = {
    "input", "output", "metadata", "tags", "traceTags", "comments", "observations", "scores", "toolCalls", "toolCallNames",
    "tool_calls", "tool_call_names", "toolDefinitions", "tool_definitions", "availableTools",
}  # fmt: skip
"""Columns of an observation or a trace that hold lists; the UI's export writes every other list under a score's
name."""


class TraceIndex(Protocol):
    """Remembers the last generation of each trace, which a score of the whole trace is about."""

    def note(self, trace_id: str, started_at: str, own_id: str) -> None:
        """Generation `own_id` of the trace began at `started_at` (RFC 3339); the latest is kept."""
        ...

    def last(self, trace_id: str) -> str | None:
        """The trace's last generation so far."""
        ...


def parts_of(row: JsonObject) -> list[JsonObject]:
    """A row taken apart, so that one bad part does not spoil the others.

    A trace with its observations becomes each observation, with what the trace knows, then the trace's scores; an
    observation or a trace with a column per score becomes itself and a score for each value.
    """
    trace = object_of(row, "trace") or row
    if "timestamp" not in trace or first(trace, "dataType", "data_type") is not None:
        return [row, *_flattened_scores(row)] if row.get("type") == "GENERATION" else [row]
    context: JsonObject = {"traceId": trace.get("id"), **{name: trace[name] for name in ("sessionId", "userId", "tags") if name in trace}}
    observations = [item for item in _list(row.get("observations")) if isinstance(item, dict)]
    generations = sorted((item for item in observations if item.get("type") == "GENERATION"), key=lambda item: str(item.get("startTime")))
    scores = [item for item in _list(trace.get("scores")) if isinstance(item, dict)]
    parts = [{**context, **_given(generation)} for generation in generations] or [trace, *_flattened_scores(trace)]
    return [*parts, *({"traceId": trace.get("id"), **_given(score)} for score in scores)]


def _flattened_scores(row: JsonObject) -> list[JsonObject]:
    return [
        {
            "id": f"{row.get('id')} {name} {n}",
            "observationId": row.get("id"),
            "timestamp": first(row, "startTime", "timestamp"),
            "name": name,
            "dataType": _data_type(value),
            "value": value,
        }
        for name in sorted(row.keys() - _LIST_COLUMNS)
        for n, value in enumerate(_list(row[name]))
        if isinstance(value, str | int | float)
    ]


def _given(row: JsonObject) -> JsonObject:
    return {name: value for name, value in row.items() if value is not None}


@dataclass(frozen=True, slots=True)
class LangfuseReader:
    """Reads rows of Langfuse's exports. Scores named in `ratings` are people's ratings in [0, 1]; other numbers are
    metrics."""

    traces: TraceIndex
    ratings: frozenset[str] = field(default_factory=frozenset)

    def events_of(self, row: JsonObject, making: Making, own_id: str) -> list[JsonObject]:
        """The events of one part of a row. Raises: RowRefused, RowSkipped."""
        if first(row, "dataType", "data_type") is not None:
            return self._score(row, making)
        kind = row.get("type")
        if isinstance(kind, str) and kind in _OBSERVATION_TYPES:
            if kind != "GENERATION":
                raise RowSkipped("not_a_generation")
            return self._generation(row, making)
        if "timestamp" in row and "id" in row:
            return self._generation({**row, "startTime": row["timestamp"]}, making)
        raise RowRefused("unknown_shape", "not an observation (type), a score (dataType) or a trace (timestamp) of Langfuse")

    def _generation(self, row: JsonObject, making: Making) -> list[JsonObject]:
        own_id = text_of(row, "id")
        if own_id is None:
            raise RowRefused("no_id", "id is empty", param="id")
        if row.get("level") == "ERROR":
            raise RowSkipped("failed_call")
        asked_at = moment_of(row, "startTime", "start_time")
        answers = answers_of(row.get("output"), param="output")
        if not answers:
            raise RowSkipped("no_answer")
        usage = object_of(row, "usageDetails", "usage_details", "usage")
        tokens_in = number_of(usage, "input", "promptTokens", "prompt_tokens")
        tokens_out = number_of(usage, "output", "completionTokens", "completion_tokens")
        exchange = Exchange(
            own_id=own_id,
            prompt=prompt_of(row.get("input"), param="input"),
            answers=tuple(answers),
            asked_at=asked_at,
            answered_at=moment_of(row, "endTime", "end_time"),
            thread=text_of(row, "sessionId", "session_id", "traceId", "trace_id") or own_id,
            user=text_of(row, "userId", "user_id"),
            tags=_texts(first(row, "tags", "traceTags")),
            metadata=_metadata(row),
            usage=(
                tokens_in if tokens_in is not None else number_of(row, "promptTokens", "inputUsage", "inputTokens"),
                tokens_out if tokens_out is not None else number_of(row, "completionTokens", "outputUsage", "outputTokens"),
            ),
        )
        trace_id = text_of(row, "traceId", "trace_id") or own_id
        self.traces.note(trace_id, asked_at.isoformat() if asked_at else "", own_id)
        return exchange_events(exchange, making)

    def _score(self, row: JsonObject, making: Making) -> list[JsonObject]:
        score_id, name = text_of(row, "id"), text_of(row, "name")
        if score_id is None or name is None:
            raise RowRefused("no_id", "a score has an id and a name", param="id" if score_id is None else "name")
        subject = object_of(row, "subject")
        kind = str(first(subject, "type", "kind", "objectType") or "").lower()
        observation_id = text_of(row, "observationId", "observation_id") or (text_of(subject, "id") if kind == "observation" else None)
        trace_id = text_of(row, "traceId", "trace_id") or (text_of(subject, "id") if kind == "trace" else None)
        if observation_id is None and trace_id is None:
            raise RowSkipped("score_of_session_or_run")
        about = observation_id or self.traces.last(trace_id or "")
        if about is None:
            message = "the score is of a trace none of whose generations was seen; give the observations' file before the scores'"
            raise RowRefused("trace_not_seen", message, param="traceId")
        interaction_id = making.identity.interaction(about)
        at = moment_of(row, "timestamp", "createdAt", "created_at")
        data_type = str(first(row, "dataType", "data_type"))
        text = text_of(row, "stringValue", "string_value", "longStringValue", "long_string_value")
        what = self._said(name, data_type, row.get("value"), text)
        feedback_id = making.identity.loose("fbk", score_id)
        events = [feedback(making, interaction_id, what, at=at, feedback_id=feedback_id)]
        remark = text_of(row, "comment")
        if remark:
            said: JsonObject = {"kind": "comment", "comment": remark, "metadata": {"score": name}}
            events.append(feedback(making, interaction_id, said, at=at, feedback_id=making.identity.loose("fbk", f"{score_id} comment")))
        return events

    def _said(self, name: str, data_type: str, value: Json, text: str | None) -> JsonObject:
        """The fields of feedback that a score's value becomes."""
        metadata: JsonObject = {"score": name}
        text = text if text is not None else value if isinstance(value, str) else None
        if data_type in _TEXT_KINDS:
            if not text:
                raise RowRefused("bad_score", "the score has no text", param="stringValue")
            kind, field, longest = _TEXT_KINDS[data_type]
            return {"kind": kind, field: text[:longest], "metadata": metadata}
        number = _truth(value, text) if data_type == "BOOLEAN" else None
        if number is None:
            number = number_of({"value": value}, "value")
        if number is None:
            raise RowRefused("bad_score", "the score has no value", param="value")
        if name in self.ratings:
            if not 0 <= number <= 1:
                raise RowRefused("bad_rating", "a rating is a number in [0, 1]; import this score as a metric instead", param="value")
            return {"kind": "rating", "rating": number, "metadata": metadata}
        if not metric_name(name):
            raise RowRefused("bad_score", "the score's name has no letter a-z or digit to name a metric by", param="name")
        return {"kind": "metric", "metric": metric_name(name), "value": bool(number) if data_type == "BOOLEAN" else number}


def _truth(value: Json, text: str | None) -> float | None:
    return float(value) if isinstance(value, bool) else _TRUTHS.get((text or "").lower())


def _data_type(value: Json) -> str:
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in _TRUTHS):
        return "BOOLEAN"
    return "CATEGORICAL" if isinstance(value, str) else "NUMERIC"


def _list(value: Json) -> list[Json]:
    value = decoded(value)
    return value if isinstance(value, list) else []


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(item for item in _list(value) if isinstance(item, str))


def _metadata(row: JsonObject) -> JsonObject:
    kept: JsonObject = {}
    for name, fields in (
        ("model", ("model", "providedModelName", "provided_model_name")),
        ("trace_id", ("traceId", "trace_id")),
        ("name", ("name",)),
        ("environment", ("environment",)),
        ("prompt_name", ("promptName", "prompt_name")),
        ("prompt_version", ("promptVersion", "prompt_version")),
    ):
        if value := text_of(row, *fields):
            kept[name] = value
    own = {key: value for key, value in object_of(row, "metadata").items() if key not in _NOISE}
    return {**kept, "source_metadata": own} if own else kept
