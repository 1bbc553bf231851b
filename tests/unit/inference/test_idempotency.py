"""A request that is sent again, and ids that another event has taken."""

from dataclasses import replace
from typing import Any

import pytest

from rlaas.chat import Completion
from rlaas.errors import Conflict, DependencyUnavailable
from rlaas.inference.decide import InferRequest
from rlaas.inference.infer import infer, infer_stream
from rlaas.privacy.scrub import Scrubber
from rlaas.telemetry.events import OutputProduced
from rlaas.telemetry.ingest import prepare, record_event
from tests.fakes.backend import EchoBackend
from tests.fakes.events import MemoryEventStore
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.worlds import NOW, SKILL, TENANT, clock, furnish_registry, make_canary_route
from tests.unit.inference.asking import ASKER, ask, gateway


def test_a_request_sent_again_gets_the_stored_output_and_the_model_is_not_asked() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    first = ask(store, backend=backend, interaction_id="mine")
    again = ask(store, backend=backend, registry=furnish_registry((make_canary_route(2, 1.0),)), interaction_id="mine")
    assert again.replay
    assert (again.output_id, again.text, again.decision) == (first.output_id, first.text, first.decision)
    assert len(backend.requests) == 1
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


def test_an_interaction_id_with_another_payload_conflicts() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    ask(store, interaction_id="mine")
    with pytest.raises(Conflict) as conflict:
        ask(store, backend=backend, interaction_id="mine", email="another")
    assert conflict.value.param == "interaction_id"
    assert backend.requests == []


def test_an_outputs_id_is_not_to_be_derived_and_a_replay_finds_it() -> None:
    store = MemoryEventStore()
    ulid = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    for name in (f"int_{ulid}", "ticket-7"):
        first, again = ask(store, interaction_id=name), ask(store, interaction_id=name)
        assert (first.output_id, again.replay) == (again.output_id, True)
        elsewhere = replace(gateway(), scrubber=Scrubber(settings=AS_IT_IS.settings, salt=b"another"))
        request = InferRequest(skill=SKILL, inputs={"email": "where is my parcel?"}, interaction_id=name)
        assert infer(request, ASKER, elsewhere).output_id != first.output_id
    assert ask(store, interaction_id=f"int_{ulid}").output_id.startswith(f"out_{ulid}_")


@pytest.mark.parametrize("streams", [False, True])
def test_a_paid_answer_is_stored_though_another_event_has_come_under_its_id(streams: bool) -> None:
    store = MemoryEventStore()
    expected_id = ask(MemoryEventStore(), interaction_id="mine").output_id

    class Squatting(EchoBackend):
        """While the model answers, somebody takes the id."""

        def complete(self, *args: Any, **options: Any) -> Completion:
            store.put_new(
                prepare(OutputProduced(skill=SKILL, interaction_id="mine", output_id=expected_id, text="Ours"), TENANT, received_at=NOW)
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
        assert (answer.output_id != expected_id, answer.replay) == (True, False)
    outputs = [event for event in store.read_interaction(TENANT, "mine") if event.event_type == "output"]
    events = {event.event_id: event.event() for event in outputs}
    assert len(events) == 2
    [paid] = [event for name, event in events.items() if name != expected_id]
    assert isinstance(paid, OutputProduced)
    assert paid.output_id in events
    assert paid.key_id == "key1"
    with pytest.raises(Conflict):
        ask(store, interaction_id="mine", backend=EchoBackend())


def test_an_output_that_the_gateway_made_cannot_be_reported_again() -> None:
    store = MemoryEventStore()
    answer = ask(store, interaction_id="mine")
    stored = store.events[TENANT, answer.output_id]
    report = stored.event().model_copy(update={"decision": None, "key_id": None})
    with pytest.raises(Conflict) as conflict:
        record_event(report, TENANT, store, clock, skills=furnish_registry(), scrubber=AS_IT_IS)
    assert conflict.value.param == "output_id"
    assert stored.payload_sha256 is None
