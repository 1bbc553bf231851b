"""What is set aside for a request before its model is asked, and what it has spent whatever ends it."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rlaas.chat import BackendFailed, CalledFunction, ChatCall, Choice, Completion, Delta, ToolCall, Usage
from rlaas.errors import DependencyUnavailable, InvalidInput, QuotaExceeded
from rlaas.inference.decide import InferRequest
from rlaas.inference.infer import AnswerStream, decide
from rlaas.inference.record import Answer
from rlaas.inference.spending import PossibleCall, Spending
from rlaas.metering.budgets import Budget, Budgets, Limit, SpendingRequest, estimate_tokens
from rlaas.metering.counters import WHOLE, Overloaded, Write, Written
from rlaas.metering.prices import Price, PriceTable
from rlaas.metering.shards import announce_shard
from rlaas.policies.backend import BackendSpec
from rlaas.telemetry.events import OutputProduced
from rlaas.telemetry.store import StoredEvent
from rlaas.telemetry.usage import count_usage
from tests.fakes.backend import EchoBackend
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, make_canary_route, make_policy, make_route
from tests.unit.inference.asking import (
    ASKER,
    SCHEMA,
    Failing,
    ask,
    ask_stream,
    find_output,
    gateway,
    guard_policy,
    limit_spending,
    openai_model,
    read_spent,
    with_fallbacks,
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
    assert (len(store.events), backend.requests) == (4, [])


def test_what_was_set_aside_is_given_back_when_nothing_was_done_or_the_answer_was_there() -> None:
    counters, store = MemoryCounters(), MemoryEventStore()
    for _ in range(3):
        with pytest.raises(DependencyUnavailable):
            ask(store, backend=Failing(BackendFailed("nobody is there", nothing_done=True)), spending=limit_spending(counters, 1))
    first = ask(store, interaction_id="mine", spending=limit_spending(counters, 2))
    assert ask(store, interaction_id="mine", spending=limit_spending(counters, 2)).output_id == first.output_id
    assert not ask(store, spending=limit_spending(counters, 2)).replay


@pytest.mark.parametrize("leave", [0, 1, 3, None])
def test_a_stream_settles_for_what_was_written_when_it_ends_or_is_left(leave: int | None) -> None:
    counters, store = MemoryCounters(), MemoryEventStore()
    stream = ask_stream(store, spending=limit_spending(counters, 100_000, "tokens"))
    for _ in range(leave or 0):
        next(stream.deltas)
    if leave is None:
        list(stream.deltas)
    stream.deltas.close()
    output = find_output(store)
    used = output.usage or output.estimated_usage
    assert used is not None
    assert read_spent(counters) == used.input_tokens + used.output_tokens < 100
    assert (output.usage is None) == (leave is not None)


@pytest.mark.parametrize("measure", ["requests", "tokens"])
@pytest.mark.parametrize("pieces", [None, 0, 2])
@pytest.mark.parametrize(
    "error", [BackendFailed("it took too long"), ValueError("nobody foresaw this"), RecursionError(), KeyError("choices"), MemoryError()]
)
def test_what_was_sent_counts_in_full_as_long_as_nothing_is_known(error: Exception, pieces: int | None, measure: str) -> None:
    counters, store = MemoryCounters(), MemoryEventStore()
    spending, backend = limit_spending(counters, 100_000, measure), Failing(error, pieces=pieces or 0)

    def answer_request() -> object:
        if pieces is None:
            return ask(store, backend=backend, spending=spending)
        return list(ask_stream(store, backend=backend, spending=spending).deltas)

    with pytest.raises(BackendFailed if pieces else DependencyUnavailable):
        answer_request()
    most_of_an_answer = 256  # a stream that breaks off counts as what it wrote
    assert read_spent(counters) == 1 if measure == "requests" else (read_spent(counters) > most_of_an_answer) == (not pieces)
    assert [event.event_type for event in store.events.values()] == ["interaction", "failure"]


@pytest.mark.parametrize("error", [BackendFailed("it answered 429", nothing_done=True), InvalidInput("it does not take this", param="n")])
def test_a_refusal_before_any_work_is_free(error: Exception) -> None:
    counters = MemoryCounters()
    with pytest.raises((DependencyUnavailable, InvalidInput)):
        ask(MemoryEventStore(), backend=Failing(error), spending=limit_spending(counters, 100))
    assert read_spent(counters) == 0


TOLD = Usage(input_tokens=1000, output_tokens=1, cached_tokens=990)
LONG = "where is it? " * 100
DEAR = PriceTable(version=1, prices={"v1": Price(input=3.0, output=15.0, cached_input=0.3)})


class Telling(EchoBackend):
    """Tells first what it has read, as Anthropic does, then writes `words` words and fails, or is left."""

    def __init__(self, *, words: int = 30, fails: bool = False) -> None:
        super().__init__()
        self.words, self.fails = words, fails

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        yield Delta(usage=TOLD)
        yield from [Delta(text="word ")] * self.words
        if self.fails:
            raise BackendFailed("the connection broke")
        yield Delta(finish_reason="stop")
        yield Delta(usage=Usage(input_tokens=1000, output_tokens=60, cached_tokens=990))


def tell(**options: Any) -> tuple[AnswerStream, MemoryEventStore, MemoryCounters]:
    """A stream of a request whose estimate is far from what was told, under a budget in US dollars."""
    counters, store = MemoryCounters(), MemoryEventStore()
    budget = Budget(name="all", measure="usd", limit=1, window="day")
    spending = Spending(counters, Budgets(budgets=(budget,)), DEAR)
    return ask_stream(store, backend=Telling(**options), spending=spending, email=LONG), store, counters


def test_what_the_backend_told_before_a_stream_was_left_is_not_estimated() -> None:
    stream, store, counters = tell()
    for _ in range(3):
        next(stream.deltas)
    stream.deltas.close()
    output = find_output(store)
    assert (output.finish_reason, output.usage, output.estimated_usage) == (
        "cancelled",
        None,
        TOLD.model_copy(update={"output_tokens": estimate_tokens(["word word "])}),
    )
    assert output.cost_usd == pytest.approx((10 * 3 + 990 * 0.3 + estimate_tokens(["word word "]) * 15) / 1e6)
    assert output.cost_usd is not None
    assert read_spent(counters) == pytest.approx(output.cost_usd * 1e9)
    [(account, tally)] = [entry for stored in store.events.values() if (entry := count_usage(stored)) is not None]
    assert (account.policy_id, account.key_id, tally.requests, tally.cached_tokens) == (f"{SKILL}@v1", "key1", 1, 990)
    assert tally.cost_nano_usd == read_spent(counters)


def test_a_usage_that_is_told_to_the_end_is_the_usage() -> None:
    stream, store, counters = tell()
    list(stream.deltas)
    output = find_output(store)
    assert (output.usage, output.estimated_usage) == (Usage(input_tokens=1000, output_tokens=60, cached_tokens=990), None)
    assert read_spent(counters) == pytest.approx((10 * 3 + 990 * 0.3 + 60 * 15) * 1e3)


def test_an_answer_that_breaks_off_is_in_usage_with_what_it_wrote_and_is_no_output() -> None:
    stream, store, counters = tell(fails=True)
    with pytest.raises(BackendFailed):
        list(stream.deltas)
    assert [stored.event_type for stored in store.events.values()] == ["interaction", "failure"]
    [(account, tally)] = [entry for stored in store.events.values() if (entry := count_usage(stored)) is not None]
    assert (account.policy_id, account.key_id) == (f"{SKILL}@v1", "key1")
    assert (tally.requests, tally.input_tokens, tally.cached_tokens) == (1, 1000, 990)
    assert tally.output_tokens == estimate_tokens(["word " * 30])
    assert tally.cost_nano_usd == read_spent(counters) > 0


def test_a_stream_that_fails_before_it_says_anything_counts_as_what_was_told_and_has_fallbacks() -> None:
    counters = MemoryCounters()
    spending = limit_spending(counters, 100_000, "tokens")
    with pytest.raises(DependencyUnavailable):
        ask_stream(MemoryEventStore(), backend=Telling(words=0, fails=True), spending=spending, email=LONG)
    assert read_spent(counters) == 1001

    class First(Telling):
        def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
            self.words, self.fails = (0, True) if backend.model == "a" else (3, False)
            return super().stream(backend, call, timeout_s=timeout_s)

    stream = ask_stream(MemoryEventStore(), registry=with_fallbacks("a", "b"), backend=First())
    assert stream.decision.fallback
    assert "".join(delta.text for delta in stream.deltas) == "word word word "


def test_what_a_guard_of_our_own_cuts_off_counts_as_what_was_written() -> None:
    class Endless(EchoBackend):
        def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
            yield Delta(usage=TOLD)
            while True:
                yield Delta(text="word " * 10_000)

    counters, store = MemoryCounters(), MemoryEventStore()
    spending = limit_spending(counters, 10**9, "tokens")
    assert list(ask_stream(store, backend=Endless(), spending=spending, email=LONG).deltas)[-1].finish_reason == "length"
    output = find_output(store)
    assert output.estimated_usage is not None
    assert read_spent(counters) == 1000 + output.estimated_usage.output_tokens > 300_000

    counters, store, late = MemoryCounters(), MemoryEventStore(), Telling(words=500)  # a piece takes a second of the test's timer
    with pytest.raises(BackendFailed, match="too long"):
        list(ask_stream(store, backend=late, spending=limit_spending(counters, 10**9, "tokens"), email=LONG).deltas)
    [tally] = [entry[1] for stored in store.events.values() if (entry := count_usage(stored)) is not None]
    assert read_spent(counters) == tally.input_tokens + tally.output_tokens
    assert 1000 + 100 < read_spent(counters) < 1000 + 500


def test_calls_of_tools_are_written_too() -> None:
    counters = MemoryCounters()
    call = ToolCall(id="c", function=CalledFunction(name="look_up", arguments="[1, 2]" * 1_000))
    backend = Failing(completion=Completion((Choice("", "tool_calls", tool_calls=(call,)),), None))
    ask(MemoryEventStore(), backend=backend, spending=limit_spending(counters, 100_000, "tokens"))
    assert read_spent(counters) > 2_000


def test_an_answer_without_a_usage_is_in_the_tallies_by_its_estimate() -> None:
    store = MemoryEventStore()
    answer = ask(
        store, backend=Failing(completion=Completion((Choice("hello", "stop"),), None)), spending=limit_spending(MemoryCounters(), 10)
    )
    assert (answer.usage, find_output(store).estimated_usage is None) == (None, False)
    [(_, tally)] = [entry for stored in store.events.values() if (entry := count_usage(stored)) is not None]
    assert (tally.requests, tally.cost_nano_usd > 0) == (1, True)


def test_every_backend_that_was_asked_in_vain_counts_beside_the_one_that_answered() -> None:
    registry, counters = MemoryRegistry(), MemoryCounters()
    spare = openai_model("spare")
    registry.put_policy(make_policy(1).model_copy(update={"fallbacks": (spare,)}), CHANGE)
    registry.write_route(make_route(), expected_version=0)
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


@pytest.mark.parametrize(
    "usage",
    [
        Usage(input_tokens=2459, output_tokens=23, cached_tokens=2455),
        Usage(input_tokens=40_000, output_tokens=5_000, reasoning_tokens=4_900),
    ],
)
def test_counts_of_what_a_vendor_adds_to_a_short_request_are_believed(usage: Usage) -> None:
    counters = MemoryCounters()
    backend = Failing(completion=Completion((Choice("hello", "stop"),), usage))
    answer = ask(
        MemoryEventStore(), email="Hi", backend=backend, spending=limit_spending(counters, 100_000, "tokens"), parameters={"max_tokens": 90}
    )
    assert (answer.usage, read_spent(counters)) == (usage, usage.input_tokens + usage.output_tokens)


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
    registry.put_policy(make_policy(1).model_copy(update={"fallbacks": (dear,)}), CHANGE)
    registry.write_route(make_route(), expected_version=0)
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
        original = make_policy(number)
        registry.put_policy(original.model_copy(update={"sampling": original.sampling.model_copy(update={"max_tokens": longest})}), CHANGE)
    registry.write_route(make_route(arms=(make_canary_route(2, 1.0),)), expected_version=0)
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
    spending, request = limit_spending(counters, 1_000, "requests"), SpendingRequest(skill=SKILL, key_id="k")
    calls = [PossibleCall(make_policy(1), ChatCall((), {"max_tokens": 1}, TENANT), (make_policy(1).backend,))]

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
    spending, request = limit_spending(counters, 1_000, "requests"), SpendingRequest(skill=SKILL, key_id="k")
    calls = [PossibleCall(make_policy(1), ChatCall((), {"max_tokens": 1}, TENANT), (make_policy(1).backend,))]
    announce_shard(counters, TENANT, 5, now=now)
    reservations = [spending.begin(TENANT, request, calls, now=now) for _ in range(2)]
    assert [reservation is not None and reservation.shard != WHOLE for reservation in reservations] == [False, True]
