"""One request: decide, render, ask, store what was said and why, answer."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from pydantic import Field, model_validator

from rlaas.clock import Clock
from rlaas.errors import Conflict, DependencyUnavailable, InvalidInput
from rlaas.ids import ExternalId, SkillName, bound_id, derived_id, new_id
from rlaas.inference.backend import Backend, Completion
from rlaas.inference.prompt import render, render_system
from rlaas.privacy.scrub import Scrubber
from rlaas.routing.assign import CONTROL, Decision, assign
from rlaas.routing.policy import Policy
from rlaas.routing.route import Route
from rlaas.telemetry.events import InteractionCreated, Message, OutputProduced, Tag, Usage
from rlaas.telemetry.ingest import made_id, prepare_clean, same_event
from rlaas.telemetry.store import EventStore, StoredEvent
from rlaas.wire import Json, WireModel

CONTROL_TIMEOUT_S = 25.0
"""How long the control may take when nothing was tried before it; with the rest of a request it stays below the API's 29 s."""
ARM_TIMEOUT_S = 14.0
"""How long another arm may take, so that the control can still answer after it."""
FALLBACK_TIMEOUT_S = 11.0
"""How long the control may take after another arm failed."""


class InferRequest(WireModel):
    """Inputs for the skill's prompt, or the messages of a chat, which then stand in place of its user part."""

    skill: SkillName
    inputs: dict[str, str] | None = None
    messages: tuple[Message, ...] | None = Field(default=None, min_length=1)
    thread_id: ExternalId | None = None
    user_id: ExternalId | None = None
    interaction_id: ExternalId | None = None
    metadata: dict[str, Json] = Field(default_factory=dict)
    tags: tuple[Tag, ...] = Field(default=(), max_length=32)

    @model_validator(mode="after")
    def _inputs_or_messages(self) -> Self:
        if self.inputs is None and self.messages is None:
            raise ValueError("needs inputs")
        return self


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller gets. `replay` says it was stored before; `overhead_ms` is the time spent outside the backend."""

    interaction_id: str
    output_id: str
    text: str
    policy_id: str
    decision: Decision
    usage: Usage | None
    finish_reason: str | None
    latency_ms: float
    overhead_ms: float
    replay: bool


class RouteSource(Protocol):
    """Reads the route and its policies for one request."""

    def current_route(self, tenant_id: str, skill: str) -> Route:
        """The route as it is now, never remembered. Raises: NotFound."""
        ...

    def get_policy(self, tenant_id: str, policy_id: str) -> Policy:
        """An immutable policy. Raises: NotFound."""
        ...


def infer(
    request: InferRequest,
    tenant_id: str,
    *,
    routes: RouteSource,
    backend: Backend,
    store: EventStore,
    scrubber: Scrubber,
    clock: Clock,
    idempotency_key: str | None = None,
    timer: Callable[[], float] = time.perf_counter,
) -> Answer:
    """Answer `request` by the policy its unit is routed to, and store the interaction and the output with its decision.

    The unit is the thread, user or interaction as the route says; a request without a thread or user id is its own unit. When
    another arm's backend fails, the control answers once and the decision says `fallback`. A second request with the same
    `interaction_id`, or without one the same `idempotency_key`, and the same payload gets the stored output: what is stored is scrubbed
    of personal data, so that answer is too.

    Raises: NotFound without a route, InvalidInput for a missing input, Conflict when the interaction id holds another payload,
    DependencyUnavailable when the control cannot answer either.
    """
    started = timer()
    interaction_id = request.interaction_id or made_id(tenant_id, "interaction", "int", idempotency_key)
    route = routes.current_route(tenant_id, request.skill)
    decision = assign(route, _unit(route, request, interaction_id), decision_id=new_id("dec"), decided_at=clock())
    policy = routes.get_policy(tenant_id, decision.policy_id)
    messages = _messages(policy, request)

    interaction = prepare_clean(_interaction(request, interaction_id), tenant_id, received_at=clock(), scrubber=scrubber)
    output_id = bound_id("out", interaction_id) or derived_id("out", tenant_id, interaction_id)
    held = store.put_new(interaction)
    if held is not None:
        if not same_event(held, interaction):
            raise Conflict(f"the id {interaction_id!r} holds another payload", param="interaction_id")
        earlier = store.get_many(tenant_id, [output_id]).get(output_id)
        if earlier is not None:
            return _replayed(earlier)

    asked = timer()
    if decision.arm == CONTROL:
        completion = backend.complete(policy.backend, messages, policy.sampling, timeout_s=CONTROL_TIMEOUT_S)
    else:
        try:
            completion = backend.complete(policy.backend, messages, policy.sampling, timeout_s=ARM_TIMEOUT_S)
        except DependencyUnavailable:
            decision = _fallen_back(decision, route)
            policy = routes.get_policy(tenant_id, route.control)
            messages = _messages(policy, request)
            completion = backend.complete(policy.backend, messages, policy.sampling, timeout_s=FALLBACK_TIMEOUT_S)
    latency_ms = (timer() - asked) * 1000

    produced = _output(request, interaction_id, output_id, messages, decision, completion, latency_ms)
    earlier = store.put_new(prepare_clean(produced, tenant_id, received_at=clock(), scrubber=scrubber))
    if earlier is not None:
        return _replayed(earlier)
    return Answer(
        interaction_id=interaction_id,
        output_id=output_id,
        text=completion.text,
        policy_id=decision.policy_id,
        decision=decision,
        usage=completion.usage,
        finish_reason=completion.finish_reason,
        latency_ms=latency_ms,
        overhead_ms=(timer() - started) * 1000 - latency_ms,
        replay=False,
    )


def _unit(route: Route, request: InferRequest, interaction_id: str) -> str:
    named = {"thread": request.thread_id, "user": request.user_id, "interaction": None}[route.unit]
    return named or interaction_id


def _messages(policy: Policy, request: InferRequest) -> tuple[Message, ...]:
    inputs = request.inputs or {}
    if request.messages is None:
        return render(policy.prompt, inputs)
    if any(message.role == "system" for message in request.messages):
        return request.messages
    return (*render_system(policy.prompt, inputs), *request.messages)


def _interaction(request: InferRequest, interaction_id: str) -> InteractionCreated:
    given = {name: getattr(request, name) for name in request.model_fields_set}
    return InteractionCreated(**{**given, "interaction_id": interaction_id})


def _output(
    request: InferRequest,
    interaction_id: str,
    output_id: str,
    messages: tuple[Message, ...],
    decision: Decision,
    completion: Completion,
    latency_ms: float,
) -> OutputProduced:
    return OutputProduced(
        skill=request.skill,
        thread_id=request.thread_id,
        user_id=request.user_id,
        output_id=output_id,
        interaction_id=interaction_id,
        policy_id=decision.policy_id,
        text=completion.text,
        messages=messages,
        decision=decision,
        usage=completion.usage,
        latency_ms=latency_ms,
        finish_reason=completion.finish_reason,
    )


def _fallen_back(decision: Decision, route: Route) -> Decision:
    control = decision.candidates[0]
    return decision.model_copy(
        update={
            "policy_id": route.control,
            "arm": CONTROL,
            "propensity": control.probability,
            "reason": f"fallback: {decision.arm} did not answer",
            "fallback": True,
        }
    )


def _replayed(stored: StoredEvent) -> Answer:
    output = stored.event()
    if not isinstance(output, OutputProduced) or output.decision is None:
        raise InvalidInput("the interaction's output was reported by the application", param="interaction_id")
    return Answer(
        interaction_id=output.interaction_id,
        output_id=stored.event_id,
        text=output.text,
        policy_id=output.decision.policy_id,
        decision=output.decision,
        usage=output.usage,
        finish_reason=output.finish_reason,
        latency_ms=output.latency_ms or 0.0,
        overhead_ms=0.0,
        replay=True,
    )
