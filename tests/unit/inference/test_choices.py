"""Requests for several choices: each is an output, and the request counts once."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rlaas.chat import ChatCall, Choice, Completion, Delta, Usage
from rlaas.errors import DependencyUnavailable
from rlaas.inference.decide import InferRequest
from rlaas.inference.infer import AnswerStream, infer_stream
from rlaas.inference.record import Answer
from rlaas.inference.shadow import shadow_tasks
from rlaas.policies.backend import BackendSpec
from rlaas.routing.route import Arm
from rlaas.telemetry.events import OutputProduced
from rlaas.telemetry.store import StoredEvent
from rlaas.telemetry.usage import count_usage
from tests.fakes.backend import EchoBackend
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.worlds import SKILL, furnish_registry
from tests.unit.inference.asking import ASKER, ask, gateway, limit_spending, read_spent

USAGE = Usage(input_tokens=7, output_tokens=6)


class Drafting(EchoBackend):
    """Answers with as many drafts as it is asked for, and says which call they are of."""

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        return Completion(tuple(Choice(text, "stop") for text in self._drafts(backend, call, timeout_s)), USAGE)

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        for index, text in enumerate(self._drafts(backend, call, timeout_s)):
            yield Delta(index, text=text)
            yield Delta(index, finish_reason="stop")
        yield Delta(usage=USAGE)

    def _drafts(self, backend: BackendSpec, call: ChatCall, timeout_s: float) -> list[str]:
        self._text(backend, call, timeout_s)
        number: Any = call.parameters.get("n", 1)
        return [f"draft {index} of {len(self.requests)}" for index in range(number)]


def draft(store: MemoryEventStore, backend: EchoBackend, **options: Any) -> Answer:
    return ask(store, backend=backend, parameters={"n": 3}, **options)


def stream(store: MemoryEventStore, backend: EchoBackend, key: str) -> AnswerStream:
    request = InferRequest.model_validate_json(json.dumps({"skill": SKILL, "inputs": {"email": "hi"}, "parameters": {"n": 3}}))
    return infer_stream(request, ASKER, gateway(store=store, backend=backend), idempotency_key=key)


def outputs(store: MemoryEventStore) -> dict[str, OutputProduced]:
    events = {name: stored.event() for name, stored in store.events.items()}
    return {name: event for (_, name), event in events.items() if isinstance(event, OutputProduced)}


def list_texts(answered: AnswerStream) -> list[str]:
    texts: dict[int, str] = {}
    for delta in answered.deltas:
        texts[delta.index] = texts.get(delta.index, "") + delta.text
    return [texts[index] for index in sorted(texts)]


@pytest.mark.parametrize("interaction_id", [None, "mine"])
def test_every_choice_is_an_output_of_the_decision_and_the_first_is_the_answers(interaction_id: str | None) -> None:
    store = MemoryEventStore()
    answer = draft(store, Drafting(), **({"interaction_id": interaction_id} if interaction_id else {}))
    stored = outputs(store)
    ids = [answer.output_id, f"{answer.output_id}_1", f"{answer.output_id}_2"]
    assert {one: stored[one].text for one in ids} == {one: f"draft {index} of 1" for index, one in enumerate(ids)}
    assert len(stored) == 3
    assert {output.decision and output.decision.decision_id for output in stored.values()} == {answer.decision.decision_id}
    assert {output.key_id for output in stored.values()} == {"key1"}
    assert len({output.messages for output in stored.values()}) == 1


def test_a_request_for_three_choices_counts_once() -> None:
    store, counters = MemoryEventStore(), MemoryCounters()
    answer = draft(store, Drafting(), spending=limit_spending(counters, 100_000, "tokens"))
    tallies = [tally for stored in store.events.values() if (tally := count_usage(stored)) is not None]
    assert [(tally.requests, tally.output_tokens) for _, tally in tallies] == [(1, 6)]
    assert read_spent(counters) == USAGE.input_tokens + USAGE.output_tokens
    assert [output.cost_usd for output in outputs(store).values() if output.cost_usd is not None] == [answer.cost_usd]


def test_shadows_answer_a_request_once_however_many_choices_it_asked_for() -> None:
    store = MemoryEventStore()
    draft(store, Drafting(), registry=furnish_registry((Arm(policy_id=f"{SKILL}@v2", mode="shadow", weight=1.0),)))
    assert len([task for stored in store.events.values() for task in shadow_tasks(stored)]) == 1
    assert len([stored for stored in store.events.values() if "mirrored" in stored.shadow_roles]) == 1


def test_a_request_sent_again_gets_all_its_choices_and_the_model_is_not_asked() -> None:
    store, backend = MemoryEventStore(), Drafting()
    first, again = draft(store, backend, key="k1"), draft(store, backend, key="k1")
    assert (first.replay, again.replay, len(backend.requests)) == (False, True, 1)
    assert (again.output_id, again.choices, again.usage, again.cost_usd) == (first.output_id, first.choices, first.usage, first.cost_usd)


def test_a_stream_sent_again_gets_all_its_choices() -> None:
    store, backend = MemoryEventStore(), Drafting()
    first = list_texts(stream(store, backend, "k1"))
    assert first == list_texts(stream(store, backend, "k1")) == ["draft 0 of 1", "draft 1 of 1", "draft 2 of 1"]
    assert (len(backend.requests), len(outputs(store))) == (1, 3)


class Failing(MemoryEventStore):
    """Stores no first choice until it is told to."""

    fails = True

    def put_new(self, event: StoredEvent) -> StoredEvent | None:
        if self.fails and event.event_type == "output":
            raise DependencyUnavailable("the store is away")
        return super().put_new(event)

    def put_each(self, events: Any) -> Any:
        return [super(Failing, self).put_new(event) for event in events]


def test_a_request_whose_answer_was_half_stored_is_answered_as_its_replays_will_be() -> None:
    store, backend = Failing(), Drafting()
    with pytest.raises(DependencyUnavailable):
        draft(store, backend, key="k1")
    store.fails = False
    second, replay = draft(store, backend, key="k1"), draft(store, backend, key="k1")
    assert [choice.text for choice in second.choices] == ["draft 0 of 2", "draft 1 of 1", "draft 2 of 1"]
    assert (replay.replay, replay.choices) == (True, second.choices)
