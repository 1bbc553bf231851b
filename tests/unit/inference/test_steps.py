"""The steps of a request by themselves: what each hands on, and what is left of a request whatever ends it."""

import json
from dataclasses import replace
from functools import partial

import pytest
from pydantic import JsonValue

from rlaas.chat import BackendFailed, Choice, Completion, NoCapacity, Usage
from rlaas.errors import DependencyUnavailable, InvalidInput
from rlaas.inference.ask import Exchange, ask_again, ask_alone, ask_stream, ask_whole, close_stream, open_exchange
from rlaas.inference.check import check_answer
from rlaas.inference.decide import Asker, InferRequest, decide_policy
from rlaas.inference.gateway import Gateway
from rlaas.inference.infer import infer, infer_stream
from rlaas.inference.record import guardrail_events, record_answer, record_unanswered
from rlaas.inference.render import Blocked, Question, render_question
from rlaas.inference.reserve import reserve_budgets
from rlaas.inference.spending import Spending
from rlaas.metering.budgets import NOTHING, Budget, Budgets
from rlaas.metering.prices import PriceTable
from rlaas.policies.bundle import Policy
from rlaas.policies.guardrails.guardrail_list import Guardrails
from rlaas.routing.assign import CONTROL
from rlaas.telemetry.events import GuardrailActed, OutputProduced, RequestFailed
from tests.fakes.backend import EchoBackend
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, SKILL, TENANT, clock, furnish_registry, make_canary_route, make_policy, make_route

ASKER = Asker(TENANT, "key1")
PII = {"kind": "pii", "action": "flag"}
BLOCK_LIST = {"kind": "block_list", "terms": ["parcel bomb"], "action": "block"}


def guard_policy(version: int, **config: object) -> Policy:
    guardrails = Guardrails.model_validate_json(json.dumps({"safe_answer": "Please call us.", **config}))
    return make_policy(version).model_copy(update={"guardrails": guardrails})


def registry_of(control: Policy, arm: Policy | None = None) -> MemoryRegistry:
    """One route: all to `arm`, where there is one, with `control` behind it."""
    registry = MemoryRegistry()
    for bundle in (control, arm) if arm is not None else (control,):
        registry.put_policy(bundle, CHANGE)
    registry.write_route(make_route(arms=(make_canary_route(2, 1.0),) if arm is not None else ()), expected_version=0)
    return registry


def gateway(registry: MemoryRegistry | None = None, backend: EchoBackend | None = None, counters: MemoryCounters | None = None) -> Gateway:
    budget = Budget(name="all", measure="tokens", limit=1_000_000, window="day")
    return Gateway(
        routes=registry or furnish_registry(),
        backend=backend or EchoBackend(),
        store=MemoryEventStore(),
        scrubber=AS_IT_IS,
        spending=Spending(counters or MemoryCounters(), Budgets(budgets=(budget,)), PriceTable()),
        clock=clock,
        whole_s=27.0,
        stream_s=110.0,
        pause=lambda _: None,
    )


def request(email: str = "where is it?", **fields: object) -> InferRequest:
    return InferRequest.model_validate_json(json.dumps({"skill": SKILL, "inputs": {"email": email}, **fields}))


def open_request(world: Gateway, infer_request: InferRequest | None = None) -> Exchange:
    """The exchange before anybody is asked."""
    assignment = decide_policy(infer_request or request(), ASKER, world, idempotency_key=None)
    question = render_question(assignment, assignment.policy, world)
    return open_exchange(assignment, question, reserve_budgets(assignment, question, world))


def list_stored(world: Gateway, kind: type) -> list[object]:
    store = world.store
    assert isinstance(store, MemoryEventStore)
    return [event for event in (one.event() for one in store.events.values()) if isinstance(event, kind)]


class Saying(EchoBackend):
    """Says each of `replies` in its turn: raises what is an error."""

    def __init__(self, *replies: Completion | BaseException) -> None:
        super().__init__()
        self.replies = list(replies)

    def complete(self, *args: object, **options: object) -> Completion:
        reply = self.replies.pop(0)
        if isinstance(reply, BaseException):
            raise reply
        return reply


def test_the_exchange_before_an_answer_is_the_same_after_it() -> None:
    world = gateway()
    before = open_request(world)
    after = ask_whole(before, world)
    assert (before.answer, before.spent, before.is_over) == (None, NOTHING, False)
    assert after.answer is not None
    assert after.is_over
    assert record_answer(check_answer(after, world), world).text == after.answer.text


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), InvalidInput("no", param="n"), BackendFailed("no"), MemoryError()])
def test_no_error_gets_out_of_the_asking_and_each_leaves_what_was_spent(error: BaseException) -> None:
    for ask in (ask_whole, partial(ask_alone, timeout_s=5)):
        world = gateway(backend=Saying(error))
        exchange = ask(open_request(world), world)
        assert exchange.error is not None
        assert (exchange.spent == NOTHING) == isinstance(error, InvalidInput)
        with pytest.raises(type(exchange.error)) as raising:
            check_answer(exchange, world)
        assert raising.value is exchange.error


def test_whatever_interrupts_a_model_what_was_sent_is_settled_and_what_guardrails_did_is_stored() -> None:
    counters = MemoryCounters()
    world = gateway(registry_of(guard_policy(1, input=[PII])), Saying(KeyboardInterrupt()), counters)
    with pytest.raises(KeyboardInterrupt):
        infer(request("I am ada@example.com"), ASKER, world)
    [item] = counters.items.values()
    assert not [name for name in item if name.startswith("open")]
    assert [value > 256 for name, value in item.items() if name.startswith("spent") and isinstance(value, int)] == [True]
    assert len(list_stored(world, GuardrailActed)) == 1
    assert list_stored(world, RequestFailed) == []


def test_a_second_answer_that_is_interrupted_counts_beside_the_first() -> None:
    schema = {"kind": "json_schema", "json_schema": {"type": "object"}, "action": "regenerate"}
    backend = Saying(Completion((Choice("no", "stop"),), Usage(input_tokens=7, output_tokens=1)), KeyboardInterrupt())
    world = gateway(registry_of(guard_policy(1, output=[schema])), backend)
    outcome = check_answer(ask_whole(open_request(world), world), world)
    assert (outcome.regenerate, outcome.exchange.spent.tokens) == (True, 8)
    again = ask_again(outcome.exchange, world)
    assert isinstance(again.error, KeyboardInterrupt)
    assert again.spent.tokens > 8 + 256
    assert again.spent.requests == 1
    assert len(again.actions) == 1


def test_what_the_controls_guardrails_did_is_stored_though_its_prompt_cannot_be_rendered() -> None:
    other = guard_policy(1, input=[PII]).model_copy(update={"prompt": make_policy(1, user="{{ another }}").prompt})
    world = gateway(registry_of(other, make_policy(2)), EchoBackend(down={"v2"}))
    with pytest.raises(InvalidInput):
        infer(request("I am ada@example.com"), ASKER, world)
    [action] = list_stored(world, GuardrailActed)
    assert isinstance(action, GuardrailActed)
    assert action.policy_id == f"{SKILL}@v1"


@pytest.mark.parametrize("streams", [False, True])
def test_the_controls_guardrails_may_block_what_the_arm_did_not_answer(streams: bool) -> None:
    counters = MemoryCounters()
    world = gateway(registry_of(guard_policy(1, input=[BLOCK_LIST]), make_policy(2)), EchoBackend(down={"v2"}), counters)
    if streams:
        stream = infer_stream(request("a parcel bomb"), ASKER, world)
        text, decision = "".join(delta.text for delta in stream.deltas), stream.decision
    else:
        answer = infer(request("a parcel bomb"), ASKER, world)
        text, decision = answer.text, answer.decision
    assert (text, decision.arm, decision.fallback) == ("Please call us.", CONTROL, True)
    assert decision.reason == "fallback: the arm did not answer, and the control's guardrails block the request"
    [output] = list_stored(world, OutputProduced)
    assert isinstance(output, OutputProduced)
    assert (output.model, output.messages, output.cost_usd, output.finish_reason) == ("v1", None, None, "content_filter")
    [item] = counters.items.values()
    assert not [name for name in item if name.startswith("open")]


def test_what_the_controls_guardrails_keep_back_is_not_streamed_where_it_stands_in_for_an_arm() -> None:
    world = gateway(registry_of(guard_policy(1, output=[BLOCK_LIST]), make_policy(2)), EchoBackend(down={"v2"}))
    stream = infer_stream(request("a parcel bomb"), ASKER, world)
    assert "".join(delta.text for delta in stream.deltas) == "Please call us."
    [output] = list_stored(world, OutputProduced)
    assert isinstance(output, OutputProduced)
    assert (output.model, output.text) == ("v1", "Please call us.")


def test_a_stream_may_come_to_the_most_while_it_is_open_and_costs_what_is_known_of_it_at_its_end() -> None:
    world = gateway()
    exchange = ask_stream(open_request(world), world)
    assert exchange.stream is not None
    assert exchange.spent.tokens > 256
    choices, usage = (Choice("Dear", None),), Usage(input_tokens=7, output_tokens=1)
    assert close_stream(exchange, Completion(choices, usage), world).spent.tokens == 8
    assert 8 < close_stream(exchange, Completion(choices, None, usage_so_far=usage), world).spent.tokens < 20
    assert close_stream(exchange, Completion(choices, None), world).spent.tokens < 100
    exchange.stream.rest.close()


def test_a_backend_that_is_asked_alone_has_neither_fallback_nor_second_try() -> None:
    backend = Saying(BackendFailed("busy", safe_to_repeat=True, retry_after_s=0.1), Completion((Choice("hello", "stop"),), None))
    world = gateway(backend=backend)
    exchange = ask_alone(open_request(world), world, timeout_s=5)
    assert isinstance(exchange.error, BackendFailed)
    assert len(backend.replies) == 1


def test_a_blocked_request_asks_nobody_and_sets_nothing_aside() -> None:
    counters = MemoryCounters()
    world = gateway(registry_of(guard_policy(1, input=[BLOCK_LIST])), Saying(), counters)
    exchange = open_request(world, request("a parcel bomb"))
    assert isinstance(exchange.question, Blocked)
    assert ask_whole(exchange, world) is exchange
    assert counters.items == {}
    assert check_answer(exchange, world).choices == (Choice("Please call us.", "content_filter"),)


def test_a_request_that_no_model_answers_leaves_a_failure_unless_it_is_a_mirrored_one() -> None:
    world = gateway(backend=Saying(NoCapacity("it sleeps"), NoCapacity("it sleeps")))
    exchange = ask_whole(open_request(world), world)
    assert isinstance(exchange.error, DependencyUnavailable)
    mirrored = replace(exchange, decision=exchange.decision.model_copy(update={"shadow": True}))
    record_unanswered(mirrored, world)
    assert list_stored(world, RequestFailed) == []
    record_unanswered(exchange, world)
    assert len(list_stored(world, RequestFailed)) == 1


def test_every_action_becomes_one_event_however_often_it_is_told() -> None:
    flags = {"kind": "block_list", "terms": ["secret"], "action": "flag"}
    world = gateway(registry_of(guard_policy(1, input=[PII, flags])))
    for name, prefix in (("int_01JD0000000000000000000000", "grd_01JD0000000000000000000000_"), ("mine", "grd_")):
        exchange = open_request(world, request("a@example.com secret", interaction_id=name))
        assert isinstance(exchange.question, Question)
        events = guardrail_events(exchange.actions, exchange.assignment, "out_1")
        assert events == guardrail_events(exchange.actions, exchange.assignment, "out_1")
        assert all(event.guardrail_id.startswith(prefix) for event in events)
        assert len({event.guardrail_id for event in events}) == 2
        assert [(event.interaction_id, event.output_id, event.position) for event in events] == [(name, "out_1", 0), (name, "out_1", 1)]
        for _ in range(2):
            record_unanswered(exchange, world)
        stored_events = sorted(world.store.read_interaction(TENANT, name), key=lambda one: one.event_id)
        ids = [event.guardrail_id for event in guardrail_events(exchange.actions, exchange.assignment, exchange.assignment.output_id)]
        assert [(one.event_type, one.interaction_id, one.event_id) for one in stored_events] == [
            ("guardrail", name, event_id) for event_id in sorted(ids)
        ]
        assert all("secret" not in one.payload for one in stored_events)


def test_what_was_taken_out_of_an_answer_stands_neither_in_its_refusal_nor_in_its_logprobs() -> None:
    logprobs: JsonValue = {"content": [{"token": "4111111111111111", "logprob": -0.1}]}
    choices = (
        Choice("It is 4111111111111111", "stop", logprobs=logprobs),
        Choice("", "stop", refusal="I won't tell ada@shop.example", logprobs=logprobs),
        Choice("Nothing here", "stop", logprobs=logprobs),
    )
    world = gateway(registry_of(guard_policy(1, output=[{"kind": "pii_leak"}])), Saying(Completion(choices, None)))
    answer = infer(request(parameters={"n": 3}), ASKER, world)
    assert [(choice.text, choice.refusal, choice.logprobs) for choice in answer.choices] == [
        ("It is <CREDIT_CARD>", None, None),
        ("", "I won't tell <EMAIL_ADDRESS>", None),
        ("Nothing here", None, logprobs),
    ]
