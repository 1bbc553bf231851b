"""A request's fourth step: backends are asked one after another, the arm's and then the control's, until one answers.

Backends are servers that tenants name. What they answer may be of any shape: whatever their adapters raise is the
failure of a backend here, and every answer is checked before it is used. What was sent to them may be
charged for: a call counts as the most that it can come to until it is known what it cost, or that nothing was done.
No error makes it free, since none gets out of here: the exchange holds the error beside what was spent until then.
"""

import random
import time
from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace

from rlaas.chat import BackendFailed, ChatCall, Completion, Delta, NoCapacity, Usage
from rlaas.errors import InvalidInput, RlaasError
from rlaas.inference.answer_limits import check_completion, check_piece
from rlaas.inference.decide import Assignment
from rlaas.inference.gateway import Gateway
from rlaas.inference.render import Actions, Blocked, Question, admit, render_admitted
from rlaas.inference.spending import is_believable
from rlaas.inference.unanswered import may_be_taken, sum_up
from rlaas.metering.budgets import NOTHING, Amount
from rlaas.metering.ledger import Reservation
from rlaas.policies.backend import BackendSpec
from rlaas.policies.bundle import Policy
from rlaas.routing.assign import CONTROL, Decision

_FIRST_SHARE = 0.55
"""The share of the time left, in [0, 1], that a backend may take while others follow it."""
_LONGEST_PAUSE_S = 2.0
"""A backend that asks for a longer pause than this before a second try gets none."""
_LEAST_TIME_S = 0.5
"""With less time left than this nobody is asked."""
_BLOCKED_BY_CONTROL = "the arm did not answer, and the control's guardrails block the request"


@dataclass(frozen=True, slots=True)
class OpenAnswer:
    """An answer whose first piece has come, if the backend sends any. Its holder closes `rest`."""

    first: tuple[Delta, ...]
    rest: Generator[Delta, None, None]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request's exchange with models, as far as it has come: an answer, a stream or an error, or none of them yet."""

    assignment: Assignment
    question: Question | Blocked
    """What was asked last, by the arm's policy or the control's; or what its guardrails answer in place."""
    reservation: Reservation | None
    decision: Decision
    """As it was made; once there is an answer, with who gave it and why the others before did not."""
    actions: Actions
    """What guardrails have done."""
    asked_at: float | None = None
    """When the first backend was asked, on the gateway's timer, in seconds; None where nobody was."""
    backend: BackendSpec | None = None
    """Who answered."""
    answer: Completion | None = None
    stream: OpenAnswer | None = None
    error: BaseException | None = None
    failures: tuple[str, ...] = ()
    """Why backends did not answer, in words."""
    refusals: tuple[RlaasError, ...] = ()
    """What they answered in place of it."""
    wasted: Amount = NOTHING
    """What calls have come to that brought no answer."""
    cost: Amount = NOTHING
    """What the answer cost; while it streams, the most that it can come to."""

    @property
    def spent(self) -> Amount:
        """What all calls have come to: the request once, and the tokens of each of them."""
        return self.cost if self.wasted is NOTHING else _add(self.wasted, self.cost)

    @property
    def is_over(self) -> bool:
        """Whether nobody else is to be asked."""
        ends = (self.answer, self.stream, self.error)
        return any(end is not None for end in ends) or isinstance(self.question, Blocked)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """A backend to ask for a policy. `more` says that others follow."""

    policy: Policy
    backend: BackendSpec
    more: bool

    @property
    def circuit(self) -> Hashable:
        """What fails together. A tenant's own: another's key or address says nothing about this one's."""
        return self.policy.tenant_id, self.backend


_Call = Callable[[Exchange, Question, BackendSpec, Gateway, float, float], Exchange]
"""Asks a backend a question: within so many seconds, and by a moment on the gateway's timer."""


def open_exchange(assignment: Assignment, question: Question | Blocked, reservation: Reservation | None) -> Exchange:
    """The exchange before anybody is asked."""
    return Exchange(assignment, question, reservation, assignment.decision, question.actions)


def ask_whole(exchange: Exchange, gateway: Gateway) -> Exchange:
    """The exchange with a whole answer. Raises nothing: an error is the exchange's."""
    within_s = gateway.whole_s - exchange.assignment.policy.guardrails.answer_wait_s
    return _ask_in_turn(exchange, _complete, gateway, within_s=within_s)


def ask_stream(exchange: Exchange, gateway: Gateway) -> Exchange:
    """The exchange with an answer whose first piece is there; until then fallbacks answer as for a whole one.

    Raises nothing: an error is the exchange's.
    """
    return _ask_in_turn(exchange, _open, gateway, within_s=gateway.stream_s)


def close_stream(exchange: Exchange, completion: Completion, gateway: Gateway) -> Exchange:
    """The exchange with what its stream added up to. A stream that was cut off counts as what it wrote."""
    question, backend, cost = exchange.question, exchange.backend, exchange.cost
    if isinstance(question, Question) and backend is not None:
        cost = gateway.spending.spent(question.policy, backend.model, question.call, completion).amount
    return replace(exchange, stream=None, answer=completion, cost=cost)


def ask_alone(exchange: Exchange, gateway: Gateway, *, timeout_s: float) -> Exchange:
    """The exchange with a whole answer of the policy's own backend, which is asked once, within `timeout_s` seconds.

    Raises nothing: an error is the exchange's.
    """
    backend, question = exchange.assignment.policy.backend, exchange.question
    if isinstance(question, Blocked):
        return replace(exchange, backend=backend)
    asked_at, timeout_s = gateway.timer(), min(backend.timeout_s, timeout_s)
    return _ask_backend(replace(exchange, asked_at=asked_at), question, backend, _complete, gateway, timeout_s, asked_at + timeout_s)


def ask_again(exchange: Exchange, gateway: Gateway) -> Exchange:
    """The exchange with a second answer of the same backend; with the first once more where it gives none.

    Its usage is that of both; an error is the exchange's. Raises: ValueError where nobody has answered yet.
    """
    question, backend, first = exchange.question, exchange.backend, exchange.answer
    if not isinstance(question, Question) or backend is None or first is None:
        raise ValueError("nobody has answered yet")
    until = exchange.assignment.started + gateway.whole_s - exchange.assignment.policy.guardrails.answer_wait_s
    timeout_s = max(1.0, until - gateway.timer())
    unanswered = replace(exchange, answer=None, wasted=exchange.spent, cost=NOTHING)
    repeated = _ask_backend(unanswered, question, backend, _complete, gateway, timeout_s, until)
    if repeated.error is not None and not isinstance(repeated.error, BackendFailed | InvalidInput):
        return repeated
    second = repeated.answer or Completion(first.choices, usage=Usage(input_tokens=0, output_tokens=0))
    both = replace(second, usage=_add_usage(first.usage, second.usage))
    return replace(repeated, answer=both, error=None)


def _ask_in_turn(exchange: Exchange, call: _Call, gateway: Gateway, *, within_s: float) -> Exchange:
    """Ask one backend after another within `within_s` seconds of the request's start."""
    if exchange.is_over:
        return exchange
    assignment = exchange.assignment
    exchange = Exchange(assignment, exchange.question, exchange.reservation, exchange.decision, exchange.actions, asked_at=gateway.timer())
    until = assignment.started + within_s
    try:
        for attempt in _list_attempts(assignment, gateway):
            exchange, wait_s = _try(exchange, attempt, call, gateway, until=until)
            if wait_s is not None:
                gateway.pause(wait_s)
                exchange, _ = _try(exchange, attempt, call, gateway, until=until, repeats=True)
            if exchange.is_over:
                return exchange
    except BaseException as error:
        return replace(exchange, error=error)
    return replace(exchange, error=sum_up(exchange.failures, exchange.refusals))


def _list_attempts(assignment: Assignment, gateway: Gateway) -> Iterator[_Attempt]:
    """The arm's backends, then the control's, whose policy is read when its turn comes."""
    backends = (assignment.policy.backend, *assignment.policy.fallbacks)
    for place, backend in enumerate(backends, 1):
        yield _Attempt(assignment.policy, backend, more=place < len(backends) or assignment.control is not None)
    if assignment.control is None:
        return
    control = gateway.routes.get_policy(assignment.asker.tenant_id, assignment.control)
    backends = (control.backend, *control.fallbacks)
    for place, backend in enumerate(backends, 1):
        yield _Attempt(control, backend, more=place < len(backends))


def _try(
    exchange: Exchange, attempt: _Attempt, call: _Call, gateway: Gateway, *, until: float, repeats: bool = False
) -> tuple[Exchange, float | None]:
    """The exchange after one backend was asked; and, where it is to be asked once more, after how many seconds."""
    if not repeats and not gateway.breakers.allows(attempt.circuit):
        return _note_failure(exchange, attempt, "failed too often just now", gateway.breakers.last_failure(attempt.circuit)), None
    left = until - gateway.timer()
    if left < _LEAST_TIME_S:
        return _note_failure(exchange, attempt, "no time left"), None
    if exchange.question.policy is not attempt.policy:
        exchange = _turn_to(attempt.policy, exchange, gateway)
    question = exchange.question
    if exchange.error is not None or isinstance(question, Blocked):
        return exchange, None
    timeout_s = min(attempt.backend.timeout_s, left * _FIRST_SHARE if attempt.more else left)
    exchange = _ask_backend(exchange, question, attempt.backend, call, gateway, timeout_s, until)
    error = exchange.error
    if error is None:
        gateway.breakers.note_answer(attempt.circuit)
        return _note_fallback(exchange), None
    if isinstance(error, InvalidInput) and may_be_taken(error, exchange.failures, exchange.refusals):
        return _note_failure(replace(exchange, error=None), attempt, error.detail, error), None
    if not isinstance(error, BackendFailed):
        return exchange, None
    if not isinstance(error, NoCapacity):  # a sleeping model refuses at once, and wakes only by being asked
        gateway.breakers.note_failure(attempt.circuit, error)
    exchange = replace(exchange, error=None)
    wait_s = error.retry_after_s if error.retry_after_s is not None else random.uniform(0.05, 0.25)
    if error.safe_to_repeat and not repeats and not attempt.more and wait_s <= min(_LONGEST_PAUSE_S, left / 2):
        return exchange, wait_s
    return _note_failure(exchange, attempt, error.detail, error), None


def _turn_to(policy: Policy, exchange: Exchange, gateway: Gateway) -> Exchange:
    """The exchange with the question of another policy, once its guardrails have checked the request."""
    admitted = admit(exchange.assignment, policy, gateway)
    exchange = replace(exchange, actions=(*exchange.actions, *admitted.actions))
    if isinstance(admitted, Blocked):
        exchange = replace(exchange, question=admitted, backend=policy.backend, failures=(_BLOCKED_BY_CONTROL,))
        return _note_fallback(exchange)
    try:
        return replace(exchange, question=render_admitted(exchange.assignment, admitted))
    except BaseException as error:
        return replace(exchange, error=error)


def _ask_backend(
    exchange: Exchange, question: Question, backend: BackendSpec, call: _Call, gateway: Gateway, timeout_s: float, until: float
) -> Exchange:
    """The exchange with the backend's answer and its cost, or with the error and what the call may have cost."""
    try:
        return call(exchange, question, backend, gateway, timeout_s, until)
    except BaseException as error:
        free = isinstance(error, InvalidInput) or (isinstance(error, BackendFailed) and error.nothing_done)
        most = NOTHING if free else _bound_cost(error, question, backend, gateway)
        return replace(exchange, error=error, wasted=_add(exchange.wasted, most))


def _bound_cost(error: BaseException, question: Question, backend: BackendSpec, gateway: Gateway) -> Amount:
    """The most that a failed call may have cost: what the backend told, if it did."""
    if isinstance(error, BackendFailed) and error.usage is not None:
        return gateway.spending.price(question.policy, backend.model, error.usage)
    return gateway.spending.most(question.policy, backend, question.call)


def _complete(exchange: Exchange, question: Question, backend: BackendSpec, gateway: Gateway, timeout_s: float, _: float) -> Exchange:
    """The exchange with the whole answer. A usage that cannot be is left out, and the call then counts in full."""
    call, spending = question.call, gateway.spending
    with _reading():
        answer = gateway.backend.complete(backend, call, timeout_s=timeout_s)
        check_completion(answer, call)
    if answer.usage is None or is_believable(answer.usage, call):
        cost = spending.spent(question.policy, backend.model, call, answer).amount
    else:
        answer, cost = replace(answer, usage=None), spending.most(question.policy, backend, call)
    return replace(exchange, backend=backend, answer=answer, cost=cost)


def _open(exchange: Exchange, question: Question, backend: BackendSpec, gateway: Gateway, timeout_s: float, until: float) -> Exchange:
    """The exchange with the first piece of an answer: `timeout_s` seconds for each piece, all of them by `until`."""
    most = gateway.spending.most(question.policy, backend, question.call)
    call = replace(question.call, ends_at=time.monotonic() + until - gateway.timer())
    pieces = _read_pieces(backend, call, gateway, timeout_s)
    return replace(exchange, backend=backend, stream=OpenAnswer(tuple(_read_beginning(pieces)), pieces), cost=most)


def _read_beginning(pieces: Iterator[Delta]) -> Iterator[Delta]:
    """The pieces up to the first that says something. Raises: BackendFailed with what was told before it failed."""
    usage: Usage | None = None
    try:
        for piece in pieces:
            yield piece
            usage = piece.usage or usage
            if piece.has_content:
                break
    except BackendFailed as error:
        error.usage = usage
        raise


def _read_pieces(backend: BackendSpec, call: ChatCall, gateway: Gateway, timeout_s: float) -> Generator[Delta, None, None]:
    """The pieces of a stream, each checked. Raises: BackendFailed, and before the first piece InvalidInput."""
    has_begun = False
    with _reading():
        try:
            with closing(_make_closable(gateway.backend.stream(backend, call, timeout_s=timeout_s))) as deltas:
                for delta in deltas:
                    has_begun = True
                    check_piece(delta, call)
                    if delta.usage is not None and not is_believable(delta.usage, call):
                        delta = replace(delta, usage=None)
                    yield delta
        except InvalidInput as error:
            if has_begun:
                raise BackendFailed("the backend failed in mid-answer") from error
            raise


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever a backend's adapter raises but its two own errors is a failure of the backend."""
    try:
        yield
    except (BackendFailed, InvalidInput):
        raise
    except Exception as error:
        raise BackendFailed(f"the backend's answer cannot be read: {type(error).__name__}") from error


def _make_closable(deltas: Iterator[Delta]) -> Generator[Delta, None, None]:
    """`deltas` as a generator: closing it closes them."""
    try:
        yield from deltas
    finally:
        close = getattr(deltas, "close", None)
        if close is not None:
            close()


def _note_failure(exchange: Exchange, attempt: _Attempt, reason: str, error: Exception | None = None) -> Exchange:
    """The exchange with why a backend did not answer, and with its refusal if it gave one."""
    backend = attempt.backend
    failure = f"{attempt.policy.policy_id} by {backend.kind} {backend.model}: {reason}"
    refusals = (*exchange.refusals, error) if isinstance(error, RlaasError) else exchange.refusals
    return replace(exchange, failures=(*exchange.failures, failure), refusals=refusals)


def _note_fallback(exchange: Exchange) -> Exchange:
    """Have the decision say who answered, and why nobody before did."""
    if not exchange.failures:
        return exchange
    decision, policy = exchange.decision, exchange.question.policy
    changes: dict[str, object] = {"reason": f"fallback: {'; '.join(exchange.failures)}"[:1000], "fallback": True}
    if policy.policy_id != decision.policy_id:
        control = decision.candidates[0]
        changes |= {"policy_id": control.policy_id, "arm": CONTROL, "propensity": control.probability, "drawn": decision.arm}
    return replace(exchange, decision=decision.model_copy(update=changes))


def _add(one: Amount, other: Amount) -> Amount:
    """Both together, as one request."""
    return Amount(one.tokens + other.tokens, one.nano_usd + other.nano_usd, max(one.requests, other.requests))


def _add_usage(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return None
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
        cache_write_tokens=one.cache_write_tokens + other.cache_write_tokens,
        cache_write_1h_tokens=one.cache_write_1h_tokens + other.cache_write_1h_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
    )
