"""Inference on the stage's stores, measured: for `/v1/infer` and `/v1/chat/completions`, whole and streamed."""

import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

from pydantic import JsonValue

from rlaas.adapters.aws.entity_finder import TIMEOUT_S as FINDER_S
from rlaas.api.http import Caller
from rlaas.chat import Delta
from rlaas.clock import utc_now
from rlaas.inference.decide import Asker, InferRequest
from rlaas.inference.gateway import Gateway
from rlaas.inference.infer import AnswerStream, infer, infer_stream
from rlaas.inference.record import Answer
from rlaas.runtime.environment import API_GATEWAY_SECONDS, AnsweringEnvironment
from rlaas.runtime.metrics import MetricUnit, emit
from rlaas.runtime.stage import Stage, import_ahead
from rlaas.runtime.traces import SERVER, AttributeValue, Trace, TracedBackend

import_ahead("adapters.aws.counters", "adapters.aws.events", "adapters.aws.registry", "adapters.aws.secrets")
import_ahead("adapters.models.backends", "adapters.models.moderators", "adapters.models.sagemaker")
import_ahead("metering.ceilings", "runtime.scrubbers", "runtime.spendings", "runtime.waking")

_STORE_S = 2.0
"""How long scrubbing and storing a whole answer may take, in seconds."""
_CLOSE_S = 10.0
"""How long checking, scrubbing and storing a streamed answer may take after its last piece, in seconds."""


def gateway(who: Caller, stage: Stage, trace: Trace | None = None) -> Gateway:
    """What the caller's requests are answered with; `trace` gets a span for each call of a model."""
    scrubber = stage.scrubbers.of(who.tenant_id)
    seconds = stage.settings(AnsweringEnvironment).function_seconds
    find_s = FINDER_S if scrubber.model_entities else 0.0
    return Gateway(
        routes=stage.registry,
        backend=TracedBackend(stage.backends, trace) if trace is not None else stage.backends,
        store=stage.events,
        scrubber=scrubber,
        spending=stage.spendings.of(who.tenant_id),
        clock=utc_now,
        moderator=stage.moderators,
        allowed=stage.allowed,
        breakers=stage.breakers,
        whole_s=min(seconds, API_GATEWAY_SECONDS) - _STORE_S - find_s,
        stream_s=seconds - _CLOSE_S,
    )


def answer_request(request: InferRequest, who: Caller, *, stage: Stage, idempotency_key: str | None, traceparent: str | None) -> Answer:
    """The whole answer, with a span in the request's trace. Raises: as `infer`."""
    span = _Request(request, who, Trace.of(traceparent, stage=stage.name))
    try:
        result = infer(
            request, Asker(who.tenant_id, who.key_id, hops=who.hops), gateway(who, stage, span.trace), idempotency_key=idempotency_key
        )
    except BaseException as error:
        span.end(error=error)
        raise
    span.end(result)
    return result


def stream_request(
    request: InferRequest, who: Caller, *, stage: Stage, idempotency_key: str | None, traceparent: str | None
) -> AnswerStream:
    """The answer piece by piece, with a span in the request's trace when it ends. Raises: as `infer_stream`."""
    span = _Request(request, who, Trace.of(traceparent, stage=stage.name))
    try:
        stream = infer_stream(
            request, Asker(who.tenant_id, who.key_id, hops=who.hops), gateway(who, stage, span.trace), idempotency_key=idempotency_key
        )
    except BaseException as error:
        span.end(error=error)
        raise

    def deltas() -> Generator[Delta, None, None]:
        try:
            with closing(stream.deltas):
                yield Delta()
                yield from stream.deltas
        except GeneratorExit:
            span.end(stream)
            raise
        except BaseException as error:
            span.end(stream, error=error)
            raise
        span.end(stream)

    pieces = deltas()
    next(pieces)  # a generator closed before its first step runs none of its lines, and would close nothing
    return replace(stream, deltas=pieces)


class _Request:
    """A request's span and metrics, from now to its end."""

    def __init__(self, request: InferRequest, who: Caller, trace: Trace) -> None:
        self.trace = trace
        self._request = request
        self._who = who
        self._started_ns = time.time_ns()

    def end(self, result: Answer | AnswerStream | None = None, *, error: BaseException | None = None) -> None:
        """Record the request in its trace and, unless it was a replay, in metrics."""
        attributes: dict[str, AttributeValue] = {"rlaas.tenant_id": self._who.tenant_id, "rlaas.skill": self._request.skill}
        if result is not None:
            decision = result.decision
            attributes |= {
                "gen_ai.response.id": result.output_id,
                "gen_ai.conversation.id": self._request.thread_id,
                "rlaas.policy_id": decision.policy_id,
                "rlaas.arm": decision.arm,
                "rlaas.propensity": decision.propensity,
                "rlaas.route_version": decision.route_version,
                "rlaas.fallback": decision.fallback,
                "rlaas.replay": result.replay,
            }
        self.trace.write_span(
            f"infer {self._request.skill}",
            kind=SERVER,
            span_id=self.trace.span_id,
            parent_id=self.trace.parent_id,
            started_ns=self._started_ns,
            attributes=attributes,
            error=error,
        )
        if result is None or result.replay:
            return
        metrics: dict[str, tuple[float, MetricUnit]] = {"Fallback": (float(result.decision.fallback), "Count")}
        if isinstance(result, Answer):
            metrics |= {
                "BackendLatency": (result.latency_ms, "Milliseconds"),
                "Overhead": (result.overhead_ms, "Milliseconds"),
                "Unsettled": (float(not result.settled), "Count"),
            }
        properties = {"tenant_id": self._who.tenant_id, "skill": self._request.skill, "output_id": result.output_id}
        emit(metrics, dimensions={"stage": self.trace.stage}, at=utc_now(), properties=properties)


def infer_body(result: Answer) -> dict[str, JsonValue]:
    """The body that `/v1/infer` answers with; what the model thought is there where it says so."""
    thoughts = result.choices[0].reasoning_content
    return {
        "interaction_id": result.interaction_id,
        "output_id": result.output_id,
        "feedback_token": result.feedback_token,
        "text": result.text,
        "tool_calls": [call.plain() for call in result.choices[0].tool_calls],
        "policy_id": result.policy_id,
        "decision": result.decision.model_dump(mode="json"),
        "usage": dict(result.usage) if result.usage else None,
        "cost_usd": result.cost_usd,
        "finish_reason": result.finish_reason,
        "latency_ms": result.latency_ms,
        "idempotent_replay": result.replay,
        **({"reasoning_content": thoughts} if thoughts else {}),
    }
