"""Backends that fail: who answers in their place, and what is stored where nobody does."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from rlaas.chat import (
    BackendFailed,
    CalledFunction,
    ChatCall,
    Choice,
    Completion,
    Delta,
    Misconfigured,
    NoCapacity,
    RateLimited,
    ToolCall,
    ToolCallDelta,
)
from rlaas.errors import ContextLengthExceeded, DependencyUnavailable, InvalidInput, PartRefused, RlaasError, TranslationRefused
from rlaas.inference.circuit_breakers import CircuitBreakers
from rlaas.inference.decide import InferRequest
from rlaas.inference.infer import infer
from rlaas.policies.backend import BackendSpec
from rlaas.routing.assign import CONTROL
from rlaas.telemetry.events import RequestFailed
from tests.fakes.backend import EchoBackend
from tests.fakes.events import MemoryEventStore
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, SKILL, furnish_registry, make_canary_route, make_policy, make_route
from tests.unit.inference.asking import ASKER, Failing, ask, ask_stream, gateway, openai_model, with_fallbacks


def test_a_request_that_nobody_answers_leaves_a_failure_of_the_arm_it_was_dealt_each_time_it_is_tried() -> None:
    store = MemoryEventStore()
    for _ in range(2):
        with pytest.raises(DependencyUnavailable):
            ask(
                store,
                registry=furnish_registry((make_canary_route(2, 0.999),)),
                backend=EchoBackend(down={"v1", "v2"}),
                interaction_id="mine",
            )
    failures = [event.event() for event in store.events.values() if event.event_type == "failure"]
    assert [failure.decision.arm for failure in failures if isinstance(failure, RequestFailed)] == [f"{SKILL}@v2"] * 2


def test_the_control_answers_for_an_arm_that_does_not_and_the_decision_says_so() -> None:
    backend = EchoBackend(down={"v2"})
    answer = ask(MemoryEventStore(), registry=furnish_registry((make_canary_route(2, 0.999),)), backend=backend, thread_id="t1")
    assert (answer.policy_id, answer.decision.arm, answer.decision.fallback) == (f"{SKILL}@v1", CONTROL, True)
    assert answer.decision.propensity == pytest.approx(0.001)
    assert answer.decision.reason == f"fallback: {SKILL}@v2 by sagemaker v2: the model endpoint answered ModelError"
    assert [component for component, _, _ in backend.requests] == ["v2", "v1"]
    assert [timeout for _, _, timeout in backend.requests] == [pytest.approx(0.55 * 25), pytest.approx(24)]


def test_when_the_control_is_down_too_the_failure_is_the_dependencys() -> None:
    backend = EchoBackend(down={"v1", "v2"})
    with pytest.raises(DependencyUnavailable):
        ask(MemoryEventStore(), registry=furnish_registry((make_canary_route(2, 1.0),)), backend=backend)
    assert len(backend.requests) == 2


def test_a_policys_fallbacks_answer_in_their_order_and_the_policy_stays_the_one_decided() -> None:
    backend = EchoBackend(down={"a", "b"})
    answer = ask(MemoryEventStore(), registry=with_fallbacks("a", "b", "c"), backend=backend)
    assert (answer.text.partition(":")[0], answer.policy_id, answer.decision.fallback) == ("c", f"{SKILL}@v1", True)
    assert [model for model, _, _ in backend.requests] == ["a", "b", "c"]
    assert answer.decision.reason.startswith(f"fallback: {SKILL}@v1 by openai a: ")


class Busy(EchoBackend):
    """Says that it is busy the first `times`."""

    times = 1

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        if self.times:
            self.times -= 1
            self.requests.append((backend.model, call.messages, timeout_s))
            raise BackendFailed("busy", safe_to_repeat=True, retry_after_s=1.0)
        return super().complete(backend, call, timeout_s=timeout_s)


def test_a_busy_backend_is_asked_once_more_when_nobody_else_can_answer() -> None:
    backend = Busy()
    answer = ask(MemoryEventStore(), backend=backend)
    assert (len(backend.requests), answer.decision.fallback) == (2, False)
    other = Busy()
    assert ask(MemoryEventStore(), registry=with_fallbacks("a", "b"), backend=other).decision.fallback
    assert [model for model, _, _ in other.requests] == ["a", "b"]


class Asleep(EchoBackend):
    """No machine holds its models."""

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        self.requests.append((backend.model, call.messages, timeout_s))
        if backend.kind == "sagemaker":
            raise NoCapacity("the model endpoint has no copy of the model running")
        return super().complete(backend, call, timeout_s=timeout_s)


def test_a_request_to_a_sleeping_model_is_told_when_to_come_back_and_is_stored_as_the_failure_of_its_arm() -> None:
    store, backend = MemoryEventStore(), Asleep()
    with pytest.raises(DependencyUnavailable, match="no copy of the model") as refusal:
        ask(store, registry=furnish_registry((make_canary_route(2, 0.999),)), backend=backend)
    assert refusal.value.retry_after_s == 60
    assert [model for model, _, _ in backend.requests] == ["v2", "v1"]  # each once: nobody waits a minute inside a request
    (failure,) = [event.event() for event in store.events.values() if event.event_type == "failure"]
    assert isinstance(failure, RequestFailed)
    assert failure.decision.arm == f"{SKILL}@v2"


def test_the_declared_fallback_answers_for_a_sleeping_model_and_the_decision_says_so() -> None:
    registry = MemoryRegistry()
    registry.put_policy(make_policy(1).model_copy(update={"fallbacks": (openai_model("c"),)}), CHANGE)
    registry.write_route(make_route(), expected_version=0)
    answer = ask(MemoryEventStore(), registry=registry, backend=Asleep())
    assert (answer.text.partition(":")[0], answer.decision.fallback, answer.decision.counts) == ("c", True, False)
    assert "no copy of the model" in answer.decision.reason


def test_a_sleeping_model_hears_every_request_for_it() -> None:
    """It refuses at once, which no circuit need protect from, and it wakes by being asked."""
    backend = Asleep()
    world = gateway(backend=backend)
    for _ in range(7):
        with pytest.raises(DependencyUnavailable) as refusal:
            infer(InferRequest(skill=SKILL, inputs={"email": "?"}), ASKER, world)
        assert refusal.value.retry_after_s == 60
    assert len(backend.requests) == 7


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
    assert len(backend.requests) == 5
    assert world.breakers.allows(("another-tenant", make_policy(1).backend))


def test_a_parameter_that_the_backend_does_not_take_is_refused_by_name_and_no_fallback_is_asked() -> None:
    backend = EchoBackend(refuses={"logprobs"})
    with pytest.raises(InvalidInput) as refusal:
        ask(MemoryEventStore(), registry=with_fallbacks("a", "b"), backend=backend, parameters={"logprobs": True})
    assert refusal.value.param == "logprobs"


LIMITED = RateLimited("it answered 429", retry_after_s=20, quote="slow down")
WRONG = Misconfigured("it answered 401", quote="what key is this")
TOO_LONG = ContextLengthExceeded("it is too long", param="messages")
TRANSLATED = TranslationRefused("it refuses messages", param="messages", quote="that is no block")
UNSEEN = PartRefused("it takes no image", param="messages")
BAD = InvalidInput("it refuses temperature", param="temperature")
DOWN = BackendFailed("it answered 500", retry_after_s=5)


class Refusing(EchoBackend):
    """Each model refuses by its error."""

    def __init__(self, **errors: Exception) -> None:
        super().__init__()
        self.errors = errors

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        if (error := self.errors.get(backend.model)) is not None:
            self.requests.append((backend.model, call.messages, timeout_s))
            raise error
        return super().complete(backend, call, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("first", "second", "kind", "wait_s"),
    [
        (LIMITED, LIMITED, RateLimited, 20),
        (LIMITED, WRONG, RateLimited, 20),
        (WRONG, LIMITED, RateLimited, 20),
        (LIMITED, DOWN, DependencyUnavailable, 5),
        (WRONG, DOWN, DependencyUnavailable, 5),
        (TOO_LONG, DOWN, DependencyUnavailable, 5),
        (TOO_LONG, LIMITED, RateLimited, 20),
        (TOO_LONG, WRONG, ContextLengthExceeded, None),
        (WRONG, TOO_LONG, ContextLengthExceeded, None),
        (TRANSLATED, DOWN, DependencyUnavailable, 5),
        (TRANSLATED, WRONG, TranslationRefused, None),
        (WRONG, WRONG, Misconfigured, None),
        (UNSEEN, DOWN, DependencyUnavailable, 5),
        (UNSEEN, WRONG, PartRefused, None),
        (UNSEEN, BAD, InvalidInput, None),
        (DOWN, BAD, DependencyUnavailable, 5),
        (DOWN, UNSEEN, DependencyUnavailable, 5),
        (LIMITED, BAD, RateLimited, 20),
        (WRONG, BAD, InvalidInput, None),
    ],
)
def test_of_several_failures_the_caller_hears_the_one_that_he_can_do_something_about(
    first: Exception, second: Exception, kind: type[Exception], wait_s: float | None
) -> None:
    backend = Refusing(a=first, b=second)
    with pytest.raises(kind) as failed:
        ask(MemoryEventStore(), registry=with_fallbacks("a", "b"), backend=backend)
    assert type(failed.value) is kind
    assert getattr(failed.value, "retry_after_s", None) == wait_s
    assert [model for model, _, _ in backend.requests] == ["a", "b"]


@pytest.mark.parametrize("error", [LIMITED, WRONG, TOO_LONG, TRANSLATED, UNSEEN])
def test_the_fallback_answers_before_the_caller_hears_of_a_refusal(error: Exception) -> None:
    answer = ask(MemoryEventStore(), registry=with_fallbacks("a", "b"), backend=Refusing(a=error))
    assert (answer.text.partition(":")[0], answer.decision.fallback) == ("b", True)
    assert "slow down" not in answer.decision.reason
    assert "what key" not in answer.decision.reason


@pytest.mark.parametrize(("first", "asked"), [(BAD, ["a"]), (UNSEEN, ["a", "b"]), (DOWN, ["a", "b", "c"])])
def test_what_is_wrong_with_a_parameter_ends_the_request_unless_somebody_failed_who_might_have_taken_it(
    first: Exception, asked: list[str]
) -> None:
    backend = Refusing(a=first, b=BAD)
    with suppress(InvalidInput):
        assert ask(MemoryEventStore(), registry=with_fallbacks("a", "b", "c"), backend=backend).text.startswith("c: ")
    assert [model for model, _, _ in backend.requests] == asked


@pytest.mark.parametrize("error", [LIMITED, WRONG])
def test_an_open_circuit_refuses_as_its_backend_did(error: RlaasError) -> None:
    backend = Refusing(a=error)
    world = gateway(registry=with_fallbacks("a"), backend=backend)
    for _ in range(7):
        with pytest.raises(type(error)) as failed:
            infer(InferRequest(skill=SKILL, inputs={"email": "?"}), ASKER, world)
        assert failed.value.retry_after_s == error.retry_after_s
    assert len(backend.requests) == 5


def test_a_refusal_of_what_was_translated_wrong_opens_no_circuit() -> None:
    backend = Refusing(a=TRANSLATED)
    world = gateway(registry=with_fallbacks("a"), backend=backend)
    for _ in range(7):
        with pytest.raises(TranslationRefused):
            infer(InferRequest(skill=SKILL, inputs={"email": "?"}), ASKER, world)
    assert len(backend.requests) == 7


@pytest.mark.parametrize(
    "completion",
    [
        Completion((), None),
        Completion((Choice("a", "stop"), Choice("b", "stop")), None),
        Completion((Choice("a", "x" * 1_000),), None),
        Completion((Choice("a", "stop", tool_calls=(ToolCall(id="1", function=CalledFunction(name="f", arguments="")),) * 1_000),), None),
    ],
)
def test_an_answer_that_has_no_room_in_an_output_is_a_failure(completion: Completion) -> None:
    store = MemoryEventStore()
    with pytest.raises(DependencyUnavailable):
        ask(store, backend=Failing(completion=completion))
    assert [event.event_type for event in store.events.values()] == ["interaction", "failure"]


@pytest.mark.parametrize(
    "delta",
    [
        Delta(index=-1, text="a"),
        Delta(index=10**30, text="a"),
        Delta(tool_calls=(ToolCallDelta(10**9, id="1", name="f"),)),
        Delta(tool_calls=(ToolCallDelta(0, id="1" * 10_000, name="f"),)),
        Delta(finish_reason="x" * 1_000),
    ],
)
def test_a_stream_of_what_has_no_room_in_an_output_is_a_failure(delta: Delta) -> None:
    class Wild(EchoBackend):
        def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
            yield delta

    store = MemoryEventStore()
    with pytest.raises(DependencyUnavailable):
        ask_stream(store, backend=Wild())
    assert [event.event_type for event in store.events.values()] == ["interaction", "failure"]
