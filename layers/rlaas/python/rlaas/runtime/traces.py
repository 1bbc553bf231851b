"""Traces of answers by OpenTelemetry's conventions: each span is a line of OTLP JSON on stdout, and a collector reads
it from the log.

OpenTelemetry's SDK is not used: it would add a tenth of a second to every cold start, and its exporter would delay
requests. A span's line is written like every other line of the log. The request is a SERVER span; each call of a model,
failed ones too, is a CLIENT span by the GenAI conventions.
"""

import re
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from urllib.parse import urlsplit

from rlaas.chat import ChatCall, Completion, Delta
from rlaas.clock import utc_now
from rlaas.inference.collect import Collected
from rlaas.policies.backend import Backend, BackendSpec
from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import PrivacySettings
from rlaas.runtime.metrics import MetricUnit, emit, write_line

AttributeValue = str | int | float | bool | list[str] | None
SERVER, CLIENT = 2, 3
_ERROR = 2
_PROVIDERS = {"sagemaker": "aws.sagemaker", "openai": "openai", "anthropic": "anthropic", "bedrock": "aws.bedrock"}
_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call", "cancelled"})
_LONGEST_NAME = 256
_MOST = 10_000_000
_PARAMETERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "top_k": "gen_ai.request.top_k",
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
}


@dataclass(frozen=True, slots=True)
class Trace:
    """A request's place in its trace: the caller's trace, by W3C's `traceparent`, or a new one. Nothing is written of a
    trace that the caller does not sample."""

    stage: str
    trace_id: str
    parent_id: str | None
    sampled: bool
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))

    @classmethod
    def of(cls, traceparent: str | None, *, stage: str) -> "Trace":
        """The trace of a request with that header."""
        match = _TRACEPARENT.fullmatch(traceparent or "")
        if match is None:
            return cls(stage, secrets.token_hex(16), None, True)
        return cls(stage, match[1], match[2], bool(int(match[3], 16) & 1))

    def traceparent(self, span_id: str) -> str:
        """The header for a call made by the span `span_id`."""
        return f"00-{self.trace_id}-{span_id}-{int(self.sampled):02x}"

    def write_span(
        self,
        name: str,
        *,
        kind: int,
        span_id: str,
        parent_id: str | None,
        started_ns: int,
        attributes: Mapping[str, AttributeValue],
        error: BaseException | None = None,
    ) -> None:
        """Write a span that ends now; `started_ns` is in nanoseconds since the epoch."""
        if not self.sampled:
            return
        values = {**attributes, **({"error.type": type(error).__name__} if error is not None else {})}
        span = {
            "traceId": self.trace_id,
            "spanId": span_id,
            **({"parentSpanId": parent_id} if parent_id else {}),
            "name": name,
            "kind": kind,
            "startTimeUnixNano": str(started_ns),
            "endTimeUnixNano": str(time.time_ns()),
            "attributes": [{"key": key, "value": _otlp_value(value)} for key, value in values.items() if value is not None],
            **({"status": {"code": _ERROR}} if error is not None else {}),
        }
        spans = {"resource": _describe_resource(self.stage), "scopeSpans": [{"scope": {"name": "rlaas"}, "spans": [span]}]}
        write_line({"resourceSpans": [spans]})


class TracedBackend:
    """`Backend` that writes a span and the GenAI client metrics of each call; the span is the parent of what the
    model's server traces."""

    def __init__(self, backend: Backend, trace: Trace) -> None:
        self._backend = backend
        self._trace = trace

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        """As the wrapped backend. Raises: as it does."""
        span = _Call(self._trace, backend, call)
        try:
            completion = self._backend.complete(backend, span.call, timeout_s=timeout_s)
        except BaseException as error:
            span.end(error=error)
            raise
        span.end(completion)
        return completion

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Generator[Delta, None, None]:
        """As the wrapped backend; the span ends with the stream. Raises: as it does."""
        span, collected = _Call(self._trace, backend, call), Collected()
        try:
            for delta in self._closing(self._backend.stream(backend, span.call, timeout_s=timeout_s)):
                if delta.has_content:
                    span.note_chunk()
                yield collected.add(delta)
        except GeneratorExit:
            span.end(collected.completion(cut_off="cancelled"))
            raise
        except BaseException as error:
            span.end(error=error)
            raise
        span.end(collected.completion())

    @staticmethod
    def _closing(deltas: Iterator[Delta]) -> Iterator[Delta]:
        try:
            yield from deltas
        finally:
            close: Callable[[], None] | None = getattr(deltas, "close", None)
            if close is not None:
                close()


class _Call:
    """The span of one call of a model, from now to its end."""

    def __init__(self, trace: Trace, backend: BackendSpec, call: ChatCall) -> None:
        self._trace = trace
        self._backend = backend
        self._span_id = secrets.token_hex(8)
        self._started_ns, self._started_s = time.time_ns(), time.perf_counter()
        self._first_chunk_s: float | None = None
        self.call = replace(call, traceparent=trace.traceparent(self._span_id))

    def note_chunk(self) -> None:
        """Note that a piece of a streamed answer has come: the first one is timed."""
        if self._first_chunk_s is None:
            self._first_chunk_s = time.perf_counter() - self._started_s

    def end(self, completion: Completion | None = None, *, error: BaseException | None = None) -> None:
        """Write the span and emit the metrics."""
        seconds = time.perf_counter() - self._started_s
        usage = completion.usage if completion is not None else None
        provider = _PROVIDERS[self._backend.kind]
        attributes: dict[str, AttributeValue] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": self._backend.model,
            "gen_ai.response.model": _scrub_model(completion.model) if completion is not None and completion.model is not None else None,
            "gen_ai.response.finish_reasons": (
                [_normalize_reason(choice.finish_reason) for choice in completion.choices] if completion is not None else None
            ),
            "gen_ai.usage.input_tokens": usage.input_tokens if usage else None,
            "gen_ai.usage.output_tokens": usage.output_tokens if usage else None,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens if usage and usage.cached_tokens else None,
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens if usage and usage.cache_write_tokens else None,
            "gen_ai.request.choice.count": _keep_small_number(self.call.parameters.get("n")),
            **{
                name: _keep_small_number(self.call.parameters.get(parameter))
                for parameter, name in _PARAMETERS.items()
                if parameter in self.call.parameters
            },
            "server.address": urlsplit(address).hostname if (address := getattr(self._backend, "base_url", None)) else None,
        }
        self._trace.write_span(
            f"chat {self._backend.model}",
            kind=CLIENT,
            span_id=self._span_id,
            parent_id=self._trace.span_id,
            started_ns=self._started_ns,
            attributes=attributes,
            error=error,
        )
        dimensions = {"stage": self._trace.stage, "gen_ai.operation.name": "chat", "gen_ai.provider.name": provider}
        at, model = utc_now(), {"gen_ai.request.model": self._backend.model, "error.type": type(error).__name__ if error else None}
        durations = {"gen_ai.client.operation.duration": seconds, "gen_ai.client.operation.time_to_first_chunk": self._first_chunk_s}
        metrics: dict[str, tuple[float, MetricUnit]] = {name: (value, "Seconds") for name, value in durations.items() if value is not None}
        emit(metrics, dimensions=dimensions, at=at, properties=model)
        for kind, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)) if usage else ():
            by_type = {**dimensions, "gen_ai.token.type": kind}
            emit({"gen_ai.client.token.usage": (float(tokens), "None")}, dimensions=by_type, at=at, properties=model)


@cache
def _describe_resource(stage: str) -> dict[str, object]:
    """What a stage's spans come from, in OTLP JSON."""
    attributes = {"service.name": "rlaas", "deployment.environment.name": stage}
    return {"attributes": [{"key": key, "value": _otlp_value(value)} for key, value in attributes.items()]}


def _keep_small_number(value: object) -> int | float | None:
    """A caller's number, if it is too small to be that of a card or a phone; else None."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _MOST else None


@lru_cache(maxsize=256)
def _scrub_model(model: str) -> str:
    """The model's name in an answer, without what may be personal data: the server chooses it."""
    [name] = Scrubber(PrivacySettings(), salt=b"").scrub([model[:_LONGEST_NAME]])
    return name


def _normalize_reason(finish_reason: str | None) -> str:
    """The finish reason if it is a known one; "other" for any other, "" for none."""
    return (finish_reason if finish_reason in _REASONS else "other") if finish_reason else ""


def _otlp_value(value: AttributeValue) -> dict[str, object]:
    """An attribute's value in OTLP JSON."""
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    return {"arrayValue": {"values": [{"stringValue": item} for item in value or ()]}}
