"""A request's fifth step: the answer is cut to size, finished as the prompt says, and checked by guardrails."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from rlaas.chat import Choice, Delta, Usage
from rlaas.inference.ask import Exchange
from rlaas.inference.gateway import Gateway
from rlaas.inference.render import BLOCKED, Actions, Blocked, PolicyAction
from rlaas.inference.spending import Spent
from rlaas.policies.bundle import Policy
from rlaas.policies.render_prompt import finish_text
from rlaas.telemetry.item_size import cut

MAX_ANSWER_BYTES = 1024 * 1024
"""The largest answer, all its choices together, in bytes of JSON. Lambda hands over 6 MB, one item stores 400 KB."""
CUT = "length"
"""The finish reason of an answer that was cut, in OpenAI's words."""
_LONGEST_REASON = 128


@dataclass(frozen=True, slots=True)
class CheckedExchange:
    """An exchange and what the caller may have of it, after the guardrails."""

    exchange: Exchange
    choices: tuple[Choice, ...]
    spent: Spent | None
    """What the answer cost by its usage, or an estimate; None where nobody was asked."""
    latency_ms: float
    """From asking the first backend to checking the answer, in milliseconds."""
    regenerate: bool = False
    """Whether the guardrails want another answer in place of this one."""

    @property
    def usage(self) -> Usage | None:
        """The tokens of all answers; None where nobody said to the end, and where nobody was asked."""
        return self.exchange.answer.usage if self.exchange.answer is not None else None


def needs_whole_answer(policy: Policy) -> bool:
    """Whether nothing of an answer may be shown before all of it is there: the policy may change or withhold it."""
    if policy.prompt.output is not None:
        return True
    if not policy.guardrails.output:
        return False
    from rlaas.policies.guardrails.checks import needs_whole_output

    return needs_whole_output(policy.guardrails)


def check_answer(exchange: Exchange, gateway: Gateway, *, again: bool = False) -> CheckedExchange:
    """The answer as the prompt and the guardrails let it out; `again` says that no other may be asked for.

    Where guardrails block the request, their answer is the outcome. Raises: the error that the exchange ended by.
    """
    if exchange.error is not None:
        raise exchange.error
    question, completion, backend = exchange.question, exchange.answer, exchange.backend
    if isinstance(question, Blocked):
        return CheckedExchange(exchange, (question.answer,), None, _measure_ms(exchange, gateway))
    if completion is None or backend is None:
        raise ValueError("nobody was asked")
    policy, choices = question.policy, bound_choices(completion.choices)
    if policy.prompt.output is not None:
        choices = tuple(replace(choice, text=finish_text(policy.prompt, choice.text), annotations=()) for choice in choices)
    regenerate = False
    if policy.guardrails.output:
        choices, actions, regenerate = _guard_choices(choices, exchange, policy, gateway, again=again)
        exchange = replace(exchange, actions=(*exchange.actions, *actions))
    spent = gateway.spending.spent(policy, backend.model, question.call, completion)
    return CheckedExchange(exchange, choices, spent, _measure_ms(exchange, gateway), regenerate)


def without_unchecked(delta: Delta, policy: Policy) -> Delta:
    """A piece of a streamed answer as the caller gets it: without what the policy's guardrails would not look at."""
    if policy.guardrails.output and (delta.reasoning_content is not None or delta.annotations):
        return replace(delta, reasoning_content=None, annotations=())
    return delta


def bound_choices(choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """The choices with what is beyond `MAX_ANSWER_BYTES` cut off.

    Those then say that they ended by `length`; tool calls that do not fit are left out whole, and so are what the model
    thought and annotations, without which an answer is as good.
    """
    room, results = MAX_ANSWER_BYTES, []
    for choice in choices:
        text, refusal = cut(choice.text, room), None
        room -= _count_bytes(text)
        calls = choice.tool_calls
        size = _count_bytes([call.model_dump(mode="json") for call in calls]) if calls else 0
        if size > room:
            calls, size = (), 0
        room -= size
        if choice.refusal is not None:
            refusal = cut(choice.refusal, room)
            room -= _count_bytes(refusal)
        whole = (text, calls, refusal) == (choice.text, choice.tool_calls, choice.refusal)
        size = _count_bytes(choice.logprobs) if choice.logprobs is not None else 0
        logprobs = choice.logprobs if whole and size <= room else None
        room -= size if logprobs is not None else 0
        beside: list[JsonValue] = [choice.reasoning_content, *choice.annotations]
        fits = not any(beside) or _count_bytes(beside) <= room
        room -= _count_bytes(beside) if fits and any(beside) else 0
        reason = (choice.finish_reason or "")[:_LONGEST_REASON] or None if whole else CUT
        if (whole, logprobs, reason) != (True, choice.logprobs, choice.finish_reason):
            choice = replace(choice, text=text, tool_calls=calls, refusal=refusal, logprobs=logprobs, finish_reason=reason)
        if not fits:
            choice = replace(choice, reasoning_content=None, annotations=())
        results.append(choice)
    return tuple(results)


def count_characters(delta: Delta) -> int:
    """How many characters a piece of a streamed answer has."""
    calls = sum(len(call.arguments) + len(call.name or "") + len(call.id or "") for call in delta.tool_calls)
    return len(delta.text) + len(delta.refusal or "") + len(delta.reasoning_content or "") + calls


def _guard_choices(
    choices: tuple[Choice, ...], exchange: Exchange, policy: Policy, gateway: Gateway, *, again: bool
) -> tuple[tuple[Choice, ...], Actions, bool]:
    """The choices as the policy's guardrails let them out, what these did, and whether they want another answer.

    What the model thought and its annotations are left out: guardrails do not look at them (decision 43).
    """
    from rlaas.policies.guardrails.checks import check_output

    request, released, actions = exchange.assignment.request, [], []
    for choice in choices:
        verdict = check_output(
            policy.guardrails,
            choice.text,
            tool_calls=choice.tool_calls,
            refusal=choice.refusal,
            messages=request.messages or (),
            inputs=request.inputs,
            documents=[document.text for document in request.documents],
            again=again,
            tenant_id=exchange.assignment.asker.tenant_id,
            moderator=gateway.moderator,
        )
        actions += [PolicyAction(policy.policy_id, action) for action in verdict.actions]
        if verdict.regenerate:
            return choices, tuple(actions), True
        if verdict.blocked:
            released.append(Choice(text=verdict.text, finish_reason=BLOCKED))
            continue
        same = (verdict.text, verdict.tool_calls, verdict.refusal) == (choice.text, choice.tool_calls, choice.refusal)
        logprobs = choice.logprobs if same else None  # they spell out what was taken away
        checked = replace(choice, text=verdict.text, tool_calls=verdict.tool_calls, refusal=verdict.refusal, logprobs=logprobs)
        released.append(replace(checked, reasoning_content=None, annotations=()))
    return tuple(released), tuple(actions), False


def _measure_ms(exchange: Exchange, gateway: Gateway) -> float:
    return (gateway.timer() - exchange.asked_at) * 1000 if exchange.asked_at is not None else 0.0


def _count_bytes(value: JsonValue) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))
