"""A request's way to its answer: decided, asked for, stored with why; whole, piece by piece, or left to the caller to ask for."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Protocol, Self, TypeVar

from pydantic import Field, field_validator, model_validator
from ulid import ULID

from rlaas.chat import BackendFailed, ChatCall, Choice, Completion, Delta, Document, Message, Usage
from rlaas.clock import Clock
from rlaas.errors import Conflict, DependencyUnavailable, Forbidden, InvalidInput, NotFound, PayloadTooLarge
from rlaas.ids import ExternalId, PolicyId, SkillName, UserId, bound_id, derived_id, new_id, pseudonym_of
from rlaas.inference.answer_size import CUT, MAX_ANSWER_BYTES, bounded, said
from rlaas.inference.asking import Asking
from rlaas.inference.attempts import Attempt, CircuitBreakers, first_answer
from rlaas.inference.call import chat_call
from rlaas.inference.collect import Collected, deltas_of
from rlaas.inference.guardrail_session import Blocked, Guarded, needs_whole_answer
from rlaas.inference.spending import Question, Spending, Spent
from rlaas.metering.budgets import NOTHING
from rlaas.metering.budgets import Request as BudgetRequest
from rlaas.metering.ledger import Reservation
from rlaas.metering.prices import usd
from rlaas.policies.allowed_models import EVERY_MODEL, AllowedModels
from rlaas.policies.backend import Backend
from rlaas.policies.bundle import Policy
from rlaas.policies.guardrails.moderation import Moderator
from rlaas.policies.render_prompt import finished
from rlaas.privacy.scrub import Scrubber
from rlaas.routing.assign import CONTROL, PINNED, Decision, assign, pinned
from rlaas.routing.route import Route
from rlaas.telemetry.events import InteractionCreated, OutputProduced, RequestFailed, Tag
from rlaas.telemetry.feedback_token import Shown, feedback_token
from rlaas.telemetry.ingest import MAX_STORED_BYTES, MIN_ANSWER_BYTES, made_id, prepare, prepare_answer, prepare_clean, same_event
from rlaas.telemetry.store import EventStore, StoredEvent
from rlaas.wire import Json, WireModel

T = TypeVar("T")

STREAM_S = 110.0
"""How long a streamed answer may take, in seconds."""
_SAID_ELSEWHERE = frozenset({"model", "messages", "stream", "stream_options"})
_NAMES_OF_USERS = ("user", "safety_identifier")
_BOUNDS = {"max_tokens": 1_000_000, "max_completion_tokens": 1_000_000, "n": 16}
_BLOCKED_BY_CONTROL = "the arm did not answer, and the control's guardrails block the request"
_SMALL_PROMPT = 16 * 1024
"""Characters of a prompt that no mask makes too large."""
_NOTHING_SPENT = Spent(NOTHING, priced=False, version=None)


class InferRequest(WireModel):
    """Inputs for the skill's prompt, or the messages of a chat, which then stand in place of its user part.

    `parameters` are OpenAI's by name and go before the policy's own sampling and tools. A `dryrun` is decided and rendered; no model is
    asked and nothing is stored.
    """

    skill: SkillName
    inputs: dict[str, str] | None = None
    messages: tuple[Message, ...] | None = Field(default=None, min_length=1)
    documents: tuple[Document, ...] = Field(default=(), max_length=100)
    parameters: dict[str, Json] = Field(default_factory=dict)
    thread_id: ExternalId | None = None
    user_id: UserId = None
    interaction_id: ExternalId | None = None
    metadata: dict[str, Json] = Field(default_factory=dict)
    tags: tuple[Tag, ...] = Field(default=(), max_length=32)
    policy_id: PolicyId | None = Field(default=None, description="Answer by this policy whatever the route says; left out of estimates.")
    dryrun: bool = False

    @field_validator("parameters")
    @classmethod
    def _are_parameters(cls, parameters: dict[str, Json]) -> dict[str, Json]:
        """The policy says who is asked, the path whether the answer streams; what bounds the answer bounds what is set aside for it; a
        vendor hears of a user what is stored."""
        if taken := _SAID_ELSEWHERE & parameters.keys():
            raise ValueError(f"{min(taken)} is no parameter: the policy, the messages and the path say it")
        for name, most in _BOUNDS.items():
            value = parameters.get(name)
            if value is not None and not (type(value) is int and 1 <= value <= most):
                raise ValueError(f"{name} is a whole number from 1 to {most}")
        return parameters | {name: pseudonym_of(said) for name in _NAMES_OF_USERS if isinstance(said := parameters.get(name), str)}

    @model_validator(mode="after")
    def _inputs_or_messages(self) -> Self:
        if self.inputs is None and self.messages is None:
            raise ValueError("needs inputs")
        return self


@dataclass(frozen=True, slots=True)
class Decided:
    """Who answers a request, and what they are asked."""

    interaction_id: str
    output_id: str
    decision: Decision
    policy: Policy
    call: ChatCall
    feedback_token: str
    replay: bool = False
    """Whether the interaction was decided before."""


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


@dataclass(frozen=True, slots=True)
class AnswerStream:
    """An answer that is still being made. Whoever takes it reads `deltas` to the end or closes them; the output is stored then."""

    interaction_id: str
    output_id: str
    policy_id: str
    decision: Decision
    deltas: Generator[Delta, None, None]
    feedback_token: str
    replay: bool = False


class RouteSource(Protocol):
    """Reads the route and its policies for one request."""

    def current_route(self, tenant_id: str, skill: str) -> Route:
        """The route as it is now, never remembered. Raises: NotFound."""
        ...

    def get_policy(self, tenant_id: str, policy_id: str) -> Policy:
        """An immutable policy. Raises: NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf a model is asked. `traceparent` is W3C's trace context of the request, `hops` the gateways that it has passed."""

    tenant_id: str
    key_id: str
    traceparent: str | None = None
    hops: int = 0


@dataclass(frozen=True, slots=True)
class Gateway:
    """What requests are answered with; `scrubber` and `spending` are the asker's tenant's. A whole answer is there within `within_s`."""

    routes: RouteSource
    backend: Backend
    store: EventStore
    scrubber: Scrubber
    spending: Spending
    clock: Clock
    moderator: Moderator | None = None
    within_s: float = 27.0
    timer: Callable[[], float] = time.perf_counter
    pause: Callable[[float], None] = time.sleep
    breakers: CircuitBreakers = field(default_factory=lambda: CircuitBreakers(time.perf_counter))
    allowed: AllowedModels = EVERY_MODEL
    """What callers may be told to ask themselves; `backend` sees to the rest."""


def infer(request: InferRequest, asker: Asker, gateway: Gateway, *, idempotency_key: str | None = None) -> Answer:
    """Answer `request` by the policy its unit is routed to, and store the interaction and the output with its decision.

    The unit is the thread, user or interaction as the route says; a request without a thread or user id is its own unit. When the arm's
    backend fails, the policy's fallbacks are asked and then the control, and the decision says `fallback` and why. A second request with
    the same `interaction_id`, or without one the same `idempotency_key`, and the same payload gets the stored output: what is stored is
    scrubbed of personal data, so that answer is too.

    Raises: NotFound without a route, InvalidInput for a missing input or a parameter that the backend does not take, Conflict when the
    interaction id holds another payload, QuotaExceeded when a budget has no room, DependencyUnavailable when nobody answers.
    """
    turn = _Turn.begun(request, asker, gateway, idempotency_key)
    with turn.reserved(turn.questions()):
        earlier = turn.stored_before()
        return turn.replayed(earlier) if earlier is not None else turn.answer()


def infer_stream(request: InferRequest, asker: Asker, gateway: Gateway, *, idempotency_key: str | None = None) -> AnswerStream:
    """The same, piece by piece. Nothing is sent before a backend's first piece, so that until then fallbacks answer as ever.

    Policies that change or check the whole answer are asked for it whole and stream it as one piece. Raises: as `infer`; and from the
    deltas BackendFailed when the answer breaks off, of which nothing is stored, so that the request may be sent again.
    """
    turn = _Turn.begun(request, asker, gateway, idempotency_key)
    with turn.reserved(turn.questions()):
        earlier = turn.stored_before()
        if earlier is not None:
            answer = turn.replayed(earlier)
        elif turn.blocked is not None or needs_whole_answer(turn.policy):
            answer = turn.answer()
        else:
            return turn.stream()
    return _at_once(answer)


def decide(request: InferRequest, asker: Asker, gateway: Gateway, *, idempotency_key: str | None = None) -> Decided:
    """Who is to answer `request` and with what, for a caller that asks the model itself or (`dryrun`) only wants to know.

    Unless it is a dry run the interaction is stored, and the most that the call may come to counts as spent: nobody tells what it came to.
    Raises: NotFound, InvalidInput, Conflict, QuotaExceeded as `infer`; Forbidden when guardrails block it or the stage does not allow its
    model.
    """
    turn = _Turn.begun(request, asker, gateway, idempotency_key)
    if (refusal := gateway.allowed.refusal(turn.policy.backend)) is not None:
        raise Forbidden(refusal)
    if turn.blocked is not None:
        if not request.dryrun:
            turn.begins()
            turn.store_actions()
        raise Forbidden("the policy's guardrails keep this request from its model; /v1/infer gives the answer for it")
    call, replay = turn.call(turn.policy), False
    if not request.dryrun:
        with turn.reserved([Question(turn.policy, call, (turn.policy.backend,))]):
            replay = not turn.begins()
            if not replay:
                turn.asking.leaves(turn.policy, turn.policy.backend, call)
    return Decided(
        interaction_id=turn.interaction_id,
        output_id=turn.output_id,
        decision=turn.decision,
        policy=turn.policy,
        call=call,
        feedback_token=turn.feedback_token(turn.output_id),
        replay=replay,
    )


@dataclass(slots=True)
class _Turn:
    """One request on its way."""

    request: InferRequest
    asker: Asker
    gateway: Gateway
    started: float
    interaction_id: str
    output_id: str
    route: Route
    decision: Decision
    policy: Policy
    guarded: Guarded
    asking: Asking
    blocked: Blocked | None = None
    answering: str | None = None
    """The model that answers, once one does."""
    _calls: dict[str, ChatCall] = field(default_factory=dict)
    _reservation: Reservation | None = None
    _streaming: bool = False

    @classmethod
    def begun(cls, request: InferRequest, asker: Asker, gateway: Gateway, idempotency_key: str | None) -> Self:
        """The request with its decision; its prompt can be rendered."""
        started = gateway.timer()
        tenant_id = asker.tenant_id
        interaction_id = request.interaction_id or made_id(tenant_id, "interaction", "int", idempotency_key)
        route = gateway.routes.current_route(tenant_id, request.skill)
        unit, decision_id, now = _unit(route, request, interaction_id), new_id("dec"), gateway.clock()
        if request.policy_id is None:
            spent = gateway.spending.spent_arms(route, tenant_id, now=now)
            decision = assign(route, unit, decision_id=decision_id, decided_at=now, interaction_id=interaction_id, without=spent)
        else:
            decision = pinned(route, request.policy_id, unit, decision_id=decision_id, decided_at=now)
        turn = cls(
            request=request,
            asker=asker,
            gateway=gateway,
            started=started,
            interaction_id=interaction_id,
            output_id=_output_id(interaction_id, gateway.scrubber.digest_for("output_id")(interaction_id)[:20]),
            route=route,
            decision=decision,
            policy=gateway.routes.get_policy(tenant_id, decision.policy_id),
            guarded=Guarded(tenant_id, request.messages, request.inputs, request.documents, gateway.moderator),
            asking=Asking(gateway.backend, gateway.spending),
        )
        if turn.policy.skill != request.skill:
            raise NotFound(f"{decision.policy_id!r} is not a policy of {request.skill!r}", param="policy_id")
        try:
            turn.call(turn.policy)
        except Blocked as blocked:
            turn.blocked = blocked
        return turn

    @contextmanager
    def reserved(self, questions: Iterable[Question]) -> Iterator[None]:
        """Set aside what one of `questions` may cost; what was asked by the end of the block is settled, whatever ends it.

        Raises: QuotaExceeded, DependencyUnavailable.
        """
        gateway = self.gateway
        if self.blocked is not None:  # nobody is asked
            yield
            return
        cap = next((arm.cap for arm in self.route.arms if arm.policy_id == self.decision.arm), None)
        asked = BudgetRequest(
            skill=self.request.skill, key_id=self.asker.key_id, capped=(self.decision.policy_id, cap) if cap is not None else None
        )
        self._reservation = gateway.spending.begin(self.asker.tenant_id, asked, questions, now=gateway.clock())
        try:
            yield
        finally:
            if not self._streaming:
                self._settle()
                self.store_actions()

    def questions(self) -> Iterator[Question]:
        """What may be asked: by the arm and, should it fail, by the control, whose guardrails have not looked yet."""
        yield Question.of(self.policy, self.call(self.policy))
        if self.decision.arm in (CONTROL, PINNED):
            return
        control = self.gateway.routes.get_policy(self.asker.tenant_id, self.route.control)
        try:
            call = self._rendered(control, self.request.inputs, self.request.messages, self.request.documents)
        except InvalidInput:  # then it will not answer either
            return
        yield Question.of(control, call)

    def _settle(self) -> bool:
        """Settle what has been asked so far, once; whether that went well. If not, what was set aside comes back when it expires."""
        reservation, self._reservation = self._reservation, None
        if reservation is None:
            return True
        try:
            self.gateway.spending.end(reservation, self.asking.spent(), now=self.gateway.clock())
        except DependencyUnavailable:
            return False
        return True

    def stored_before(self) -> StoredEvent | None:
        """Store the interaction; the output when this very request was answered before. Raises: Conflict."""
        if self.begins():
            return None
        return self.gateway.store.get_many(self.asker.tenant_id, [self.output_id]).get(self.output_id)

    def begins(self) -> bool:
        """Store the interaction; whether that is new. Raises: Conflict."""
        gateway, tenant_id = self.gateway, self.asker.tenant_id
        given = {name: getattr(self.request, name) for name in self.request.model_fields_set & InteractionCreated.model_fields.keys()}
        interaction = prepare_clean(
            InteractionCreated(**{**given, "interaction_id": self.interaction_id}),
            tenant_id,
            received_at=gateway.clock(),
            scrubber=gateway.scrubber,
        )
        held = gateway.store.put_new(interaction)
        if held is not None and not same_event(held, interaction):
            raise Conflict(f"the id {self.interaction_id!r} holds another payload", param="interaction_id")
        return held is None

    def answer(self) -> Answer:
        """Ask for the whole answer and store it."""
        gateway = self.gateway
        if self.blocked is not None:
            return self._stored((self.blocked.answer,), None, _NOTHING_SPENT, 0.0)
        asked, within_s = gateway.timer(), gateway.within_s - self.policy.guardrails.answer_wait_s

        def ask(attempt: Attempt, timeout_s: float) -> Completion:
            return self.asking.complete(attempt.policy, attempt.backend, self.call(attempt.policy), timeout_s=timeout_s)

        try:
            attempt, completion, failures = self._first(ask, within_s=within_s)
        except Blocked as blocked:  # by the guardrails of the control, after the arm had failed
            self._fall_back(Attempt(blocked.policy, blocked.policy.backend, more=False), (_BLOCKED_BY_CONTROL,))
            return self._stored((blocked.answer,), None, _NOTHING_SPENT, (gateway.timer() - asked) * 1000)
        self._fall_back(attempt, failures)
        choices = self._checked(completion, again=False)
        if choices is None:
            try:
                second = ask(attempt, max(1.0, self.started + within_s - gateway.timer()))
            except (BackendFailed, InvalidInput):
                second = Completion(completion.choices, usage=Usage(input_tokens=0, output_tokens=0))
            choices = self._checked(second, again=True)
            completion = Completion(second.choices, usage=_sum(completion.usage, second.usage), model=second.model)
        return self._stored(choices or completion.choices, completion.usage, self._spent(completion), (gateway.timer() - asked) * 1000)

    def stream(self) -> AnswerStream:
        """Ask for the answer piece by piece and store it when it ends."""
        gateway = self.gateway

        def begin(attempt: Attempt, timeout_s: float) -> tuple[Delta | None, Generator[Delta, None, None]]:
            within_s = self.started + STREAM_S - gateway.timer()
            call = self.call(attempt.policy)
            deltas = self.asking.stream(attempt.policy, attempt.backend, call, timeout_s=timeout_s, within_s=within_s)
            return next(deltas, None), deltas

        asked = gateway.timer()
        try:
            attempt, (first, rest), failures = self._first(begin, within_s=STREAM_S)
        except Blocked as blocked:
            self._fall_back(Attempt(blocked.policy, blocked.policy.backend, more=False), (_BLOCKED_BY_CONTROL,))
            return _at_once(self._stored((blocked.answer,), None, _NOTHING_SPENT, 0.0))
        self._fall_back(attempt, failures)

        def deltas() -> Generator[Delta, None, None]:
            collected, size = Collected(), 0
            try:
                yield Delta()
                for delta in chain([first] if first is not None else [], rest):
                    if gateway.timer() - self.started > STREAM_S:
                        raise BackendFailed("the answer takes too long")
                    size += said(delta)
                    if size > MAX_ANSWER_BYTES:
                        yield collected.add(Delta(delta.index, finish_reason=CUT))
                        break
                    yield collected.add(delta)
            except GeneratorExit:
                self._end(collected.completion(cut_off="cancelled"), (gateway.timer() - asked) * 1000)
                raise
            except BaseException as error:
                self._settle()
                self.store_actions()
                if isinstance(error, BackendFailed):
                    self._store_failure(error.detail)
                raise
            finally:
                self._settle()
                rest.close()
            self._end(collected.completion(cut_off=CUT if size > MAX_ANSWER_BYTES else None), (gateway.timer() - asked) * 1000)

        begun = deltas()
        next(begun)  # what is closed before it has begun runs no line of its own, and this has to settle
        self._streaming = True
        token = self.feedback_token(self.output_id)
        return AnswerStream(self.interaction_id, self.output_id, self.decision.policy_id, self.decision, begun, token)

    def call(self, policy: Policy) -> ChatCall:
        """What `policy` asks of its backend. Raises: InvalidInput, Blocked."""
        known = self._calls.get(policy.policy_id)
        if known is None:
            known = self._calls[policy.policy_id] = self._rendered(policy, *self.guarded.incoming(policy))
            self._check_size(known)
        return known

    def _check_size(self, call: ChatCall) -> None:
        """Whether the prompt, masked, leaves room for its answer in one item, before anybody is paid. Raises: PayloadTooLarge."""
        texts = [text for message in call.messages for text in (message.content, *(one.function.arguments for one in message.tool_calls))]
        if sum(map(len, texts)) < _SMALL_PROMPT:
            return
        size = sum(len(text.encode(errors="surrogatepass")) for text in self.gateway.scrubber.by_patterns.texts(texts))
        if size > MAX_STORED_BYTES - MIN_ANSWER_BYTES:
            most = MAX_STORED_BYTES - MIN_ANSWER_BYTES
            raise PayloadTooLarge(f"the prompt has {size} bytes with its personal data masked; at most {most} are stored")

    def _rendered(
        self, policy: Policy, inputs: dict[str, str] | None, messages: tuple[Message, ...] | None, documents: tuple[Document, ...]
    ) -> ChatCall:
        return chat_call(
            policy,
            inputs=inputs,
            messages=messages,
            documents=documents,
            parameters=self.request.parameters,
            tenant_id=self.asker.tenant_id,
            traceparent=self.asker.traceparent,
            hops=self.asker.hops,
        )

    def _first(self, ask: Callable[[Attempt, float], T], *, within_s: float) -> tuple[Attempt, T, tuple[str, ...]]:
        gateway = self.gateway
        try:
            return first_answer(
                self._attempts(),
                ask,
                until=self.started + within_s,
                breakers=gateway.breakers,
                timer=gateway.timer,
                pause=gateway.pause,
            )
        except DependencyUnavailable as error:
            self._store_failure(error.detail)
            raise

    def _attempts(self) -> Iterator[Attempt]:
        """The arm's backends, then the control's."""
        alone = self.decision.arm in (CONTROL, PINNED)
        policies = [self.decision.policy_id, *([] if alone else [self.route.control])]
        for place, policy_id in enumerate(policies, 1):
            policy = self.policy if place == 1 else self.gateway.routes.get_policy(self.asker.tenant_id, policy_id)
            backends = (policy.backend, *policy.fallbacks)
            for at, backend in enumerate(backends, 1):
                yield Attempt(policy, backend, more=place < len(policies) or at < len(backends))

    def _fall_back(self, attempt: Attempt, failures: tuple[str, ...]) -> None:
        """Have the decision say who answered, and why nobody before did."""
        self.answering = attempt.backend.model
        if not failures:
            return
        changes: dict[str, object] = {"reason": f"fallback: {'; '.join(failures)}"[:1000], "fallback": True}
        if attempt.policy.policy_id != self.decision.policy_id:
            control = self.decision.candidates[0]
            changes |= {"policy_id": control.policy_id, "arm": CONTROL, "propensity": control.probability, "drawn": self.decision.arm}
            self.policy = attempt.policy
        self.decision = self.decision.model_copy(update=changes)

    def _spent(self, completion: Completion) -> Spent:
        return self.gateway.spending.spent(self.policy, self.answering or "", self.call(self.policy), completion)

    def _end(self, completion: Completion, latency_ms: float) -> None:
        """Store a streamed answer; guardrails that could have kept it back are not those of a policy that streams."""
        choices = self._checked(completion, again=True) or completion.choices
        self._stored(choices, completion.usage, self._spent(completion), latency_ms)

    def _checked(self, completion: Completion, *, again: bool) -> tuple[Choice, ...] | None:
        """The choices as prompt and guardrails let them out; `None` asks for others."""
        choices = [replace(choice, text=finished(self.policy.prompt, choice.text)) for choice in bounded(completion.choices)]
        return self.guarded.outgoing(self.policy, choices, again=again)

    def _stored(self, choices: tuple[Choice, ...], usage: Usage | None, spent: Spent, latency_ms: float) -> Answer:
        """Settle what it cost, and store the output and what guardrails did."""
        gateway, request = self.gateway, self.request
        settled = self._settle()
        call = self._calls.get(self.policy.policy_id)
        produced = OutputProduced(
            skill=request.skill,
            thread_id=request.thread_id,
            user_id=request.user_id,
            output_id=self.output_id,
            interaction_id=self.interaction_id,
            policy_id=self.decision.policy_id,
            text=choices[0].text,
            tool_calls=choices[0].tool_calls,
            messages=call.messages if call is not None else None,
            decision=self.decision,
            usage=usage,
            latency_ms=latency_ms,
            finish_reason=choices[0].finish_reason,
            model=self.answering,
            cost_usd=usd(spent.amount.nano_usd) if spent.priced else None,
            price_version=spent.version,
            key_id=self.asker.key_id,
        )
        stored = prepare_answer(produced, self.asker.tenant_id, received_at=gateway.clock(), scrubber=gateway.scrubber)
        earlier = gateway.store.put_new(stored)
        if earlier is not None and not _is_answer(earlier):  # what is paid for is kept, whatever lies under its id
            self.output_id = _output_id(self.interaction_id, str(ULID()))
            elsewhere = produced.model_copy(update={"output_id": self.output_id})
            stored = prepare_answer(elsewhere, self.asker.tenant_id, received_at=gateway.clock(), scrubber=gateway.scrubber)
            earlier = gateway.store.put_new(stored)
        self.store_actions()
        if earlier is not None:
            return self.replayed(earlier)
        return Answer(
            interaction_id=self.interaction_id,
            output_id=self.output_id,
            policy_id=self.decision.policy_id,
            decision=self.decision,
            choices=choices,
            usage=usage,
            cost_usd=produced.cost_usd,
            latency_ms=latency_ms,
            overhead_ms=(gateway.timer() - self.started) * 1000 - latency_ms,
            replay=False,
            feedback_token=self.feedback_token(self.output_id),
            settled=settled,
        )

    def replayed(self, stored: StoredEvent) -> Answer:
        """The answer that was stored before. Raises: Conflict for what is none of the gateway's."""
        output = stored.event()
        if not isinstance(output, OutputProduced) or output.decision is None:
            raise Conflict("the interaction's output was reported by the application; ask under another id", param="interaction_id")
        return Answer(
            interaction_id=output.interaction_id,
            output_id=stored.event_id,
            policy_id=output.decision.policy_id,
            decision=output.decision,
            choices=(Choice(text=output.text, finish_reason=output.finish_reason, tool_calls=output.tool_calls),),
            usage=output.usage,
            cost_usd=output.cost_usd,
            latency_ms=output.latency_ms or 0.0,
            overhead_ms=0.0,
            replay=True,
            feedback_token=self.feedback_token(stored.event_id),
        )

    def feedback_token(self, output_id: str) -> str:
        """What a page that shows the output gives feedback by."""
        request = self.request
        shown = Shown(request.skill, self.interaction_id, output_id, request.thread_id, request.user_id)
        return feedback_token(shown, scrubber=self.gateway.scrubber, now=self.gateway.clock())

    def _store_failure(self, reason: str) -> None:
        """Store that nobody answered: it counts for the arm that was dealt. A second try of the request has a decision of its own."""
        tail = self.decision.decision_id.removeprefix("dec_")
        failed = RequestFailed(
            skill=self.request.skill,
            thread_id=self.request.thread_id,
            user_id=self.request.user_id,
            failure_id=bound_id("fal", self.interaction_id, tail) or derived_id("fal", self.interaction_id, tail),
            interaction_id=self.interaction_id,
            decision=self.decision,
            reason=reason[:500],
        )
        self.gateway.store.put_new(prepare(failed, self.asker.tenant_id, received_at=self.gateway.clock()))

    def store_actions(self) -> None:
        """Store what guardrails did, each once."""
        request, tenant_id, now = self.request, self.asker.tenant_id, self.gateway.clock()
        events = self.guarded.events(
            tenant_id=tenant_id,
            skill=request.skill,
            interaction_id=self.interaction_id,
            output_id=self.output_id,
            thread_id=request.thread_id,
            user_id=request.user_id,
        )
        if events:
            self.gateway.store.put_each([prepare(event, tenant_id, received_at=now) for event in events])


def _unit(route: Route, request: InferRequest, interaction_id: str) -> str:
    named = {"thread": request.thread_id, "user": request.user_id, "interaction": None}[route.unit]
    return named or interaction_id


def _at_once(answer: Answer) -> AnswerStream:
    """A whole answer as a stream."""
    return AnswerStream(
        interaction_id=answer.interaction_id,
        output_id=answer.output_id,
        policy_id=answer.policy_id,
        decision=answer.decision,
        deltas=deltas_of(answer.choices, answer.usage),
        feedback_token=answer.feedback_token,
        replay=answer.replay,
    )


def _sum(one: Usage | None, other: Usage | None) -> Usage | None:
    if one is None or other is None:
        return None
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_tokens=one.cached_tokens + other.cached_tokens,
    )


def _output_id(interaction_id: str, tail: str) -> str:
    """An id that whoever knows the interaction's cannot guess."""
    return bound_id("out", interaction_id, tail) or derived_id("out", interaction_id, tail)


def _is_answer(stored: StoredEvent) -> bool:
    """Whether the gateway made it: nobody else can say by whose key a model was asked."""
    output = stored.event()
    return isinstance(output, OutputProduced) and output.key_id is not None
