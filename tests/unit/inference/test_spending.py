"""What is set aside for a request before its model is asked, and what it has spent whatever ends it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from rlaas.chat import BackendFailed, ChatCall, Choice, Completion, Usage
from rlaas.errors import DependencyUnavailable, InvalidInput, QuotaExceeded
from rlaas.inference.decide import InferRequest
from rlaas.inference.infer import decide
from rlaas.inference.record import Answer
from rlaas.inference.spending import PossibleCall, Spending
from rlaas.metering.budgets import Budget, Budgets, Limit, Request
from rlaas.metering.counters import WHOLE, Overloaded, Write, Written
from rlaas.metering.prices import Price, PriceTable
from rlaas.metering.shards import announce_shard
from rlaas.telemetry.events import OutputProduced
from rlaas.telemetry.store import StoredEvent
from tests.fakes.backend import EchoBackend
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, canary, policy, route
from tests.unit.inference.asking import (
    ASKER,
    SCHEMA,
    Failing,
    ask,
    ask_stream,
    gateway,
    guard_policy,
    limit_spending,
    openai_model,
    read_spent,
)


def test_an_answer_says_what_it_cost_by_which_prices_and_who_asked() -> None:
    store = MemoryEventStore()
    answer = ask(store, spending=limit_spending(MemoryCounters(), 10))
    output = store.get_many(TENANT, [answer.output_id])[answer.output_id].event()
    assert isinstance(output, OutputProduced)
    assert answer.usage is not None
    assert output.cost_usd == answer.cost_usd == pytest.approx((answer.usage.input_tokens + 2 * answer.usage.output_tokens) / 1e6)
    assert ask(MemoryEventStore(), spending=Spending(MemoryCounters(), Budgets(), PriceTable())).cost_usd is None
    assert (output.price_version, output.key_id, output.model) == (3, "key1", "v1")


def test_a_spent_budget_refuses_before_anything_is_stored_or_asked() -> None:
    counters, store, backend = MemoryCounters(), MemoryEventStore(), EchoBackend()
    for _ in range(2):
        ask(store, spending=limit_spending(counters, 2))
    with pytest.raises(QuotaExceeded) as refusal:
        ask(store, backend=backend, spending=limit_spending(counters, 2))
    assert refusal.value.retry_after_s is not None
    assert (len(store.events), backend.asked) == (4, [])


def test_what_was_set_aside_is_given_back_when_nothing_was_done_or_the_answer_was_there() -> None:
    counters, store = MemoryCounters(), MemoryEventStore()
    for _ in range(3):
        with pytest.raises(DependencyUnavailable):
            ask(store, backend=Failing(BackendFailed("nobody is there", nothing_done=True)), spending=limit_spending(counters, 1))
    first = ask(store, interaction_id="mine", spending=limit_spending(counters, 2))
    assert ask(store, interaction_id="mine", spending=limit_spending(counters, 2)).output_id == first.output_id
    assert not ask(store, spending=limit_spending(counters, 2)).replay


@pytest.mark.parametrize("leave", [0, 1, None])
def test_a_stream_settles_when_it_ends_and_counts_in_full_when_it_is_left(leave: int | None) -> None:
    counters = MemoryCounters()
    stream = ask_stream(MemoryEventStore(), spending=limit_spending(counters, 100_000, "tokens"))
    for _ in range(leave or 0):
        next(stream.deltas)
    if leave is None:
        list(stream.deltas)
    stream.deltas.close()
    assert (read_spent(counters) > 256) == (leave is not None)


@pytest.mark.parametrize("measure", ["requests", "tokens"])
@pytest.mark.parametrize("pieces", [None, 0, 2])
@pytest.mark.parametrize(
    "error", [BackendFailed("it took too long"), ValueError("nobody foresaw this"), RecursionError(), KeyError("choices"), MemoryError()]
)
def test_what_was_sent_counts_in_full_whatever_becomes_of_it(error: Exception, pieces: int | None, measure: str) -> None:
    counters, store = MemoryCounters(), MemoryEventStore()
    spending, backend = limit_spending(counters, 100_000, measure), Failing(error, pieces=pieces or 0)

    def answer_request() -> object:
        if pieces is None:
            return ask(store, backend=backend, spending=spending)
        return list(ask_stream(store, backend=backend, spending=spending).deltas)

    with pytest.raises(BackendFailed if pieces else DependencyUnavailable):
        answer_request()
    assert read_spent(counters) == 1 if measure == "requests" else read_spent(counters) > 256
    assert [event.event_type for event in store.events.values()] == ["interaction", "failure"]


@pytest.mark.parametrize("error", [BackendFailed("it answered 429", nothing_done=True), InvalidInput("it does not take this", param="n")])
def test_a_refusal_before_any_work_is_free(error: Exception) -> None:
    counters = MemoryCounters()
    with pytest.raises((DependencyUnavailable, InvalidInput)):
        ask(MemoryEventStore(), backend=Failing(error), spending=limit_spending(counters, 100))
    assert read_spent(counters) == 0


def test_every_backend_that_was_asked_in_vain_counts_beside_the_one_that_answered() -> None:
    registry, counters = MemoryRegistry(), MemoryCounters()
    spare = openai_model("spare")
    registry.put_policy(policy(1).model_copy(update={"fallbacks": (spare,)}), CHANGE)
    registry.write_route(route(), expected_version=0)
    spending, backend = limit_spending(counters, 100_000, "tokens"), EchoBackend(down={"v1"})
    answer = ask(MemoryEventStore(), registry=registry, backend=backend, spending=spending, parameters={"max_tokens": 300})
    assert answer.usage is not None
    assert read_spent(counters) > 300 + answer.usage.input_tokens + answer.usage.output_tokens


def test_an_answer_counts_when_what_comes_after_it_fails() -> None:
    class Away(MemoryEventStore):
        def put_new(self, event: StoredEvent) -> StoredEvent | None:
            if event.event_type == "output":
                raise ZeroDivisionError
            return super().put_new(event)

    counters = MemoryCounters()
    with pytest.raises(ZeroDivisionError):
        ask(Away(), spending=limit_spending(counters, 10))
    assert read_spent(counters) == 1


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=10**9, output_tokens=10**9),
        Usage(input_tokens=1, output_tokens=1, cached_tokens=10**9),
    ],
)
def test_counts_that_cannot_be_are_not_believed(usage: Usage) -> None:
    counters = MemoryCounters()
    backend = Failing(completion=Completion((Choice("hello", "stop"),), usage))
    answer = ask(MemoryEventStore(), backend=backend, spending=limit_spending(counters, 10_000, "tokens"), parameters={"max_tokens": 300})
    assert answer.usage is None
    assert 300 < read_spent(counters) < 400


def test_tools_and_schemas_are_read_too_and_set_aside_for() -> None:
    tool = {"type": "function", "function": {"name": "look_up", "description": "parcels " * 1_000, "parameters": {"type": "object"}}}
    spending = limit_spending(MemoryCounters(), 1_000, "tokens")
    ask(MemoryEventStore(), spending=spending, parameters={"max_tokens": 10})
    for parameters in ({"tools": [tool]}, {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": tool}}}):
        with pytest.raises(QuotaExceeded):
            ask(MemoryEventStore(), spending=spending, parameters={"max_tokens": 10, **parameters})


def test_what_is_set_aside_is_enough_for_the_dearest_model_that_may_answer() -> None:
    registry = MemoryRegistry()
    dear = openai_model("dear")
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
        original = policy(number)
        registry.put_policy(original.model_copy(update={"sampling": original.sampling.model_copy(update={"max_tokens": longest})}), CHANGE)
    registry.write_route(route(arms=(canary(2, 1.0),)), expected_version=0)
    with pytest.raises(QuotaExceeded):
        ask(MemoryEventStore(), registry=registry, spending=limit_spending(MemoryCounters(), 4_000, "tokens"))
    assert ask(MemoryEventStore(), registry=registry, spending=limit_spending(MemoryCounters(), 6_000, "tokens")).policy_id == f"{SKILL}@v2"


def test_what_is_set_aside_is_enough_for_an_answer_that_guardrails_have_made_again() -> None:
    rule = {"kind": "json_schema", "json_schema": SCHEMA}

    def served(action: str) -> Answer:
        spending = limit_spending(MemoryCounters(), 500, "tokens")
        registry = guard_policy(output=[{**rule, "action": action}])
        return ask(MemoryEventStore(), registry=registry, spending=spending, parameters={"max_tokens": 300})

    served("flag")
    with pytest.raises(QuotaExceeded):
        served("regenerate")


def test_the_platforms_ceiling_holds_whatever_the_tenants_budgets_say() -> None:
    ceiling, counters = Limit(measure="requests", limit=1, window="day"), MemoryCounters()
    spending = replace(limit_spending(counters, 1_000, "requests"), ceilings=(ceiling,))
    ask(MemoryEventStore(), spending=spending)
    with pytest.raises(QuotaExceeded, match="the platform's ceiling of 1 requests a day has no room"):
        ask(MemoryEventStore(), spending=spending)


def test_a_decision_to_ask_oneself_spends_the_most_that_the_call_may_come_to_once() -> None:
    counters, store = MemoryCounters(), MemoryEventStore()
    request = InferRequest(skill=SKILL, inputs={"email": "?"}, interaction_id="mine", parameters={"max_tokens": 300})
    replays = [decide(request, ASKER, gateway(store=store, spending=limit_spending(counters, 1_000, "tokens"))).replay for _ in range(2)]
    assert replays == [False, True]
    [item] = counters.items.values()
    [spent] = [value for name, value in item.items() if name.startswith("spent")]
    assert isinstance(spent, int)
    assert 300 < spent < 330
    assert not [name for name in item if name.startswith("open")]
    other = request.model_copy(update={"interaction_id": "other", "parameters": {"max_tokens": 800}})
    with pytest.raises(QuotaExceeded):
        decide(other, ASKER, gateway(store=store, spending=limit_spending(counters, 1_000, "tokens")))
    assert len(store.events) == 1


class OverloadedCounters(MemoryCounters):
    """Counters whose own items are overloaded while `overloaded`."""

    overloaded = True

    def write(self, tenant_id: str, write: Write, *, shard: int = WHOLE) -> Written:
        if self.overloaded and shard == WHOLE:
            raise Overloaded("DynamoDB answered ThrottlingException")
        return super().write(tenant_id, write, shard=shard)


def test_a_tenant_whose_item_is_overloaded_is_counted_in_a_shard_for_a_while() -> None:
    counters = OverloadedCounters()
    spending, request = limit_spending(counters, 1_000, "requests"), Request(skill=SKILL, key_id="k")
    calls = [PossibleCall(policy(1), ChatCall((), {"max_tokens": 1}, TENANT), (policy(1).backend,))]

    def count_shard(seconds: int) -> int:
        now = NOW + timedelta(seconds=seconds)
        reservation = spending.begin(TENANT, request, calls, now=now)
        assert reservation is not None
        spending.end(reservation, now=now)
        return reservation.shard

    first = count_shard(0)
    counters.overloaded = False
    assert [first == WHOLE, count_shard(59), count_shard(61)] == [False, first, WHOLE]


def test_who_finds_a_busy_item_leaves_it_to_others_without_having_been_refused() -> None:
    counters, now = MemoryCounters(), NOW
    spending, request = limit_spending(counters, 1_000, "requests"), Request(skill=SKILL, key_id="k")
    calls = [PossibleCall(policy(1), ChatCall((), {"max_tokens": 1}, TENANT), (policy(1).backend,))]
    announce_shard(counters, TENANT, 5, now=now)
    reservations = [spending.begin(TENANT, request, calls, now=now) for _ in range(2)]
    assert [reservation is not None and reservation.shard != WHOLE for reservation in reservations] == [False, True]
