"""Langfuse: observations, traces and scores, from the UI's export, the API and the blob storage export (JSON, JSON
Lines, CSV).

Field names are camelCase in the UI and the API and snake_case in the blob storage export; both are read. Generations
become interactions and outputs, scores become feedback on the output they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from rlaas_sdk.imports.conversation import read_answers, read_prompt
from rlaas_sdk.imports.exchange import Exchange, ImportContext, build_exchange_events, build_feedback
from rlaas_sdk.imports.identity import make_metric_name
from rlaas_sdk.imports.rows import (
    Json,
    JsonObject,
    RowRefused,
    RowSkipped,
    decode_cell,
    find_first,
    read_moment,
    read_number,
    read_object,
    read_text,
)

_OBSERVATION_TYPES = set("SPAN GENERATION EVENT AGENT TOOL CHAIN RETRIEVER EVALUATOR EMBEDDING GUARDRAIL".split())
_TRUTHS = {"true": 1.0, "false": 0.0}
_TEXT_KINDS: dict[str, tuple[str, str, int | None]] = {
    "CORRECTION": ("edit", "final_text", None),
    "TEXT": ("comment", "comment", None),
    "CATEGORICAL": ("label", "label", 128),
}
_NOISE = {"resourceAttributes", "scope", "attributes"}
_LIST_COLUMNS = set(
    """
    input output metadata tags traceTags comments observations scores toolCalls toolCallNames tool_calls tool_call_names toolDefinitions
    tool_definitions availableTools
    """.split()
)
"""Columns of an observation or a trace that hold lists; the UI's export writes every other list under a score's
name."""


class TraceIndex(Protocol):
    """Remembers the last generation of each trace: a score of a whole trace is about that one."""

    def note(self, trace_id: str, started_at: str, own_id: str) -> None:
        """Remember the generation `own_id`, which began at `started_at` (RFC 3339), where it is the trace's latest."""
        ...

    def find_last(self, trace_id: str) -> str | None:
        """The id of the trace's last generation so far; None where the trace has none."""
        ...


def split_parts(row: JsonObject) -> list[JsonObject]:
    """Split a row, so that one bad part does not spoil the others.

    A trace with observations becomes each generation among them, with the trace's fields added, then the trace's
    scores. An observation or a trace with a column per score becomes itself and a score for each value.
    """
    trace = read_object(row, "trace") or row
    if "timestamp" not in trace or find_first(trace, "dataType", "data_type") is not None:
        return [row, *_build_column_scores(row)] if row.get("type") == "GENERATION" else [row]
    trace_fields: JsonObject = {
        "traceId": trace.get("id"),
        **{name: trace[name] for name in ("sessionId", "userId", "tags") if name in trace},
    }
    observations = [item for item in _read_list(row.get("observations")) if isinstance(item, dict)]
    generations = sorted((item for item in observations if item.get("type") == "GENERATION"), key=lambda item: str(item.get("startTime")))
    scores = [item for item in _read_list(trace.get("scores")) if isinstance(item, dict)]
    parts = [{**trace_fields, **_drop_nulls(generation)} for generation in generations] or [trace, *_build_column_scores(trace)]
    return [*parts, *({"traceId": trace.get("id"), **_drop_nulls(score)} for score in scores)]


def _build_column_scores(row: JsonObject) -> list[JsonObject]:
    return [
        {
            "id": f"{row.get('id')} {name} {n}",
            "observationId": row.get("id"),
            "timestamp": find_first(row, "startTime", "timestamp"),
            "name": name,
            "dataType": _infer_data_type(value),
            "value": value,
        }
        for name in sorted(row.keys() - _LIST_COLUMNS)
        for n, value in enumerate(_read_list(row[name]))
        if isinstance(value, str | int | float)
    ]


def _drop_nulls(row: JsonObject) -> JsonObject:
    return {name: value for name, value in row.items() if value is not None}


@dataclass(frozen=True, slots=True)
class LangfuseReader:
    """Reads rows of Langfuse's exports. Scores with a name in `ratings` are people's ratings in [0, 1]; other numeric
    scores are metrics."""

    traces: TraceIndex
    ratings: frozenset[str] = field(default_factory=frozenset)

    def build_events(self, row: JsonObject, context: ImportContext, own_id: str) -> list[JsonObject]:
        """The events of one part of a row. Raises: RowRefused, RowSkipped."""
        if find_first(row, "dataType", "data_type") is not None:
            return self._read_score(row, context)
        kind = row.get("type")
        if isinstance(kind, str) and kind in _OBSERVATION_TYPES:
            if kind != "GENERATION":
                raise RowSkipped("not_a_generation")
            return self._read_generation(row, context)
        if "timestamp" in row and "id" in row:
            return self._read_generation({**row, "startTime": row["timestamp"]}, context)
        raise RowRefused("unknown_shape", "not an observation (type), a score (dataType) or a trace (timestamp) of Langfuse")

    def _read_generation(self, row: JsonObject, context: ImportContext) -> list[JsonObject]:
        own_id = read_text(row, "id")
        if own_id is None:
            raise RowRefused("no_id", "id is empty", param="id")
        if row.get("level") == "ERROR":
            raise RowSkipped("failed_call")
        asked_at = read_moment(row, "startTime", "start_time")
        answers = read_answers(row.get("output"), param="output")
        if not answers:
            raise RowSkipped("no_answer")
        usage = read_object(row, "usageDetails", "usage_details", "usage")
        tokens_in = read_number(usage, "input", "promptTokens", "prompt_tokens")
        tokens_out = read_number(usage, "output", "completionTokens", "completion_tokens")
        exchange = Exchange(
            own_id=own_id,
            prompt=read_prompt(row.get("input"), param="input"),
            answers=tuple(answers),
            asked_at=asked_at,
            answered_at=read_moment(row, "endTime", "end_time"),
            thread=read_text(row, "sessionId", "session_id", "traceId", "trace_id") or own_id,
            user=read_text(row, "userId", "user_id"),
            tags=_read_texts(find_first(row, "tags", "traceTags")),
            metadata=_read_metadata(row),
            usage=(
                tokens_in if tokens_in is not None else read_number(row, "promptTokens", "inputUsage", "inputTokens"),
                tokens_out if tokens_out is not None else read_number(row, "completionTokens", "outputUsage", "outputTokens"),
            ),
        )
        trace_id = read_text(row, "traceId", "trace_id") or own_id
        self.traces.note(trace_id, asked_at.isoformat() if asked_at else "", own_id)
        return build_exchange_events(exchange, context)

    def _read_score(self, row: JsonObject, context: ImportContext) -> list[JsonObject]:
        score_id, name = read_text(row, "id"), read_text(row, "name")
        if score_id is None or name is None:
            raise RowRefused("no_id", "a score has an id and a name", param="id" if score_id is None else "name")
        subject = read_object(row, "subject")
        kind = str(find_first(subject, "type", "kind", "objectType") or "").lower()
        observation_id = read_text(row, "observationId", "observation_id") or (read_text(subject, "id") if kind == "observation" else None)
        trace_id = read_text(row, "traceId", "trace_id") or (read_text(subject, "id") if kind == "trace" else None)
        if observation_id is None and trace_id is None:
            raise RowSkipped("score_of_session_or_run")
        about = observation_id or self.traces.find_last(trace_id or "")
        if about is None:
            message = "the score is about a trace of which no generation was read; give the file of observations before that of scores"
            raise RowRefused("trace_not_seen", message, param="traceId")
        interaction_id = context.identity.make_interaction_id(about)
        scored_at = read_moment(row, "timestamp", "createdAt", "created_at")
        data_type = str(find_first(row, "dataType", "data_type"))
        text = read_text(row, "stringValue", "string_value", "longStringValue", "long_string_value")
        fields = self._read_score_fields(name, data_type, row.get("value"), text)
        feedback_id = context.identity.make_unbound_id("fbk", score_id)
        events = [build_feedback(context, interaction_id, fields, at=scored_at, feedback_id=feedback_id)]
        remark = read_text(row, "comment")
        if remark:
            remark_fields: JsonObject = {"kind": "comment", "comment": remark, "metadata": {"score": name}}
            events.append(
                build_feedback(
                    context,
                    interaction_id,
                    remark_fields,
                    at=scored_at,
                    feedback_id=context.identity.make_unbound_id("fbk", f"{score_id} comment"),
                )
            )
        return events

    def _read_score_fields(self, name: str, data_type: str, value: Json, text: str | None) -> JsonObject:
        """The fields of feedback for a score's value. Raises: RowRefused."""
        metadata: JsonObject = {"score": name}
        text = text if text is not None else value if isinstance(value, str) else None
        if data_type in _TEXT_KINDS:
            if not text:
                raise RowRefused("bad_score", "the score has no text", param="stringValue")
            kind, field, longest = _TEXT_KINDS[data_type]
            return {"kind": kind, field: text[:longest], "metadata": metadata}
        number = _read_truth(value, text) if data_type == "BOOLEAN" else None
        if number is None:
            number = read_number({"value": value}, "value")
        if number is None:
            raise RowRefused("bad_score", "the score has no value", param="value")
        if name in self.ratings:
            if not 0 <= number <= 1:
                raise RowRefused("bad_rating", "a rating is a number in [0, 1]; import this score as a metric", param="value")
            return {"kind": "rating", "rating": number, "metadata": metadata}
        if not make_metric_name(name):
            raise RowRefused("bad_score", "the score's name has no letter a-z or digit, and so gives no metric's name", param="name")
        return {"kind": "metric", "metric": make_metric_name(name), "value": bool(number) if data_type == "BOOLEAN" else number}


def _read_truth(value: Json, text: str | None) -> float | None:
    return float(value) if isinstance(value, bool) else _TRUTHS.get((text or "").lower())


def _infer_data_type(value: Json) -> str:
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in _TRUTHS):
        return "BOOLEAN"
    return "CATEGORICAL" if isinstance(value, str) else "NUMERIC"


def _read_list(value: Json) -> list[Json]:
    value = decode_cell(value)
    return value if isinstance(value, list) else []


def _read_texts(value: Json) -> tuple[str, ...]:
    return tuple(item for item in _read_list(value) if isinstance(item, str))


def _read_metadata(row: JsonObject) -> JsonObject:
    metadata: JsonObject = {}
    for name, fields in (
        ("model", ("model", "providedModelName", "provided_model_name")),
        ("trace_id", ("traceId", "trace_id")),
        ("name", ("name",)),
        ("environment", ("environment",)),
        ("prompt_name", ("promptName", "prompt_name")),
        ("prompt_version", ("promptVersion", "prompt_version")),
    ):
        if value := read_text(row, *fields):
            metadata[name] = value
    own_metadata = {key: value for key, value in read_object(row, "metadata").items() if key not in _NOISE}
    return {**metadata, "source_metadata": own_metadata} if own_metadata else metadata
