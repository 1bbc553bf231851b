"""A request's second step: the policy's guardrails check what the caller sent, and its prompt is rendered with that."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

from rlaas.chat import ChatCall, Choice, Document, Message
from rlaas.inference.cached_prompts import order_marks
from rlaas.inference.decide import Assignment
from rlaas.inference.gateway import Gateway
from rlaas.policies.bundle import Policy
from rlaas.policies.render_prompt import list_offered_tools, render, render_before
from rlaas.prompt_cache import drop_tool_marks, read_tool_marks

if TYPE_CHECKING:
    from rlaas.policies.guardrails.checks import GuardrailAction

BLOCKED = "content_filter"
"""The finish reason of an answer that a guardrail put in place of another, in OpenAI's words."""


@dataclass(frozen=True, slots=True)
class PolicyAction:
    """What a guardrail of a policy did."""

    policy_id: str
    action: "GuardrailAction"


Actions = tuple[PolicyAction, ...]


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the caller sent as a policy's guardrails let it in, with what they took out of it."""

    policy: Policy
    inputs: dict[str, str] | None
    messages: tuple[Message, ...] | None
    documents: tuple[Document, ...]
    actions: Actions = ()


@dataclass(frozen=True, slots=True)
class Blocked:
    """A policy's guardrails keep the request from its backend; `answer` is what the caller gets."""

    policy: Policy
    answer: Choice
    actions: Actions


@dataclass(frozen=True, slots=True)
class Question:
    """What a policy asks its backend."""

    policy: Policy
    call: ChatCall
    actions: Actions = ()


def render_question(assignment: Assignment, policy: Policy, gateway: Gateway) -> Question | Blocked:
    """The question of `policy`, unless its guardrails block the request. Raises: as `render_admitted`."""
    admitted = admit(assignment, policy, gateway)
    return admitted if isinstance(admitted, Blocked) else render_admitted(assignment, admitted)


def admit(assignment: Assignment, policy: Policy, gateway: Gateway) -> Admitted | Blocked:
    """The request as the guardrails of `policy` let it in. A policy without guardrails loads none of their code."""
    request = assignment.request
    if not policy.guardrails.input:
        return Admitted(policy, request.inputs, request.messages, request.documents)
    from rlaas.policies.guardrails.checks import check_input

    verdict = check_input(
        policy.guardrails,
        request.messages or (),
        request.inputs,
        request.documents,
        tenant_id=assignment.asker.tenant_id,
        moderator=gateway.moderator,
    )
    actions = tuple(PolicyAction(policy.policy_id, action) for action in verdict.actions)
    if verdict.answer is not None:
        return Blocked(policy, Choice(text=verdict.answer, finish_reason=BLOCKED), actions)
    return Admitted(
        policy,
        verdict.inputs if request.inputs is not None else None,
        verdict.messages if request.messages is not None else None,
        verdict.documents,
        actions,
    )


def render_admitted(assignment: Assignment, admitted: Admitted) -> Question:
    """The policy's prompt over what was let in. Raises: InvalidInput naming the input that the prompt misses."""
    return Question(admitted.policy, _render_call(assignment, admitted), admitted.actions)


def render_unguarded(assignment: Assignment, policy: Policy) -> Question:
    """The question of a policy whose guardrails have not checked the request yet. Raises: InvalidInput."""
    request = assignment.request
    return Question(policy, _render_call(assignment, Admitted(policy, request.inputs, request.messages, request.documents)))


def _render_call(assignment: Assignment, admitted: Admitted) -> ChatCall:
    """The prompt over the inputs; or in front of a chat's messages that bring no system message of their own."""
    policy, inputs, messages = admitted.policy, admitted.inputs or {}, admitted.messages
    if messages is None:
        messages = render(policy.prompt, inputs, admitted.documents)
    elif not any(message.role == "system" for message in messages):
        messages = render_before(messages, policy.prompt, inputs, admitted.documents)
    call = ChatCall(
        messages=messages,
        parameters=_merge_parameters(policy, drop_tool_marks(assignment.request.parameters)),
        tenant_id=assignment.asker.tenant_id,
        hops=assignment.asker.hops,
        tool_marks=read_tool_marks(assignment.request.parameters),
    )
    return order_marks(call)


_IN_PLACE_OF = {"max_completion_tokens": "max_tokens", "tools": "tool_choice", "temperature": "top_p", "top_p": "temperature"}


def _merge_parameters(policy: Policy, overrides: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The request's parameters over the policy's. One that says the same thing another way replaces the policy's, too:
    the newer name for the limit of an answer, other tools, and `temperature` or `top_p`, of which newer models of
    Claude take one."""
    own = {**policy.sampling.parameters(), **list_offered_tools(policy.prompt)}
    parameters = {name: value for name, value in overrides.items() if value is not None}
    for name, other in _IN_PLACE_OF.items():
        if name in parameters:
            own.pop(other, None)
    return {**own, **parameters}
