"""One request's dealings with the guardrails of the policies that are asked for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING

from rlaas.chat import Choice, Document, Message
from rlaas.ids import bound_id, derived_id, text_sha256
from rlaas.policies.bundle import Policy
from rlaas.policies.guardrails.moderation import Moderator
from rlaas.telemetry.events import GuardrailActed

if TYPE_CHECKING:
    from rlaas.policies.guardrails.checks import GuardrailAction

BLOCKED = "content_filter"
"""Why an answer ended that a guardrail put in the place of another, in OpenAI's words."""


class Blocked(Exception):
    """A policy's guardrails keep the request from its backend; `answer` is what the caller gets."""

    def __init__(self, policy: Policy, answer: Choice) -> None:
        super().__init__(policy.policy_id)
        self.policy = policy
        self.answer = answer


@dataclass(slots=True)
class Guarded:
    """What the caller sent, and what guardrails have done so far. Policies without guardrails load none of their code."""

    tenant_id: str
    messages: tuple[Message, ...] | None
    inputs: dict[str, str] | None
    documents: tuple[Document, ...]
    moderator: Moderator | None
    """Who asks the services that judge; without one, guardrails that need it fail."""
    _done: "list[tuple[str, GuardrailAction]]" = field(default_factory=list)

    def incoming(self, policy: Policy) -> tuple[dict[str, str] | None, tuple[Message, ...] | None, tuple[Document, ...]]:
        """The inputs, messages and documents that may go to the backend. Raises: Blocked."""
        if not policy.guardrails.input:
            return self.inputs, self.messages, self.documents
        from rlaas.policies.guardrails.checks import check_input

        verdict = check_input(
            policy.guardrails, self.messages or (), self.inputs, self.documents, tenant_id=self.tenant_id, moderator=self.moderator
        )
        self._note(policy, verdict.actions)
        if verdict.answer is not None:
            raise Blocked(policy, Choice(text=verdict.answer, finish_reason=BLOCKED))
        return (
            verdict.inputs if self.inputs is not None else None,
            verdict.messages if self.messages is not None else None,
            verdict.documents,
        )

    def outgoing(self, policy: Policy, choices: Sequence[Choice], *, again: bool) -> tuple[Choice, ...] | None:
        """The choices as the caller may have them; `None` asks the backend once more, which it does not when this is `again`."""
        if not policy.guardrails.output:
            return tuple(choices)
        from rlaas.policies.guardrails.checks import check_output

        checked = []
        for choice in choices:
            verdict = check_output(
                policy.guardrails,
                choice.text,
                tool_calls=choice.tool_calls,
                refusal=choice.refusal,
                asked=self.messages or (),
                inputs=self.inputs,
                documents=[document.text for document in self.documents],
                again=again,
                tenant_id=self.tenant_id,
                moderator=self.moderator,
            )
            self._note(policy, verdict.actions)
            if verdict.regenerate:
                return None
            if verdict.blocked:
                checked.append(Choice(text=verdict.text, finish_reason=BLOCKED))
            else:
                same = (verdict.text, verdict.refusal, verdict.tool_calls) == (choice.text, choice.refusal, choice.tool_calls)
                checked.append(
                    replace(
                        choice,
                        text=verdict.text,
                        tool_calls=verdict.tool_calls,
                        refusal=verdict.refusal,
                        logprobs=choice.logprobs if same else None,  # they spell out what was taken away
                    )
                )
        return tuple(checked)

    def events(
        self, *, tenant_id: str, skill: str, interaction_id: str, output_id: str | None, thread_id: str | None, user_id: str | None
    ) -> list[GuardrailActed]:
        """What was done, as events; the same ones however often it is asked."""
        if not self._done:
            return []

        return [
            event
            for position, (policy_id, action) in enumerate(self._done)
            for event in acted(
                [action],
                tenant_id=tenant_id,
                skill=skill,
                interaction_id=interaction_id,
                policy_id=policy_id,
                thread_id=thread_id,
                user_id=user_id,
                output_id=output_id,
                start=position,
            )
        ]

    def _note(self, policy: Policy, actions: "Sequence[GuardrailAction]") -> None:
        self._done += [(policy.policy_id, action) for action in actions]


def needs_whole_answer(policy: Policy) -> bool:
    """Whether nothing of the policy's answers may be shown before all of it is there: something may change or withhold it."""
    if policy.prompt.output is not None:
        return True
    if not policy.guardrails.output:
        return False
    from rlaas.policies.guardrails.checks import needs_whole_output

    return needs_whole_output(policy.guardrails)


def acted(
    actions: "Sequence[GuardrailAction]",
    *,
    tenant_id: str,
    skill: str,
    interaction_id: str,
    policy_id: str,
    thread_id: str | None = None,
    user_id: str | None = None,
    output_id: str | None = None,
    start: int = 0,
) -> list[GuardrailActed]:
    """The events of `actions`, the first at position `start`. Ids come from interaction, output, policy and position, so doing it twice
    makes the same events."""
    made = []
    for position, action in zip(count(start), actions, strict=False):
        parts = (output_id or "", policy_id, action.stage, str(position))
        bound = bound_id("grd", interaction_id, text_sha256("/".join(parts))[:16])
        made.append(
            GuardrailActed(
                skill=skill,
                thread_id=thread_id,
                user_id=user_id,
                guardrail_id=bound or derived_id("grd", tenant_id, interaction_id, *parts),
                interaction_id=interaction_id,
                output_id=output_id,
                policy_id=policy_id,
                stage=action.stage,
                guardrail=action.guardrail,
                kind=action.kind,
                action=action.action,
                reason=action.reason,
                score=action.score,
                failed=action.failed,
                position=position,
            )
        )
    return made
