import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from pydantic import ValidationError

from rlaas.chat import (
    BackendFailed,
    CalledFunction,
    ChatCall,
    Choice,
    Completion,
    Delta,
    Message,
    NoCapacity,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from rlaas.errors import Conflict, DependencyUnavailable, Forbidden, InvalidInput, NotFound, QuotaExceeded
from rlaas.inference.circuit_breakers import CircuitBreakers
from rlaas.inference.decide import Asker, InferRequest
from rlaas.inference.gateway import Gateway
from rlaas.inference.infer import AnswerStream, decide, infer, infer_stream
from rlaas.inference.record import Answer
from rlaas.inference.spending import Spending
from rlaas.metering.budgets import Budget, Budgets, Cap, Limit
from rlaas.metering.prices import Price, PriceTable
from rlaas.policies.allowed_models import AllowedModels
from rlaas.policies.backend import BackendSpec, OpenAIBackend
from rlaas.policies.guardrails.settings import Guardrails
from rlaas.privacy.scrub import Scrubber
from rlaas.routing.assign import CONTROL
from rlaas.telemetry.events import GuardrailActed, InteractionCreated, OutputProduced, RequestFailed
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.store import StoredEvent
from tests.fakes.backend import EchoBackend
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, canary, clock, furnished, policy, route

ASKER = Asker(TENANT, "key1")


def gateway(
    *,
    registry: MemoryRegistry | None = None,
    backend: EchoBackend | None = None,
    store: MemoryEventStore | None = None,
    spending: Spending | None = None,
) -> Gateway:
    ticks = count()
    timer = lambda: float(next(ticks))  # noqa: E731
    return Gateway(
        routes=registry or furnished(),
        backend=backend or EchoBackend(),
        store=store if store is not None else MemoryEventStore(),
        scrubber=AS_IT_IS,
        spending=spending or Spending(MemoryCounters(), Budgets(), PriceTable()),
        clock=clock,
        whole_s=27.0,
        stream_s=110.0,
        timer=timer,
        pause=lambda _: None,
        breakers=CircuitBreakers(timer),
    )


def ask(
    store: MemoryEventStore,
    *,
    registry: MemoryRegistry | None = None,
    backend: EchoBackend | None = None,
    email: str = "where is my parcel?",
    key: str | None = None,
    spending: Spending | None = None,
    **fields: object,
) -> Answer:
    request = InferRequest.model_validate_json(json.dumps({"skill": SKILL, "inputs": {"email": email}, **fields}))
    return infer(request, ASKER, gateway(registry=registry, backend=backend, store=store, spending=spending), idempotency_key=key)


def test_the_answer_and_why_it_was_given_are_stored() -> None:
    store = MemoryEventStore()
    answer = ask(store, thread_id="t1", user_id="u1")
    assert answer.text == "v1: Reply to: where is my parcel?"
    stored = store.get_many(TENANT, [answer.interaction_id, answer.output_id])
    interaction, output = stored[answer.interaction_id].event(), stored[answer.output_id].event()
    assert isinstance(interaction, InteractionCreated)
    assert isinstance(output, OutputProduced)
    assert (interaction.inputs, interaction.thread_id) == ({"email": "where is my parcel?"}, "t1")
    assert (output.text, output.decision, output.policy_id) == (answer.text, answer.decision, f"{SKILL}@v1")
    assert output.messages == (Message(role="user", content="Reply to: where is my parcel?"),)
    assert (output.usage, output.finish_reason, output.latency_ms) == (answer.usage, "stop", answer.latency_ms)
    assert (output.thread_id, output.user_id, output.interaction_id) == ("t1", "u1", answer.interaction_id)


def test_a_thread_stays_with_its_arm() -> None:
    registry, store = furnished((canary(2, 0.5),)), MemoryEventStore()
    arms = {thread: {ask(store, registry=registry, thread_id=thread).decision.arm for _ in range(3)} for thread in map(str, range(20))}
    assert all(len(taken) == 1 for taken in arms.values())
    assert {arm for taken in arms.values() for arm in taken} == {CONTROL, f"{SKILL}@v2"}


def test_a_request_sent_again_gets_the_stored_output_and_the_model_is_not_asked() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    first = ask(store, backend=backend, interaction_id="mine")
    again = ask(store, backend=backend, registry=furnished((canary(2, 1.0),)), interaction_id="mine")
    assert again.replay
    assert (again.output_id, again.text, again.decision) == (first.output_id, first.text, first.decision)
    assert len(backend.asked) == 1
    assert len(store.events) == 2


def test_an_idempotency_key_stands_in_for_the_interaction_id() -> None:
    store = MemoryEventStore()
    first = ask(store, key="retry-1")
    assert ask(store, key="retry-1").output_id == first.output_id
    assert ask(store, key="retry-2").output_id != first.output_id


def test_a_request_whose_model_failed_is_answered_when_sent_again() -> None:
    store = MemoryEventStore()
    with pytest.raises(DependencyUnavailable):
        ask(store, backend=EchoBackend(down={"v1"}), interaction_id="mine")
    assert [event.event_type for event in store.events.values()] == ["interaction", "failure"]
    assert not ask(store, interaction_id="mine").replay


def test_a_request_that_nobody_answers_leaves_a_failure_of_the_arm_it_was_dealt_each_time_it_is_tried() -> None:
    store = MemoryEventStore()
    for _ in range(2):
        with pytest.raises(DependencyUnavailable):
            ask(store, registry=furnished((canary(2, 0.999),)), backend=EchoBackend(down={"v1", "v2"}), interaction_id="mine")
    failures = [event.event() for event in store.events.values() if event.event_type == "failure"]
    assert [failure.decision.arm for failure in failures if isinstance(failure, RequestFailed)] == [f"{SKILL}@v2"] * 2


def test_an_interaction_id_with_another_payload_conflicts() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    ask(store, interaction_id="mine")
    with pytest.raises(Conflict) as conflict:
        ask(store, backend=backend, interaction_id="mine", email="another")
    assert conflict.value.param == "interaction_id"
    assert backend.asked == []


def test_the_control_answers_for_an_arm_that_does_not_and_the_decision_says_so() -> None:
    backend = EchoBackend(down={"v2"})
    answer = ask(MemoryEventStore(), registry=furnished((canary(2, 0.999),)), backend=backend, thread_id="t1")
    assert (answer.policy_id, answer.decision.arm, answer.decision.fallback) == (f"{SKILL}@v1", CONTROL, True)
    assert answer.decision.propensity == pytest.approx(0.001)
    assert answer.decision.reason == f"fallback: {SKILL}@v2 by sagemaker v2: the model endpoint answered ModelError"
    assert [component for component, _, _ in backend.asked] == ["v2", "v1"]
    assert [timeout for _, _, timeout in backend.asked] == [pytest.approx(0.55 * 25), pytest.approx(24)]


def test_when_the_control_is_down_too_the_failure_is_the_dependencys() -> None:
    backend = EchoBackend(down={"v1", "v2"})
    with pytest.raises(DependencyUnavailable):
        ask(MemoryEventStore(), registry=furnished((canary(2, 1.0),)), backend=backend)
    assert len(backend.asked) == 2


def test_a_missing_input_is_named_and_nothing_is_stored() -> None:
    store = MemoryEventStore()
    with pytest.raises(InvalidInput) as refused:
        infer(InferRequest(skill=SKILL, inputs={"mail": "hello"}), ASKER, gateway(store=store))
    assert refused.value.param == "inputs.email"
    assert store.events == {}


def test_a_skill_without_a_route_is_not_found() -> None:
    with pytest.raises(NotFound) as refused:
        ask(MemoryEventStore(), registry=MemoryRegistry())
    assert refused.value.param == "skill"


def chat(*messages: tuple[str, str], inputs: dict[str, str] | None = None) -> tuple[Message, ...]:
    registry = MemoryRegistry()
    registry.put_policy(policy(1, system="You work for {{ company }}."), CHANGE)
    registry.write_route(route(), expected_version=0)
    request = InferRequest(
        skill=SKILL, messages=tuple(Message.model_validate({"role": role, "content": text}) for role, text in messages), inputs=inputs
    )
    backend = EchoBackend()
    infer(request, ASKER, gateway(registry=registry, backend=backend))
    return backend.asked[0][1]


def test_a_chats_messages_follow_the_policys_system_message() -> None:
    asked = chat(("user", "{{ hello }}"), ("assistant", "hi"), ("user", "bye"), inputs={"company": "Acme"})
    assert [message.content for message in asked] == ["You work for Acme.", "{{ hello }}", "hi", "bye"]


def test_a_chat_that_brings_a_system_message_keeps_it() -> None:
    assert [message.content for message in chat(("system", "Be brief."), ("user", "hello"))] == ["Be brief.", "hello"]


# Backends that fail


def spec(model: str, **fields: object) -> OpenAIBackend:
    return OpenAIBackend(model=model, base_url="https://models.example.com/v1", **fields)


def with_fallbacks(*models: str) -> MemoryRegistry:
    """Policy 1 asks the first model, then the others."""
    registry = MemoryRegistry()
    first, *others = map(spec, models)
    changed = policy(1).model_copy(update={"backend": first, "fallbacks": tuple(others)})
    registry.put_policy(changed, CHANGE)
    registry.put_policy(policy(2), CHANGE)
    registry.write_route(route(), expected_version=0)
    return registry


def test_a_policys_fallbacks_answer_in_their_order_and_the_policy_stays_the_one_decided() -> None:
    backend = EchoBackend(down={"a", "b"})
    answer = ask(MemoryEventStore(), registry=with_fallbacks("a", "b", "c"), backend=backend)
    assert (answer.text.partition(":")[0], answer.policy_id, answer.decision.fallback) == ("c", f"{SKILL}@v1", True)
    assert [model for model, _, _ in backend.asked] == ["a", "b", "c"]
    assert answer.decision.reason.startswith(f"fallback: {SKILL}@v1 by openai a: ")


class Busy(EchoBackend):
    """Says that it is busy the first `times`."""

    times = 1

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        if self.times:
            self.times -= 1
            self.asked.append((backend.model, call.messages, timeout_s))
            raise BackendFailed("busy", safe_to_repeat=True, retry_after_s=1.0)
        return super().complete(backend, call, timeout_s=timeout_s)


def test_a_busy_backend_is_asked_once_more_when_nobody_else_can_answer() -> None:
    backend = Busy()
    answer = ask(MemoryEventStore(), backend=backend)
    assert (len(backend.asked), answer.decision.fallback) == (2, False)
    other = Busy()
    assert ask(MemoryEventStore(), registry=with_fallbacks("a", "b"), backend=other).decision.fallback
    assert [model for model, _, _ in other.asked] == ["a", "b"]


class Asleep(EchoBackend):
    """No machine holds its models."""

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        self.asked.append((backend.model, call.messages, timeout_s))
        if backend.kind == "sagemaker":
            raise NoCapacity("the model endpoint has no copy of the model running")
        return super().complete(backend, call, timeout_s=timeout_s)


def test_a_request_to_a_sleeping_model_is_told_when_to_come_back_and_is_stored_as_the_failure_of_its_arm() -> None:
    store, backend = MemoryEventStore(), Asleep()
    with pytest.raises(DependencyUnavailable, match="no copy of the model") as refused:
        ask(store, registry=furnished((canary(2, 0.999),)), backend=backend)
    assert refused.value.retry_after_s == 60
    assert [model for model, _, _ in backend.asked] == ["v2", "v1"]  # each once: nobody waits a minute inside a request
    (failure,) = [event.event() for event in store.events.values() if event.event_type == "failure"]
    assert isinstance(failure, RequestFailed)
    assert failure.decision.arm == f"{SKILL}@v2"


def test_the_declared_fallback_answers_for_a_sleeping_model_and_the_decision_says_so() -> None:
    registry = MemoryRegistry()
    registry.put_policy(policy(1).model_copy(update={"fallbacks": (spec("c"),)}), CHANGE)
    registry.write_route(route(), expected_version=0)
    answer = ask(MemoryEventStore(), registry=registry, backend=Asleep())
    assert (answer.text.partition(":")[0], answer.decision.fallback, answer.decision.counts) == ("c", True, False)
    assert "no copy of the model" in answer.decision.reason


def test_a_sleeping_model_hears_every_request_for_it() -> None:
    """It refuses at once, which no circuit need protect from, and it wakes by being asked."""
    backend = Asleep()
    world = gateway(backend=backend)
    for _ in range(7):
        with pytest.raises(DependencyUnavailable) as refused:
            infer(InferRequest(skill=SKILL, inputs={"email": "?"}), ASKER, world)
        assert refused.value.retry_after_s == 60
    assert len(backend.asked) == 7


def test_a_circuit_opens_after_failures_in_a_row_and_lets_one_request_try_again() -> None:
    now = [0.0]
    breakers = CircuitBreakers(lambda: now[0], failures=2, open_s=10)
    for _ in range(2):
        assert breakers.allows("a")
        breakers.note_failure("a")
    assert (breakers.allows("a"), breakers.allows("b")) == (False, True)
    now[0] = 11
    assert (breakers.allows("a"), breakers.allows("a")) == (True, False)
    breakers.note_answer("a")
    assert (breakers.allows("a"), breakers.allows("a")) == (True, True)


def test_a_backend_whose_circuit_is_open_is_not_asked_for_this_tenant() -> None:
    backend = EchoBackend(down={"v1"})
    world = gateway(backend=backend)
    for _ in range(7):
        with pytest.raises(DependencyUnavailable):
            infer(InferRequest(skill=SKILL, inputs={"email": "?"}), ASKER, world)
    assert len(backend.asked) == 5
    assert world.breakers.allows(("another-tenant", policy(1).backend))


# Parameters, pins and decisions


def test_a_requests_parameters_go_before_the_policys() -> None:
    backend = EchoBackend()
    ask(MemoryEventStore(), backend=backend, parameters={"temperature": 1.5, "max_completion_tokens": 9, "top_k": 3, "stop": None})
    assert backend.calls[0].parameters == {"temperature": 1.5, "max_completion_tokens": 9, "top_k": 3}


def test_a_parameter_that_the_backend_does_not_take_is_refused_by_name_and_no_fallback_is_asked() -> None:
    backend = EchoBackend(refuses={"logprobs"})
    with pytest.raises(InvalidInput) as refused:
        ask(MemoryEventStore(), registry=with_fallbacks("a", "b"), backend=backend, parameters={"logprobs": True})
    assert refused.value.param == "logprobs"


def test_a_policy_may_be_asked_for_and_its_answer_counts_in_no_estimate() -> None:
    answer = ask(MemoryEventStore(), policy_id=f"{SKILL}@v2")
    assert (answer.policy_id, answer.decision.pinned, answer.decision.counts) == (f"{SKILL}@v2", True, False)
    assert sum(one.probability for one in answer.decision.candidates) == 1
    with pytest.raises(NotFound) as missing:
        ask(MemoryEventStore(), policy_id="another-skill@v1")
    assert missing.value.param == "policy_id"


def test_a_dry_run_decides_and_renders_and_stores_nothing() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    request = InferRequest(skill=SKILL, inputs={"email": "?"}, dryrun=True)
    found = decide(request, ASKER, gateway(store=store, backend=backend))
    assert found.call.messages == (Message(role="user", content="Reply to: ?"),)
    assert (store.events, backend.asked) == ({}, [])
    decide(request.model_copy(update={"dryrun": False}), ASKER, gateway(store=store))
    assert [event.event_type for event in store.events.values()] == ["interaction"]


# Streams


def streamed(store: MemoryEventStore, **given: Any) -> AnswerStream:
    return infer_stream(InferRequest(skill=SKILL, inputs={"email": "where is it"}), ASKER, gateway(store=store, **given))


def test_a_stream_is_stored_as_the_answer_it_adds_up_to() -> None:
    store = MemoryEventStore()
    stream = streamed(store)
    texts = [delta.text for delta in stream.deltas]
    assert len([text for text in texts if text]) > 3
    output = store.get_many(TENANT, [stream.output_id])[stream.output_id].event()
    assert isinstance(output, OutputProduced)
    assert (output.text, output.finish_reason) == ("".join(texts), "stop")
    assert output.usage is not None
    again = streamed(store)
    assert again.output_id != stream.output_id


def test_a_stream_left_by_its_reader_is_stored_as_far_as_it_came() -> None:
    store = MemoryEventStore()
    stream = streamed(store)
    first = next(stream.deltas).text
    stream.deltas.close()
    output = store.get_many(TENANT, [stream.output_id])[stream.output_id].event()
    assert isinstance(output, OutputProduced)
    assert (output.text, output.finish_reason, output.usage) == (first, "cancelled", None)


def test_until_its_first_piece_a_stream_has_fallbacks_and_a_broken_one_is_a_failure() -> None:
    backend = EchoBackend(down={"v2"})
    stream = streamed(MemoryEventStore(), registry=furnished((canary(2, 1.0),)), backend=backend)
    assert (stream.policy_id, stream.decision.fallback) == (f"{SKILL}@v1", True)
    store = MemoryEventStore()
    broken = streamed(store, backend=Breaking())
    next(broken.deltas)
    with pytest.raises(BackendFailed):
        list(broken.deltas)
    assert [event.event_type for event in store.events.values()] == ["interaction", "failure"]


class Breaking(EchoBackend):
    """Says one word and breaks off."""

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        yield Delta(text="Dear ")
        raise BackendFailed("the connection broke")


# Money


PRICES = PriceTable(version=3, prices={"v1": Price(input=1.0, output=2.0)})


def limited(counters: MemoryCounters, limit: float, measure: str = "requests") -> Spending:
    budget = Budget.model_validate({"name": "all", "measure": measure, "limit": limit, "window": "day"})
    return Spending(counters, Budgets(budgets=(budget,)), PRICES)


def test_an_answer_says_what_it_cost_by_which_prices_and_who_asked() -> None:
    store = MemoryEventStore()
    answer = ask(store, spending=limited(MemoryCounters(), 10))
    output = store.get_many(TENANT, [answer.output_id])[answer.output_id].event()
    assert isinstance(output, OutputProduced)
    assert answer.usage is not None
    assert output.cost_usd == answer.cost_usd == pytest.approx((answer.usage.input_tokens + 2 * answer.usage.output_tokens) / 1e6)
    assert ask(MemoryEventStore(), spending=Spending(MemoryCounters(), Budgets(), PriceTable())).cost_usd is None
    assert (output.price_version, output.key_id, output.model) == (3, "key1", "v1")


def test_a_spent_budget_refuses_before_anything_is_stored_or_asked() -> None:
    counters, store, backend = MemoryCounters(), MemoryEventStore(), EchoBackend()
    for _ in range(2):
        ask(store, spending=limited(counters, 2))
    with pytest.raises(QuotaExceeded) as refused:
        ask(store, backend=backend, spending=limited(counters, 2))
    assert refused.value.retry_after_s is not None
    assert (len(store.events), backend.asked) == (4, [])


def test_what_was_set_aside_is_given_back_when_nothing_was_done_or_the_answer_was_there() -> None:
    counters, store = MemoryCounters(), MemoryEventStore()
    for _ in range(3):
        with pytest.raises(DependencyUnavailable):
            ask(store, backend=Failing(BackendFailed("nobody is there", nothing_done=True)), spending=limited(counters, 1))
    first = ask(store, interaction_id="mine", spending=limited(counters, 2))
    assert ask(store, interaction_id="mine", spending=limited(counters, 2)).output_id == first.output_id
    assert not ask(store, spending=limited(counters, 2)).replay


class Failing(EchoBackend):
    """Raises `error`, in a stream after `pieces` of it; or answers with `said` in the place of what it would."""

    def __init__(self, error: BaseException | None = None, *, pieces: int = 0, said: Completion | None = None) -> None:
        super().__init__()
        self.error, self.pieces, self.said = error, pieces, said

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        if self.error is not None:
            raise self.error
        return self.said or super().complete(backend, call, timeout_s=timeout_s)

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        yield from [Delta(text="Dear ")] * self.pieces
        if self.error is not None:
            raise self.error


def spent_of(counters: MemoryCounters) -> int:
    """What the one budget has spent; nothing is set aside any more."""
    [item] = counters.items.values()
    assert not [name for name in item if name.startswith("open")]
    [spent] = [value for name, value in item.items() if name.startswith("spent")]
    assert isinstance(spent, int)
    return spent


@pytest.mark.parametrize("leave", [0, 1, None])
def test_a_stream_settles_when_it_ends_and_counts_in_full_when_it_is_left(leave: int | None) -> None:
    counters = MemoryCounters()
    stream = streamed(MemoryEventStore(), spending=limited(counters, 100_000, "tokens"))
    for _ in range(leave or 0):
        next(stream.deltas)
    if leave is None:
        list(stream.deltas)
    stream.deltas.close()
    assert (spent_of(counters) > 256) == (leave is not None)


@pytest.mark.parametrize("measure", ["requests", "tokens"])
@pytest.mark.parametrize("pieces", [None, 0, 2])
@pytest.mark.parametrize(
    "error", [BackendFailed("it took too long"), ValueError("nobody foresaw this"), RecursionError(), KeyError("choices"), MemoryError()]
)
def test_what_was_sent_counts_in_full_whatever_becomes_of_it(error: Exception, pieces: int | None, measure: str) -> None:
    counters, store = MemoryCounters(), MemoryEventStore()
    spending, backend = limited(counters, 100_000, measure), Failing(error, pieces=pieces or 0)

    def told() -> object:
        if pieces is None:
            return ask(store, backend=backend, spending=spending)
        return list(streamed(store, backend=backend, spending=spending).deltas)

    with pytest.raises(BackendFailed if pieces else DependencyUnavailable):
        told()
    assert spent_of(counters) == 1 if measure == "requests" else spent_of(counters) > 256
    assert [event.event_type for event in store.events.values()] == ["interaction", "failure"]


@pytest.mark.parametrize("error", [BackendFailed("it answered 429", nothing_done=True), InvalidInput("it does not take this", param="n")])
def test_a_refusal_before_any_work_is_free(error: Exception) -> None:
    counters = MemoryCounters()
    with pytest.raises((DependencyUnavailable, InvalidInput)):
        ask(MemoryEventStore(), backend=Failing(error), spending=limited(counters, 100))
    assert spent_of(counters) == 0


def test_every_backend_that_was_asked_in_vain_counts_beside_the_one_that_answered() -> None:
    registry, counters = MemoryRegistry(), MemoryCounters()
    spare = OpenAIBackend(model="spare", base_url="https://models.example.com/v1")
    registry.put_policy(policy(1).model_copy(update={"fallbacks": (spare,)}), CHANGE)
    registry.write_route(route(), expected_version=0)
    spending, backend = limited(counters, 100_000, "tokens"), EchoBackend(down={"v1"})
    answer = ask(MemoryEventStore(), registry=registry, backend=backend, spending=spending, parameters={"max_tokens": 300})
    assert answer.usage is not None
    assert spent_of(counters) > 300 + answer.usage.input_tokens + answer.usage.output_tokens


def test_an_answer_counts_when_what_comes_after_it_fails() -> None:
    class Away(MemoryEventStore):
        def put_new(self, event: StoredEvent) -> StoredEvent | None:
            if event.event_type == "output":
                raise ZeroDivisionError
            return super().put_new(event)

    counters = MemoryCounters()
    with pytest.raises(ZeroDivisionError):
        ask(Away(), spending=limited(counters, 10))
    assert spent_of(counters) == 1


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=10**9, output_tokens=10**9),
        Usage(input_tokens=1, output_tokens=1, cached_tokens=10**9),
    ],
)
def test_counts_that_cannot_be_are_not_believed(usage: Usage) -> None:
    counters = MemoryCounters()
    said = Failing(said=Completion((Choice("hello", "stop"),), usage))
    answer = ask(MemoryEventStore(), backend=said, spending=limited(counters, 10_000, "tokens"), parameters={"max_tokens": 300})
    assert answer.usage is None
    assert 300 < spent_of(counters) < 400


@pytest.mark.parametrize(
    "said",
    [
        Completion((), None),
        Completion((Choice("a", "stop"), Choice("b", "stop")), None),
        Completion((Choice("a", "x" * 1_000),), None),
        Completion((Choice("a", "stop", tool_calls=(ToolCall(id="1", function=CalledFunction(name="f", arguments="")),) * 1_000),), None),
    ],
)
def test_an_answer_that_has_no_room_in_an_output_is_a_failure(said: Completion) -> None:
    store = MemoryEventStore()
    with pytest.raises(DependencyUnavailable):
        ask(store, backend=Failing(said=said))
    assert [event.event_type for event in store.events.values()] == ["interaction", "failure"]


@pytest.mark.parametrize(
    "delta",
    [
        Delta(index=-1, text="a"),
        Delta(index=10**30, text="a"),
        Delta(tool_calls=(ToolCallDelta(10**9, id="1", name="f"),)),
        Delta(tool_calls=(ToolCallDelta(0, id="1" * 1_000, name="f"),)),
        Delta(finish_reason="x" * 1_000),
    ],
)
def test_a_stream_of_what_has_no_room_in_an_output_is_a_failure(delta: Delta) -> None:
    class Wild(EchoBackend):
        def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
            yield delta

    store = MemoryEventStore()
    with pytest.raises(DependencyUnavailable):
        streamed(store, backend=Wild())
    assert [event.event_type for event in store.events.values()] == ["interaction", "failure"]


def test_tools_and_schemas_are_read_too_and_set_aside_for() -> None:
    tool = {"type": "function", "function": {"name": "look_up", "description": "parcels " * 1_000, "parameters": {"type": "object"}}}
    spending = limited(MemoryCounters(), 1_000, "tokens")
    ask(MemoryEventStore(), spending=spending, parameters={"max_tokens": 10})
    for shown in ({"tools": [tool]}, {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": tool}}}):
        with pytest.raises(QuotaExceeded):
            ask(MemoryEventStore(), spending=spending, parameters={"max_tokens": 10, **shown})


def test_what_is_set_aside_is_enough_for_the_dearest_model_that_may_answer() -> None:
    registry = MemoryRegistry()
    dear = OpenAIBackend(model="dear", base_url="https://models.example.com/v1")
    registry.put_policy(policy(1).model_copy(update={"fallbacks": (dear,)}), CHANGE)
    registry.write_route(route(), expected_version=0)
    prices = PriceTable(version=3, prices={"v1": Price(input=1.0, output=2.0), "dear": Price(input=1.0, output=20_000.0)})
    budget = Budget(name="all", measure="usd", limit=1, window="day")
    with pytest.raises(QuotaExceeded):
        ask(
            MemoryEventStore(),
            registry=registry,
            spending=Spending(MemoryCounters(), Budgets(budgets=(budget,)), prices),
            parameters={"max_tokens": 100},
        )


def test_what_is_set_aside_is_enough_for_the_control_that_may_answer_for_the_arm() -> None:
    registry = MemoryRegistry()
    for number, longest in ((1, 5_000), (2, 10)):
        made = policy(number)
        registry.put_policy(made.model_copy(update={"sampling": made.sampling.model_copy(update={"max_tokens": longest})}), CHANGE)
    registry.write_route(route(arms=(canary(2, 1.0),)), expected_version=0)
    with pytest.raises(QuotaExceeded):
        ask(MemoryEventStore(), registry=registry, spending=limited(MemoryCounters(), 4_000, "tokens"))
    assert ask(MemoryEventStore(), registry=registry, spending=limited(MemoryCounters(), 6_000, "tokens")).policy_id == f"{SKILL}@v2"


def test_what_is_set_aside_is_enough_for_an_answer_that_guardrails_have_made_again() -> None:
    rule = {"kind": "json_schema", "json_schema": SCHEMA}

    def served(action: str) -> Answer:
        spending = limited(MemoryCounters(), 500, "tokens")
        registry = guarded_by(output=[{**rule, "action": action}])
        return ask(MemoryEventStore(), registry=registry, spending=spending, parameters={"max_tokens": 300})

    served("flag")
    with pytest.raises(QuotaExceeded):
        served("regenerate")


def test_nobody_is_told_to_ask_a_model_that_the_stage_does_not_allow() -> None:
    store, stage = MemoryEventStore(), AllowedModels(("openai:*",))
    for dryrun in (True, False):
        with pytest.raises(Forbidden, match="'sagemaker:v1'"):
            decide(InferRequest(skill=SKILL, inputs={"email": "?"}, dryrun=dryrun), ASKER, replace(gateway(store=store), allowed=stage))
    assert not store.events


def test_the_platforms_ceiling_holds_whatever_the_tenants_budgets_say() -> None:
    ceiling, counters = Limit(measure="requests", limit=1, window="day"), MemoryCounters()
    spending = replace(limited(counters, 1_000, "requests"), ceilings=(ceiling,))
    ask(MemoryEventStore(), spending=spending)
    with pytest.raises(QuotaExceeded, match="the platform's ceiling of 1 requests a day has no room"):
        ask(MemoryEventStore(), spending=spending)


def test_a_decision_to_ask_oneself_spends_the_most_that_the_call_may_come_to_once() -> None:
    counters, store = MemoryCounters(), MemoryEventStore()
    request = InferRequest(skill=SKILL, inputs={"email": "?"}, interaction_id="mine", parameters={"max_tokens": 300})
    replays = [decide(request, ASKER, gateway(store=store, spending=limited(counters, 1_000, "tokens"))).replay for _ in range(2)]
    assert replays == [False, True]
    [item] = counters.items.values()
    [spent] = [value for name, value in item.items() if name.startswith("spent")]
    assert isinstance(spent, int)
    assert 300 < spent < 330
    assert not [name for name in item if name.startswith("open")]
    refused = request.model_copy(update={"interaction_id": "other", "parameters": {"max_tokens": 800}})
    with pytest.raises(QuotaExceeded):
        decide(refused, ASKER, gateway(store=store, spending=limited(counters, 1_000, "tokens")))
    assert len(store.events) == 1


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"max_tokens": -1_000_000}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_completion_tokens": True}, "max_completion_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"n": -3}, "n"),
        ({"model": "acme--mail--v7"}, "model"),
        ({"messages": []}, "messages"),
        ({"stream": True}, "stream"),
    ],
)
def test_parameters_neither_choose_the_model_nor_bring_the_reservation_down(parameters: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError, match=rf"\b{named} is "):
        InferRequest(skill=SKILL, inputs={"email": "?"}, parameters=parameters)


def test_a_bound_of_null_is_none_and_the_policys_holds() -> None:
    backend = EchoBackend()
    ask(MemoryEventStore(), backend=backend, parameters={"max_completion_tokens": None, "max_tokens": None, "n": None})
    assert backend.calls[0].parameters["max_tokens"] == policy(1).sampling.max_tokens


def test_an_arm_whose_cap_is_spent_leaves_its_share_to_the_control_and_the_probabilities_say_so() -> None:
    arm = canary(2, 1.0).model_copy(update={"cap": Cap(requests=2)})
    registry, spending = furnished((arm,)), Spending(MemoryCounters(), Budgets(), PRICES)
    answers = [ask(MemoryEventStore(), registry=registry, spending=spending, thread_id="t1") for _ in range(3)]
    assert [answer.policy_id[-2:] for answer in answers] == ["v2", "v2", "v1"]
    last = answers[-1].decision
    assert (last.propensity, last.fallback, last.reason) == (1.0, False, "the arm's cap is spent")
    assert [one.arm for one in last.candidates] == [CONTROL]


# Guardrails


def guarded_by(**config: object) -> MemoryRegistry:
    registry = MemoryRegistry()
    guardrails = Guardrails.model_validate_json(json.dumps(config))
    registry.put_policy(policy(1).model_copy(update={"guardrails": guardrails}), CHANGE)
    registry.write_route(route(), expected_version=0)
    return registry


def actions(store: MemoryEventStore) -> list[tuple[str, str, str]]:
    """Stage, kind and action of what guardrails did, in order."""
    events = [stored.event() for stored in store.events.values()]
    done = sorted((event for event in events if isinstance(event, GuardrailActed)), key=lambda event: event.position)
    return [(event.stage, event.kind, event.action) for event in done]


BLOCK_LIST = {"kind": "block_list", "terms": ["parcel bomb"], "action": "block"}


def test_a_blocked_request_gets_the_safe_answer_asks_nobody_and_costs_nothing() -> None:
    store, backend, counters = MemoryEventStore(), EchoBackend(), MemoryCounters()
    registry = guarded_by(input=[BLOCK_LIST], safe_answer="Please call us.")
    given = {"registry": registry, "backend": backend, "spending": limited(counters, 1)}
    answer = ask(store, email="the parcel bomb", interaction_id="mine", **given)  # type: ignore[arg-type]
    assert (answer.text, answer.finish_reason, answer.decision.fallback) == ("Please call us.", "content_filter", False)
    assert (backend.asked, counters.items) == ([], {})
    assert actions(store) == [("input", "block_list", "block")]
    assert ask(store, email="the parcel bomb", interaction_id="mine", **given).replay  # type: ignore[arg-type]
    assert len(actions(store)) == 1


def test_a_decision_that_guardrails_block_is_refused_and_what_they_did_is_kept() -> None:
    store, counters = MemoryEventStore(), MemoryCounters()
    request = InferRequest(skill=SKILL, inputs={"email": "the parcel bomb"}, interaction_id="mine")
    given = gateway(store=store, registry=guarded_by(input=[BLOCK_LIST]), spending=limited(counters, 1))
    with pytest.raises(Forbidden):
        decide(request, ASKER, given)
    assert (actions(store), counters.items) == ([("input", "block_list", "block")], {})
    assert infer(request, ASKER, given).finish_reason == "content_filter"
    assert len(actions(store)) == 1


def test_personal_data_is_taken_out_before_the_backend_sees_it() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    registry = guarded_by(input=[{"kind": "pii", "action": "redact"}])
    ask(store, registry=registry, backend=backend, email="I am ada@example.com")
    assert backend.asked[0][1][-1].content == "Reply to: I am <EMAIL_ADDRESS>"
    assert actions(store) == [("input", "pii", "redact")]


class Improving(EchoBackend):
    """Answers better when asked again."""

    def _text(self, backend: BackendSpec, call: ChatCall, timeout_s: float) -> str:
        super()._text(backend, call, timeout_s)
        return ['Sure: {"a": 1', '{"a": 1}'][len(self.asked) - 1]


SCHEMA = {"type": "object", "required": ["a"]}


def test_an_answer_that_does_not_fit_is_asked_for_once_more_and_both_are_paid_for() -> None:
    store, backend, counters = MemoryEventStore(), Improving(), MemoryCounters()
    registry = guarded_by(output=[{"kind": "json_schema", "json_schema": SCHEMA, "action": "regenerate", "then": "block"}])
    answer = ask(store, registry=registry, backend=backend, spending=limited(counters, 1_000_000, "tokens"))
    assert (answer.text, len(backend.asked)) == ('{"a": 1}', 2)
    assert answer.usage is not None
    assert answer.usage.input_tokens == 14
    assert actions(store) == [("output", "json_schema", "regenerate")]


def test_when_the_second_answer_does_not_fit_either_the_safe_answer_stands_in() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    registry = guarded_by(output=[{"kind": "json_schema", "json_schema": SCHEMA, "action": "regenerate", "then": "block"}])
    answer = ask(store, registry=registry, backend=backend)
    assert (answer.finish_reason, len(backend.asked)) == ("content_filter", 2)
    assert [action for _, _, action in actions(store)] == ["regenerate", "block"]


def test_a_stream_whose_answer_may_be_withheld_is_checked_first_and_one_that_is_only_flagged_streams() -> None:
    words = {"kind": "block_list", "terms": ["Reply"]}
    store = MemoryEventStore()
    withheld = streamed(store, registry=guarded_by(output=[{**words, "action": "block"}], safe_answer="No."))
    assert [delta.text for delta in withheld.deltas if delta.text] == ["No."]
    flagged = streamed(store, registry=guarded_by(output=[{**words, "action": "flag"}]))
    assert len([delta.text for delta in flagged.deltas if delta.text]) > 3
    assert sorted(action for _, _, action in actions(store)) == ["block", "flag"]


def test_an_outputs_id_is_not_to_be_derived_and_a_replay_finds_it() -> None:
    store = MemoryEventStore()
    ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    for name in (f"int_{ulid}", "ticket-7"):
        first, again = ask(store, interaction_id=name), ask(store, interaction_id=name)
        assert (first.output_id, again.replay) == (again.output_id, True)
        elsewhere = replace(gateway(), scrubber=Scrubber(settings=AS_IT_IS.settings, salt=b"another"))
        asked = InferRequest(skill=SKILL, inputs={"email": "where is my parcel?"}, interaction_id=name)
        assert infer(asked, ASKER, elsewhere).output_id != first.output_id
    assert ask(store, interaction_id=f"int_{ulid}").output_id.startswith(f"out_{ulid}_")


@pytest.mark.parametrize("streams", [False, True])
def test_a_paid_answer_is_stored_though_another_event_has_come_under_its_id(streams: bool) -> None:
    store = MemoryEventStore()
    wanted = ask(MemoryEventStore(), interaction_id="mine").output_id

    class Squatting(EchoBackend):
        """While the model answers, somebody takes the id."""

        def complete(self, *args: Any, **options: Any) -> Completion:
            store.put_new(
                prepare(OutputProduced(skill=SKILL, interaction_id="mine", output_id=wanted, text="Ours"), TENANT, received_at=NOW)
            )
            return super().complete(*args, **options)

        def stream(self, *args: Any, **options: Any) -> Any:
            self.complete(*args, **options)
            return super().stream(*args, **options)

    request = InferRequest(skill=SKILL, inputs={"email": "where is my parcel?"}, interaction_id="mine")
    if streams:
        [*infer_stream(request, ASKER, gateway(store=store, backend=Squatting())).deltas]
    else:
        answer = infer(request, ASKER, gateway(store=store, backend=Squatting()))
        assert (answer.output_id != wanted, answer.replay) == (True, False)
    outputs = [event for event in store.by_interaction(TENANT, "mine") if event.event_type == "output"]
    kept = {event.event_id: event.event() for event in outputs}
    assert len(kept) == 2
    [paid] = [event for name, event in kept.items() if name != wanted]
    assert isinstance(paid, OutputProduced)
    assert paid.output_id in kept
    assert paid.key_id == "key1"
    with pytest.raises(Conflict):
        ask(store, interaction_id="mine", backend=EchoBackend())
