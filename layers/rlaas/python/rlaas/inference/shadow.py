"""Shadows: a policy answers a request that another has answered, and no user sees its answer.

The request is the one that was stored: scrubbed of personal data. Nothing of it goes through the user's request, so
that a shadow can neither slow it nor fail it; it spends from budgets of scope `shadow` alone.
"""

from rlaas.errors import NotFound
from rlaas.ids import PolicyId, TenantId, derive_id, find_interaction_id, parse_policy_id
from rlaas.inference.ask import ask_alone, open_exchange
from rlaas.inference.check import check_answer
from rlaas.inference.decide import Asker, Assignment
from rlaas.inference.gateway import Gateway
from rlaas.inference.record import record_unanswered, record_unseen
from rlaas.inference.render import render_question
from rlaas.inference.reserve import reserve_budgets
from rlaas.routing.assign import Decision, make_shadow_decision
from rlaas.telemetry.events import InteractionCreated, OutputProduced
from rlaas.telemetry.store import StoredEvent
from rlaas.wire import MAX_HOPS, WireModel

TIMEOUT_S = 40.0
"""How long a shadow's backend may take, in seconds."""


class ShadowTask(WireModel):
    """A request to mirror: the output that was served and the policy to answer beside it."""

    tenant_id: TenantId
    interaction_id: str
    output_id: str
    policy_id: PolicyId

    @property
    def shadow_id(self) -> str:
        """The id of the shadow's output: always the same, so that a task done twice leaves one output."""
        readable = f"{self.output_id}_s{parse_policy_id(self.policy_id)[1]}"
        bound = find_interaction_id(self.output_id) is not None and len(readable) <= 64
        return readable if bound else derive_id("out", self.tenant_id, self.output_id, self.policy_id)


def shadow_tasks(served: StoredEvent) -> list[ShadowTask]:
    """A task for each shadow that the output's decision drew."""
    output = served.event()
    if not isinstance(output, OutputProduced) or output.decision is None or output.decision.shadow:
        return []
    return [
        ShadowTask(tenant_id=served.tenant_id, interaction_id=output.interaction_id, output_id=served.event_id, policy_id=policy_id)
        for policy_id in output.decision.shadows
    ]


def answer_unseen(task: ShadowTask, gateway: Gateway) -> bool:
    """Have the shadow answer and store its output; whether that is new.

    Only the policy's own backend is asked, once: it is the one on trial. A request that was too large to be stored
    whole is not mirrored.

    Raises: NotFound when what is to be mirrored or the policy is not there, QuotaExceeded, InvalidInput,
    DependencyUnavailable.
    """
    stored = gateway.store.get_many(task.tenant_id, [task.interaction_id, task.output_id, task.shadow_id])
    if task.shadow_id in stored:
        return False
    interaction, served = (stored[name].event() if name in stored else None for name in (task.interaction_id, task.output_id))
    if not isinstance(interaction, InteractionCreated) or not isinstance(served, OutputProduced) or served.decision is None:
        raise NotFound(f"the request {task.interaction_id!r} or its output is not there")
    if interaction.cut_fields:
        return False
    assignment = _assign_shadow(task, interaction, served, served.decision, gateway)
    question = render_question(assignment, assignment.policy, gateway)
    exchange = open_exchange(assignment, question, reserve_budgets(assignment, question, gateway, alone=True))
    exchange = ask_alone(exchange, gateway, timeout_s=TIMEOUT_S)
    try:
        outcome = check_answer(exchange, gateway, again=True)
    except BaseException:
        record_unanswered(exchange, gateway)
        raise
    return record_unseen(outcome, gateway)


def _assign_shadow(
    task: ShadowTask, interaction: InteractionCreated, served: OutputProduced, decision: Decision, gateway: Gateway
) -> Assignment:
    """The stored request, assigned to the shadow. Raises: NotFound."""
    policy = gateway.routes.get_policy(task.tenant_id, task.policy_id)
    if policy.skill != served.skill:
        raise NotFound(f"{task.policy_id!r} is not a policy of {served.skill!r}")
    owner = {"skill": served.skill, "thread_id": served.thread_id, "user_id": served.user_id}
    return Assignment(
        request=interaction.model_copy(update=owner),
        # no gateway mirrors a mirrored request, which would go round without end
        asker=Asker(task.tenant_id, served.key_id, hops=MAX_HOPS),
        interaction_id=task.interaction_id,
        output_id=task.shadow_id,
        decision=make_shadow_decision(decision, task.policy_id),
        policy=policy,
        started=gateway.timer(),
    )
