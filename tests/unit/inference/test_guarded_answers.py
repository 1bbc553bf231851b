"""What a policy's guardrails keep from its model and from the caller."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from rlaas.chat import ChatCall, Completion, Delta
from rlaas.errors import Forbidden
from rlaas.inference.decide import InferRequest
from rlaas.inference.infer import decide, infer
from rlaas.policies.backend import BackendSpec
from rlaas.telemetry.events import OutputProduced
from tests.fakes.backend import EchoBackend
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.worlds import SKILL, TENANT
from tests.unit.inference.asking import ASKER, BLOCK_LIST, SCHEMA, ask, ask_stream, gateway, guard_policy, limit_spending, list_actions


def test_a_blocked_request_gets_the_safe_answer_asks_nobody_and_costs_nothing() -> None:
    store, backend, counters = MemoryEventStore(), EchoBackend(), MemoryCounters()
    registry = guard_policy(input=[BLOCK_LIST], safe_answer="Please call us.")
    options: dict[str, Any] = {"registry": registry, "backend": backend, "spending": limit_spending(counters, 1)}
    answer = ask(store, email="the parcel bomb", interaction_id="mine", **options)
    assert (answer.text, answer.finish_reason, answer.decision.fallback) == ("Please call us.", "content_filter", False)
    assert (backend.requests, counters.items) == ([], {})
    assert list_actions(store) == [("input", "block_list", "block")]
    assert ask(store, email="the parcel bomb", interaction_id="mine", **options).replay
    assert len(list_actions(store)) == 1


def test_a_decision_that_guardrails_block_is_refused_and_what_they_did_is_kept() -> None:
    store, counters = MemoryEventStore(), MemoryCounters()
    request = InferRequest(skill=SKILL, inputs={"email": "the parcel bomb"}, interaction_id="mine")
    world = gateway(store=store, registry=guard_policy(input=[BLOCK_LIST]), spending=limit_spending(counters, 1))
    with pytest.raises(Forbidden):
        decide(request, ASKER, world)
    assert (list_actions(store), counters.items) == ([("input", "block_list", "block")], {})
    assert infer(request, ASKER, world).finish_reason == "content_filter"
    assert len(list_actions(store)) == 1


def test_personal_data_is_taken_out_before_the_backend_sees_it() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    registry = guard_policy(input=[{"kind": "pii", "action": "redact"}])
    ask(store, registry=registry, backend=backend, email="I am ada@example.com")
    assert backend.requests[0][1][-1].content == "Reply to: I am <EMAIL_ADDRESS>"
    assert list_actions(store) == [("input", "pii", "redact")]


CITATION: Any = {"type": "url_citation", "url_citation": {"url": "https://a.example/ada", "title": "Ada", "start_index": 0, "end_index": 2}}


class Thinking(EchoBackend):
    """Thinks aloud before it answers, and cites a page."""

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        answer = super().complete(backend, call, timeout_s=timeout_s)
        return replace(answer, choices=(replace(answer.choices[0], reasoning_content="It is Ada.", annotations=(CITATION,)),))

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        yield Delta(reasoning_content="It is Ada.", annotations=(CITATION,))
        yield from super().stream(backend, call, timeout_s=timeout_s)


FLAGGING = {"kind": "block_list", "terms": ["parcel bomb"], "action": "flag"}


@pytest.mark.parametrize("guardrail", [BLOCK_LIST, {"kind": "pii_leak", "action": "redact"}, FLAGGING])
def test_what_a_guardrail_does_not_look_at_is_left_out_where_answers_are_checked(guardrail: dict[str, object]) -> None:
    store, registry = MemoryEventStore(), guard_policy(output=[guardrail])
    answer = ask(store, registry=registry, backend=Thinking())
    assert (answer.choices[0].reasoning_content, answer.choices[0].annotations) == (None, ())
    deltas = list(ask_stream(store, registry=registry, backend=Thinking()).deltas)
    assert "".join(delta.text for delta in deltas).startswith("v1: ")
    assert [delta for delta in deltas if delta.reasoning_content or delta.annotations] == []
    outputs = [event for event in (stored.event() for stored in store.events.values()) if isinstance(event, OutputProduced)]
    assert [output.reasoning_content for output in outputs] == [None, None]


def test_what_the_model_thought_is_answered_stored_and_replayed_where_nothing_is_checked() -> None:
    store = MemoryEventStore()
    answer = ask(store, backend=Thinking(), interaction_id="mine")
    assert (answer.choices[0].reasoning_content, answer.choices[0].annotations) == ("It is Ada.", (CITATION,))
    again = ask(store, backend=Thinking(), interaction_id="mine")
    assert (again.replay, again.choices[0].reasoning_content) == (True, "It is Ada.")
    stream = ask_stream(store, backend=Thinking())
    assert "".join(delta.reasoning_content or "" for delta in stream.deltas) == "It is Ada."
    output = store.get_many(TENANT, [stream.output_id])[stream.output_id].event()
    assert isinstance(output, OutputProduced)
    assert output.reasoning_content == "It is Ada."


class Improving(EchoBackend):
    """Answers better when asked again."""

    def _text(self, backend: BackendSpec, call: ChatCall, timeout_s: float) -> str:
        super()._text(backend, call, timeout_s)
        return ['Sure: {"a": 1', '{"a": 1}'][len(self.requests) - 1]


def test_an_answer_that_does_not_fit_is_asked_for_once_more_and_both_are_paid_for() -> None:
    store, backend, counters = MemoryEventStore(), Improving(), MemoryCounters()
    registry = guard_policy(output=[{"kind": "json_schema", "json_schema": SCHEMA, "action": "regenerate", "then": "block"}])
    answer = ask(store, registry=registry, backend=backend, spending=limit_spending(counters, 1_000_000, "tokens"))
    assert (answer.text, len(backend.requests)) == ('{"a": 1}', 2)
    assert answer.usage is not None
    assert answer.usage.input_tokens == 14
    assert list_actions(store) == [("output", "json_schema", "regenerate")]


def test_when_the_second_answer_does_not_fit_either_the_safe_answer_stands_in() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    registry = guard_policy(output=[{"kind": "json_schema", "json_schema": SCHEMA, "action": "regenerate", "then": "block"}])
    answer = ask(store, registry=registry, backend=backend)
    assert (answer.finish_reason, len(backend.requests)) == ("content_filter", 2)
    assert [action for _, _, action in list_actions(store)] == ["regenerate", "block"]
