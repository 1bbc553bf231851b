"""Shadows: a policy answers a request that another has answered, and nobody sees it.

The request is the one that was stored: scrubbed of personal data. Nothing of it goes through the user's request, so a shadow can neither
slow it nor fail it; it spends from budgets of scope `shadow` alone.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from rlaas.chat import ChatCall, Completion
from rlaas.clock import Clock
from rlaas.errors import NotFound
from rlaas.ids import PolicyId, TenantId, derived_id, interaction_of, policy_version
from rlaas.inference.answer_size import bounded
from rlaas.inference.asking import Asking
from rlaas.inference.call import chat_call
from rlaas.inference.guardrail_session import Blocked, Guarded
from rlaas.inference.spending import Question, Spending, Spent
from rlaas.metering.budgets import NOTHING, Request
from rlaas.metering.prices import usd
from rlaas.policies.backend import Backend
from rlaas.policies.bundle import Policy
from rlaas.policies.guardrails.moderation import Moderator
from rlaas.policies.render_prompt import finished
from rlaas.privacy.scrub import Scrubber
from rlaas.routing.assign import shadow_decision
from rlaas.telemetry.events import InteractionCreated, OutputProduced
from rlaas.telemetry.ingest import prepare, prepare_answer
from rlaas.telemetry.store import EventStore, StoredEvent
from rlaas.wire import MAX_HOPS, WireModel

TIMEOUT_S = 40.0
"""How long a shadow's backend may take."""


class ShadowTask(WireModel):
    """A request to mirror: the output that was served and the policy to answer beside it."""

    tenant_id: TenantId
    interaction_id: str
    output_id: str
    policy_id: PolicyId

    @property
    def shadow_id(self) -> str:
        """The id of the shadow's output: always the same, so that a task done twice leaves one output."""
        readable = f"{self.output_id}_s{policy_version(self.policy_id)[1]}"
        bound = interaction_of(self.output_id) is not None and len(readable) <= 64
        return readable if bound else derived_id("out", self.tenant_id, self.output_id, self.policy_id)


def shadow_tasks(served: StoredEvent) -> list[ShadowTask]:
    """A task for each shadow that the output's decision drew."""
    output = served.event()
    if not isinstance(output, OutputProduced) or output.decision is None or output.decision.shadow:
        return []
    return [
        ShadowTask(tenant_id=served.tenant_id, interaction_id=output.interaction_id, output_id=served.event_id, policy_id=policy_id)
        for policy_id in output.decision.shadows
    ]


class PolicySource(Protocol):
    """Reads policies."""

    def get_policy(self, tenant_id: str, policy_id: str) -> Policy:
        """An immutable policy. Raises: NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class ShadowGateway:
    """What tasks are done with; `scrubber` and `spending` are the tenant's."""

    policies: PolicySource
    backend: Backend
    store: EventStore
    scrubber: Scrubber
    spending: Spending
    clock: Clock
    moderator: Moderator | None = None
    timer: Callable[[], float] = time.perf_counter


def answer_unseen(task: ShadowTask, gateway: ShadowGateway) -> bool:
    """Have the shadow answer and store its output; whether that is new. Only the policy's own backend is asked: it is the one on trial.

    Raises: NotFound when what is to be mirrored or the policy is not there, QuotaExceeded, InvalidInput, DependencyUnavailable.
    """
    found = gateway.store.get_many(task.tenant_id, [task.interaction_id, task.output_id, task.shadow_id])
    if task.shadow_id in found:
        return False
    interaction, served = (found[name].event() if name in found else None for name in (task.interaction_id, task.output_id))
    if not isinstance(interaction, InteractionCreated) or not isinstance(served, OutputProduced) or served.decision is None:
        raise NotFound(f"the request {task.interaction_id!r} or its output is not there")
    policy = gateway.policies.get_policy(task.tenant_id, task.policy_id)
    if policy.skill != served.skill:
        raise NotFound(f"{task.policy_id!r} is not a policy of {served.skill!r}")
    guarded = Guarded(task.tenant_id, interaction.messages, interaction.inputs, interaction.documents, gateway.moderator)
    call: ChatCall | None = None
    usage, spent, latency_ms = None, Spent(NOTHING, priced=False, version=None), 0.0
    try:
        inputs, messages, documents = guarded.incoming(policy)
    except Blocked as blocked:
        choice = blocked.answer
    else:
        call = chat_call(
            policy,
            inputs=inputs,
            messages=messages,
            documents=documents,
            parameters=interaction.parameters,
            tenant_id=task.tenant_id,
            hops=MAX_HOPS,  # no gateway mirrors a mirrored request, which would go round without end
        )
        completion, spent, latency_ms = _asked(policy, call, Request(served.skill, served.key_id or "", mirrored=True), gateway)
        choices = [replace(one, text=finished(policy.prompt, one.text)) for one in bounded(completion.choices)]
        usage, choice = completion.usage, (guarded.outgoing(policy, choices, again=True) or choices)[0]
    output = OutputProduced(
        skill=served.skill,
        thread_id=served.thread_id,
        user_id=served.user_id,
        output_id=task.shadow_id,
        interaction_id=task.interaction_id,
        policy_id=task.policy_id,
        text=choice.text,
        tool_calls=choice.tool_calls,
        messages=call.messages if call is not None else None,
        decision=shadow_decision(served.decision, task.policy_id),
        usage=usage,
        latency_ms=latency_ms,
        finish_reason=choice.finish_reason,
        model=policy.backend.model,
        cost_usd=usd(spent.amount.nano_usd) if spent.priced else None,
        price_version=spent.version,
        key_id=served.key_id,
    )
    now = gateway.clock()
    stored = prepare_answer(output, task.tenant_id, received_at=now, scrubber=gateway.scrubber)
    new = gateway.store.put_new(stored) is None
    acted = guarded.events(
        tenant_id=task.tenant_id,
        skill=served.skill,
        interaction_id=task.interaction_id,
        output_id=task.shadow_id,
        thread_id=served.thread_id,
        user_id=served.user_id,
    )
    gateway.store.put_each([prepare(event, task.tenant_id, received_at=now) for event in acted])
    return new


def _asked(policy: Policy, call: ChatCall, request: Request, gateway: ShadowGateway) -> tuple[Completion, Spent, float]:
    """What the policy's backend answers, what that cost, and how many milliseconds it took."""
    reservation = gateway.spending.begin(call.tenant_id, request, [Question(policy, call, (policy.backend,))], now=gateway.clock())
    asking = Asking(gateway.backend, gateway.spending)
    try:
        started = gateway.timer()
        completion = asking.complete(policy, policy.backend, call, timeout_s=min(policy.backend.timeout_s, TIMEOUT_S))
        latency_ms = (gateway.timer() - started) * 1000
    finally:
        gateway.spending.end(reservation, asking.spent(), now=gateway.clock())
    return completion, gateway.spending.spent(policy, policy.backend.model, call, completion), latency_ms
