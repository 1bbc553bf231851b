"""A request's last step: what was spent is settled, and each choice is stored as an output with its decision, and so
is what guardrails did."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ulid import ULID

from rlaas.chat import UNKNOWN_PROCESSING, Choice, Processing, Usage
from rlaas.errors import Conflict, DependencyUnavailable
from rlaas.ids import derive_id, hash_text, make_bound_id
from rlaas.inference.ask import Exchange
from rlaas.inference.check import CheckedExchange
from rlaas.inference.decide import Assignment, bind_output_id
from rlaas.inference.gateway import Gateway
from rlaas.inference.render import PolicyAction, Question
from rlaas.inference.reserve import settle_budgets
from rlaas.metering.prices import to_usd
from rlaas.prompt_cache import drop_tool_marks
from rlaas.routing.assign import Decision
from rlaas.telemetry.events import GuardrailActed, InteractionCreated, OutputProduced, RequestFailed
from rlaas.telemetry.feedback_token import ShownOutput, issue_feedback_token
from rlaas.telemetry.ingest import is_same_event, prepare, prepare_answers, prepare_request
from rlaas.telemetry.store import StoredEvent


@dataclass(frozen=True, slots=True)
class Answer:
    """What the caller gets. `replay` says it was stored before; `overhead_ms` is the time spent outside the backend."""

    interaction_id: str
    output_id: str
    policy_id: str
    decision: Decision
    choices: tuple[Choice, ...]
    usage: Usage | None
    cost_usd: float | None
    """US dollars; None where the model has no price."""
    latency_ms: float
    overhead_ms: float
    replay: bool
    feedback_token: str
    """What the page that shows it gives feedback by."""
    processing: Processing = UNKNOWN_PROCESSING
    settled: bool = True
    """False when what it spent could not be settled: the budgets then hold what was set aside until that expires."""

    @property
    def text(self) -> str:
        """The first choice's text, which is the output that feedback is about."""
        return self.choices[0].text

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended."""
        return self.choices[0].finish_reason


def recall_answer(exchange: Exchange, gateway: Gateway) -> Answer | None:
    """Store the interaction; the answer where this very request got one before, which then spends nothing.

    Raises: Conflict when the interaction's id holds another payload or the gateway did not make its output,
    DependencyUnavailable.
    """
    assignment = exchange.assignment
    answer = None
    try:
        if record_interaction(assignment, gateway):
            return None
        stored = gateway.store.get_many(assignment.asker.tenant_id, [assignment.output_id]).get(assignment.output_id)
        if stored is None:
            return None
        answer = replay_answer(assignment, stored, gateway)
    except BaseException:
        record_unanswered(exchange, gateway)
        raise
    record_unanswered(exchange, gateway)
    return answer


def record_interaction(assignment: Assignment, gateway: Gateway) -> bool:
    """Store the interaction; whether it is new.

    Raises: Conflict when its id holds another payload, DependencyUnavailable.
    """
    request = assignment.request
    fields = {name: getattr(request, name) for name in request.model_fields_set & InteractionCreated.model_fields.keys()}
    if "parameters" in fields:
        fields["parameters"] = drop_tool_marks(request.parameters)
    interaction = prepare_request(
        InteractionCreated(**{**fields, "interaction_id": assignment.interaction_id}),
        assignment.asker.tenant_id,
        received_at=gateway.clock(),
        scrubber=gateway.scrubber,
    )
    earlier = gateway.store.put_new(interaction)
    if earlier is not None and not is_same_event(earlier, interaction):
        raise Conflict(f"the id {assignment.interaction_id!r} holds another payload", param="interaction_id")
    return earlier is None


def record_answer(outcome: CheckedExchange, gateway: Gateway) -> Answer:
    """Settle what the answer cost; store an output for each choice, the first one last, and what guardrails did.

    A paid answer is always stored: under another id where an event that the gateway did not make has taken the
    output's.

    Raises: DependencyUnavailable.
    """
    exchange = outcome.exchange
    assignment, tenant_id = exchange.assignment, exchange.assignment.asker.tenant_id
    output_id = assignment.output_id
    try:
        is_settled = settle_budgets(exchange.reservation, exchange.spent, gateway)
        outputs = _build_outputs(outcome)
        stored, *others = prepare_answers(outputs, tenant_id, received_at=gateway.clock(), scrubber=gateway.scrubber)
        choices = (outcome.choices[0], *_store_others(outcome.choices[1:], others, gateway))
        earlier = gateway.store.put_new(stored)
        if earlier is not None and not _is_gateways_own(earlier):
            output_id = bind_output_id(assignment.interaction_id, str(ULID()))
            moved = outputs[0].model_copy(update={"output_id": output_id})
            [stored] = prepare_answers([moved], tenant_id, received_at=gateway.clock(), scrubber=gateway.scrubber)
            earlier = gateway.store.put_new(stored)
    finally:
        _record_actions(exchange, output_id, gateway)
    if earlier is not None:
        return replay_answer(assignment, earlier, gateway)
    return Answer(
        interaction_id=assignment.interaction_id,
        output_id=output_id,
        policy_id=exchange.decision.policy_id,
        decision=exchange.decision,
        choices=choices,
        usage=outcome.usage,
        cost_usd=outputs[0].cost_usd,
        latency_ms=outcome.latency_ms,
        overhead_ms=(gateway.timer() - assignment.started) * 1000 - outcome.latency_ms,
        replay=False,
        feedback_token=make_feedback_token(assignment, output_id, gateway),
        processing=exchange.answer.processing if exchange.answer is not None else UNKNOWN_PROCESSING,
        settled=is_settled,
    )


def record_unseen(outcome: CheckedExchange, gateway: Gateway) -> bool:
    """As `record_answer`, for an answer that no user sees, of which the first choice is stored: whether its output is
    new. Raises: DependencyUnavailable."""
    exchange = outcome.exchange
    assignment = exchange.assignment
    try:
        settle_budgets(exchange.reservation, exchange.spent, gateway)
        [output, *_] = _build_outputs(outcome)
        [stored] = prepare_answers([output], assignment.asker.tenant_id, received_at=gateway.clock(), scrubber=gateway.scrubber)
        return gateway.store.put_new(stored) is None
    finally:
        _record_actions(exchange, assignment.output_id, gateway)


def record_unanswered(exchange: Exchange, gateway: Gateway) -> None:
    """Settle what was spent and store what guardrails did for a request that gets no new answer.

    Where no model answered, that is stored, too: it counts for the arm that was dealt. A mirrored request is tried
    again and leaves no failure. Raises: DependencyUnavailable.
    """
    settle_budgets(exchange.reservation, exchange.spent, gateway)
    try:
        if isinstance(exchange.error, DependencyUnavailable) and not exchange.decision.shadow:
            _record_failure(exchange, exchange.error.detail, gateway)
    finally:
        _record_actions(exchange, exchange.assignment.output_id, gateway)


def replay_answer(assignment: Assignment, stored: StoredEvent, gateway: Gateway) -> Answer:
    """The answer that was stored before, with all its choices.

    Raises: Conflict for an output that the gateway did not make, DependencyUnavailable.
    """
    output = stored.event()
    if not isinstance(output, OutputProduced) or output.decision is None:
        raise Conflict("the interaction's output was reported by the application; ask under another id", param="interaction_id")
    return Answer(
        interaction_id=output.interaction_id,
        output_id=stored.event_id,
        policy_id=output.decision.policy_id,
        decision=output.decision,
        choices=(_recall_choice(output), *_read_others(assignment, gateway)),
        usage=output.usage,
        cost_usd=output.cost_usd,
        latency_ms=output.latency_ms or 0.0,
        overhead_ms=0.0,
        replay=True,
        feedback_token=make_feedback_token(assignment, stored.event_id, gateway),
    )


def _recall_choice(output: OutputProduced) -> Choice:
    return Choice(
        text=output.text,
        finish_reason=output.finish_reason,
        tool_calls=output.tool_calls,
        reasoning_content=output.reasoning_content,
    )


def make_feedback_token(assignment: Assignment, output_id: str, gateway: Gateway) -> str:
    """What a page that shows the output gives feedback by."""
    request = assignment.request
    output = ShownOutput(request.skill, assignment.interaction_id, output_id, request.thread_id, request.user_id)
    return issue_feedback_token(output, scrubber=gateway.scrubber, now=gateway.clock())


def guardrail_events(actions: Sequence[PolicyAction], assignment: Assignment, output_id: str) -> list[GuardrailActed]:
    """The events of what guardrails did for a request, in their order.

    Ids come from interaction, output, policy and position, so that doing it twice makes the same events.
    """
    request, interaction_id, events = assignment.request, assignment.interaction_id, []
    for position, (policy_id, action) in enumerate((item.policy_id, item.action) for item in actions):
        parts = (output_id, policy_id, action.stage, str(position))
        bound = make_bound_id("grd", interaction_id, hash_text("/".join(parts))[:16])
        events.append(
            GuardrailActed(
                skill=request.skill,
                thread_id=request.thread_id,
                user_id=request.user_id,
                guardrail_id=bound or derive_id("grd", assignment.asker.tenant_id, interaction_id, *parts),
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
    return events


def _record_actions(exchange: Exchange, output_id: str, gateway: Gateway) -> None:
    """Store what guardrails did, each once."""
    if not exchange.actions:
        return
    tenant_id, now = exchange.assignment.asker.tenant_id, gateway.clock()
    events = guardrail_events(exchange.actions, exchange.assignment, output_id)
    gateway.store.put_each([prepare(event, tenant_id, received_at=now) for event in events])


def _record_failure(exchange: Exchange, reason: str, gateway: Gateway) -> None:
    """Store that nobody answered. A second try of the request has a decision, and so a failure, of its own."""
    assignment, decision = exchange.assignment, exchange.decision
    request, tail = assignment.request, decision.decision_id.removeprefix("dec_")
    interaction_id = assignment.interaction_id
    failure = RequestFailed(
        skill=request.skill,
        thread_id=request.thread_id,
        user_id=request.user_id,
        failure_id=make_bound_id("fal", interaction_id, tail) or derive_id("fal", interaction_id, tail),
        interaction_id=interaction_id,
        decision=decision,
        reason=reason[:500],
        key_id=assignment.asker.key_id,
        **_price_answer(exchange, gateway),
    )
    gateway.store.put_new(prepare(failure, assignment.asker.tenant_id, received_at=gateway.clock()))


def _price_answer(exchange: Exchange, gateway: Gateway) -> dict[str, Any]:
    """What an answer that broke off used and cost, as the fields of its failure; empty where nothing was answered."""
    question, backend, answer = exchange.question, exchange.backend, exchange.answer
    if answer is None or backend is None or not isinstance(question, Question):
        return {}
    spent = gateway.spending.spent(question.policy, backend.model, question.call, answer)
    return {
        "estimated_usage": spent.usage,
        "model": backend.model,
        "cost_usd": to_usd(spent.amount.nano_usd) if spent.priced else None,
        "price_version": spent.version,
    }


def _build_outputs(outcome: CheckedExchange) -> list[OutputProduced]:
    """An output for each choice. What the request was, cost and used counts once, and shadows answer it once: with the
    first."""
    exchange = outcome.exchange
    assignment, request, question, spent = exchange.assignment, exchange.assignment.request, exchange.question, outcome.spent
    first = OutputProduced(
        skill=request.skill,
        thread_id=request.thread_id,
        user_id=request.user_id,
        output_id=assignment.output_id,
        interaction_id=assignment.interaction_id,
        policy_id=exchange.decision.policy_id,
        text=outcome.choices[0].text,
        tool_calls=outcome.choices[0].tool_calls,
        reasoning_content=outcome.choices[0].reasoning_content,
        messages=question.call.messages if isinstance(question, Question) else None,
        decision=exchange.decision,
        usage=outcome.usage,
        estimated_usage=spent.usage if spent is not None and outcome.usage is None else None,
        latency_ms=outcome.latency_ms,
        finish_reason=outcome.choices[0].finish_reason,
        model=exchange.backend.model if exchange.backend is not None else None,
        cost_usd=to_usd(spent.amount.nano_usd) if spent is not None and spent.priced else None,
        price_version=spent.version if spent is not None else None,
        key_id=assignment.asker.key_id,
    )
    once = dict.fromkeys(("usage", "estimated_usage", "cost_usd", "price_version"))
    others = [
        first.model_copy(
            update={
                **once,
                "decision": exchange.decision.model_copy(update={"shadows": ()}),
                "output_id": _find_choice_id(assignment, index),
                "text": choice.text,
                "tool_calls": choice.tool_calls,
                "reasoning_content": choice.reasoning_content,
                "finish_reason": choice.finish_reason,
            }
        )
        for index, choice in enumerate(outcome.choices[1:], 1)
    ]
    return [first, *others]


def _find_choice_id(assignment: Assignment, index: int) -> str:
    """The id of the output of the choice at `index`, from 1 on; the first has the assignment's."""
    return f"{assignment.output_id}_{index}"


def _store_others(choices: Sequence[Choice], outputs: Sequence[StoredEvent], gateway: Gateway) -> Iterator[Choice]:
    """Store the `outputs` of `choices`, those after the first; the choices that a replay will find.

    Where an earlier try of the request has stored an output, that one is the choice. Raises: DependencyUnavailable.
    """
    for choice, earlier in zip(choices, gateway.store.put_each(outputs) if outputs else (), strict=True):
        if isinstance(earlier, DependencyUnavailable):
            raise earlier
        output = earlier.event() if earlier is not None else None
        yield _recall_choice(output) if isinstance(output, OutputProduced) else choice


def _read_others(assignment: Assignment, gateway: Gateway) -> Iterator[Choice]:
    """The choices after the first, as they were stored. Raises: DependencyUnavailable."""
    number = assignment.request.parameters.get("n")
    ids = [_find_choice_id(assignment, index) for index in range(1, number)] if isinstance(number, int) else []
    stored = gateway.store.get_many(assignment.asker.tenant_id, ids) if ids else {}
    for output_id in ids:
        if output_id in stored and isinstance(output := stored[output_id].event(), OutputProduced):
            yield _recall_choice(output)


def _is_gateways_own(stored: StoredEvent) -> bool:
    """Whether the gateway made it: no client can set `key_id`."""
    output = stored.event()
    return isinstance(output, OutputProduced) and output.key_id is not None
