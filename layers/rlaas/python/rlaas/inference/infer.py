"""A request's way to its answer, from top to bottom: decide, render, reserve, ask, check, record.

Each step is a file of its own and a function from frozen values to frozen values. An answer comes whole or
piece by piece; or the caller learns which model to ask, and asks it directly.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from rlaas.chat import BackendFailed, ChatCall, Delta
from rlaas.errors import Forbidden
from rlaas.inference.ask import Exchange, OpenAnswer, ask_again, ask_stream, ask_whole, close_stream, open_exchange
from rlaas.inference.check import CUT, MAX_ANSWER_BYTES, check_answer, count_characters, needs_whole_answer, without_unchecked
from rlaas.inference.collect import Collected, split_choices
from rlaas.inference.decide import Asker, Assignment, InferRequest, decide_policy
from rlaas.inference.gateway import Gateway
from rlaas.inference.record import (
    Answer,
    make_feedback_token,
    recall_answer,
    record_answer,
    record_interaction,
    record_unanswered,
)
from rlaas.inference.render import Blocked, render_question
from rlaas.inference.reserve import reserve_budgets
from rlaas.policies.bundle import Policy
from rlaas.routing.assign import Decision


@dataclass(frozen=True, slots=True)
class AnswerStream:
    """An answer that is still being made. Its holder reads `deltas` to the end or closes them: then it is stored."""

    interaction_id: str
    output_id: str
    policy_id: str
    decision: Decision
    deltas: Generator[Delta, None, None]
    feedback_token: str
    replay: bool = False


@dataclass(frozen=True, slots=True)
class Handover:
    """Which policy answers a request and what its model is to be asked, for a caller that asks it directly."""

    interaction_id: str
    output_id: str
    decision: Decision
    policy: Policy
    call: ChatCall
    feedback_token: str
    replay: bool = False
    """Whether the interaction was decided before."""


def infer(request: InferRequest, asker: Asker, gateway: Gateway, *, idempotency_key: str | None = None) -> Answer:
    """Answer `request` by the policy its unit is routed to, and store the interaction and the output with its decision.

    The unit is the thread, user or interaction as the route says; a request without a thread or user id is its own
    unit. When the arm's backend fails, the policy's fallbacks are asked and then the control, and the decision says
    `fallback` and why. A second request with the same `interaction_id`, or without one the same `idempotency_key`, and
    the same payload gets the stored output: what is stored is scrubbed of personal data, so that answer is too.

    Raises: NotFound without a route, InvalidInput for a missing input or a parameter that the backend does not take,
    PayloadTooLarge for a prompt that leaves its answer no room, Conflict when the interaction id holds another
    payload, QuotaExceeded when a budget has no room, DependencyUnavailable when nobody answers.
    """
    assignment = decide_policy(request, asker, gateway, idempotency_key=idempotency_key)
    question = render_question(assignment, assignment.policy, gateway)
    exchange = open_exchange(assignment, question, reserve_budgets(assignment, question, gateway))
    answer = recall_answer(exchange, gateway)
    return answer if answer is not None else _finish(ask_whole(exchange, gateway), gateway)


def infer_stream(request: InferRequest, asker: Asker, gateway: Gateway, *, idempotency_key: str | None = None) -> AnswerStream:
    """The same, piece by piece.

    Nothing is sent before a backend's first piece, so that until then fallbacks answer as ever. Policies that change
    or check the whole answer, and arms whose control does, are asked for it whole and stream it as one piece. Raises:
    as `infer`; and from the deltas BackendFailed when the answer breaks off, of which nothing is stored, so that the
    request may be sent again.
    """
    assignment = decide_policy(request, asker, gateway, idempotency_key=idempotency_key)
    question = render_question(assignment, assignment.policy, gateway)
    whole = any(map(needs_whole_answer, _list_policies(assignment, gateway)))
    exchange = open_exchange(assignment, question, reserve_budgets(assignment, question, gateway))
    answer = recall_answer(exchange, gateway)
    if answer is not None:
        return _stream_whole(answer)
    if whole:
        return _stream_whole(_finish(ask_whole(exchange, gateway), gateway))
    exchange = ask_stream(exchange, gateway)
    if exchange.stream is None:
        return _stream_whole(_finish(exchange, gateway))
    return _stream_pieces(exchange, exchange.stream, gateway)


def decide(request: InferRequest, asker: Asker, gateway: Gateway, *, idempotency_key: str | None = None) -> Handover:
    """Which policy is to answer `request` and what its model is to be asked.

    For a caller that asks the model directly or, by a `dryrun`, only wants to know.

    Unless it is a dry run the interaction is stored, and the most that the call may cost counts as spent: RLaaS never
    learns what it cost. Raises: NotFound, InvalidInput, PayloadTooLarge, Conflict, QuotaExceeded as `infer`; Forbidden
    when guardrails block it or the stage does not allow its model.
    """
    assignment = decide_policy(request, asker, gateway, idempotency_key=idempotency_key)
    question = render_question(assignment, assignment.policy, gateway)
    if (refusal := gateway.allowed.find_refusal(assignment.policy.backend)) is not None:
        raise Forbidden(refusal)
    exchange = open_exchange(assignment, question, None)
    new = True
    if not request.dryrun:
        exchange = replace(exchange, reservation=reserve_budgets(assignment, question, gateway, alone=True))
        try:
            new = record_interaction(assignment, gateway)
            if new and not isinstance(question, Blocked):
                most = gateway.spending.most(assignment.policy, assignment.policy.backend, question.call)
                exchange = replace(exchange, cost=most)
        finally:
            record_unanswered(exchange, gateway)
    if isinstance(question, Blocked):
        raise Forbidden("the policy's guardrails keep this request from its model; /v1/infer gives the answer for it")
    return Handover(
        interaction_id=assignment.interaction_id,
        output_id=assignment.output_id,
        decision=assignment.decision,
        policy=assignment.policy,
        call=question.call,
        feedback_token=make_feedback_token(assignment, assignment.output_id, gateway),
        replay=not new,
    )


def _list_policies(assignment: Assignment, gateway: Gateway) -> Iterator[Policy]:
    """The policies that may answer. Raises: DependencyUnavailable."""
    yield assignment.policy
    if assignment.control is not None:
        yield gateway.routes.get_policy(assignment.asker.tenant_id, assignment.control)


def _finish(exchange: Exchange, gateway: Gateway, *, again: bool = False) -> Answer:
    """Check and record what came of asking; ask once more where guardrails want it, which those of a stream cannot.

    Raises: the error that the exchange ended by, DependencyUnavailable.
    """
    try:
        outcome = check_answer(exchange, gateway, again=again)
        if outcome.regenerate:
            exchange = ask_again(outcome.exchange, gateway)
            outcome = check_answer(exchange, gateway, again=True)
    except BaseException:
        record_unanswered(exchange, gateway)
        raise
    return record_answer(outcome, gateway)


def _stream_whole(answer: Answer) -> AnswerStream:
    """A whole answer as a stream."""
    return AnswerStream(
        interaction_id=answer.interaction_id,
        output_id=answer.output_id,
        policy_id=answer.policy_id,
        decision=answer.decision,
        deltas=split_choices(answer.choices, answer.usage, answer.processing),
        feedback_token=answer.feedback_token,
        replay=answer.replay,
    )


def _stream_pieces(exchange: Exchange, stream: OpenAnswer, gateway: Gateway) -> AnswerStream:
    """An open answer as a stream."""
    assignment, decision = exchange.assignment, exchange.decision
    deltas = _relay(exchange, stream, gateway)
    next(deltas)  # a generator closed before its first step runs none of its lines, and this one has to settle
    return AnswerStream(
        interaction_id=assignment.interaction_id,
        output_id=assignment.output_id,
        policy_id=decision.policy_id,
        decision=decision,
        deltas=deltas,
        feedback_token=make_feedback_token(assignment, assignment.output_id, gateway),
    )


def _relay(exchange: Exchange, stream: OpenAnswer, gateway: Gateway) -> Generator[Delta, None, None]:
    """Pass the pieces on; check and record what they add up to when they end or their reader leaves.

    The first piece is empty. Raises: BackendFailed when the answer breaks off or takes too long.
    """
    started, pieces, size, cut_off = exchange.assignment.started, Collected(), 0, None
    try:
        yield Delta()
        for delta in chain(stream.first, stream.rest):
            if gateway.timer() - started > gateway.stream_s:
                raise BackendFailed("the answer takes too long")
            delta = without_unchecked(delta, exchange.question.policy)
            size += count_characters(delta)
            if size > MAX_ANSWER_BYTES:
                cut_off = CUT
                yield pieces.add(Delta(delta.index, finish_reason=CUT, usage=delta.usage))
                break
            yield pieces.add(delta)
    except GeneratorExit:
        if not size:  # what has come was written, whether or not anybody read it
            pieces.add_all(stream.first)
        _finish(close_stream(exchange, pieces.completion(cut_off="cancelled"), gateway), gateway, again=True)
        raise
    except BaseException as error:
        closed_exchange = close_stream(exchange, pieces.completion(), gateway)
        record_unanswered(replace(closed_exchange, error=error), gateway)
        raise
    else:
        _finish(close_stream(exchange, pieces.completion(cut_off=cut_off), gateway), gateway, again=True)
    finally:
        stream.rest.close()
