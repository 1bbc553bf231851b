"""What grows when it is masked, and answers of any size: refused before anybody is paid, cut after."""

import json
from collections.abc import Callable, Iterator

import pytest
from pydantic import JsonValue

from rlaas.chat import CalledFunction, ChatCall, Choice, Completion, Delta, Message, ToolCall
from rlaas.errors import Conflict, PayloadTooLarge
from rlaas.inference.check import MAX_ANSWER_BYTES, bound_choices
from rlaas.inference.decide import Asker, InferRequest
from rlaas.inference.gateway import Gateway
from rlaas.inference.infer import AnswerStream, infer, infer_stream
from rlaas.inference.record import Answer
from rlaas.inference.spending import Spending
from rlaas.metering.budgets import Budgets
from rlaas.metering.prices import PriceTable
from rlaas.policies.backend import BackendSpec
from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import CustomEntity, PrivacySettings
from rlaas.telemetry.events import FeedbackSubmitted, InteractionCreated, OutputProduced
from rlaas.telemetry.ingest import prepare_answers, record_event, record_events
from rlaas.telemetry.item_size import MAX_STORED_BYTES
from tests.fakes.backend import EchoBackend
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.worlds import SKILL, TENANT, clock, furnish_registry

MASKS = Scrubber(PrivacySettings(), salt=b"pinch")
GROWING = "1.1.1.1 " * (250 * 1024 // 8)


class Saying(EchoBackend):
    """Answers `text`; in a stream, `pieces` times."""

    def __init__(self, text: str, pieces: int = 1) -> None:
        super().__init__()
        self.text = text
        self.pieces = pieces
        self.count = 0

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        self.calls.append(call)
        return Completion((Choice(self.text, "stop"),), usage=None)

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        self.calls.append(call)
        for _ in range(self.pieces):
            self.count += 1
            yield Delta(text=self.text)
        yield Delta(finish_reason="stop")


def gateway(backend: EchoBackend, store: MemoryEventStore, scrubber: Scrubber = MASKS) -> Gateway:
    return Gateway(
        routes=furnish_registry(),
        backend=backend,
        store=store,
        scrubber=scrubber,
        spending=Spending(MemoryCounters(), Budgets(), PriceTable()),
        clock=clock,
        whole_s=27.0,
        stream_s=110.0,
    )


ASKER = Asker(TENANT, "key1")


def test_an_event_that_masks_make_too_large_is_refused_and_the_others_of_its_batch_are_not() -> None:
    store = MemoryEventStore()
    small = InteractionCreated(skill=SKILL, interaction_id="i1", inputs={"email": "1.1.1.1"})
    large = InteractionCreated(skill=SKILL, interaction_id="i2", inputs={"email": GROWING})
    with pytest.raises(PayloadTooLarge, match="masked"):
        record_event(large, TENANT, store, clock, skills=furnish_registry(), scrubber=MASKS)
    outcomes = record_events([large, small], TENANT, store, clock, skills=furnish_registry(), scrubber=MASKS)
    assert isinstance(outcomes[0], PayloadTooLarge)
    assert [one.event_id for one in store.events.values()] == ["i1"]


def test_numbers_that_grow_when_they_are_written_out_count_as_they_are_stored() -> None:
    event = FeedbackSubmitted(skill=SKILL, interaction_id="i1", kind="comment", comment="x", metadata={"n": [1e9] * 40_000})
    with pytest.raises(PayloadTooLarge):
        record_event(event, TENANT, MemoryEventStore(), clock, skills=furnish_registry(), scrubber=MASKS)


def test_a_request_that_masks_make_too_large_asks_no_model_and_stores_nothing() -> None:
    backend, store = Saying("fine"), MemoryEventStore()
    for ask in (infer, infer_stream):
        with pytest.raises(PayloadTooLarge, match="masked"):
            ask(InferRequest(skill=SKILL, inputs={"email": GROWING}), ASKER, gateway(backend, store))
    assert backend.calls == []
    assert store.events == {}


def stored_events(store: MemoryEventStore) -> dict[str, InteractionCreated | OutputProduced]:
    events = {stored.event_type: stored.event() for stored in store.events.values()}
    assert all(len(stored.payload.encode()) <= MAX_STORED_BYTES for stored in store.events.values())
    return {kind: event for kind, event in events.items() if isinstance(event, InteractionCreated | OutputProduced)}


@pytest.mark.parametrize("text", [GROWING, "x" * 3_000_000, "ñ" * 370_000])
@pytest.mark.parametrize("ask", [infer, infer_stream])
def test_a_conversation_larger_than_an_item_is_answered_whole_and_not_stored(text: str, ask: Callable[..., Answer | AnswerStream]) -> None:
    backend, store = Saying("fine"), MemoryEventStore()
    request = InferRequest(skill=SKILL, interaction_id="i1", messages=(Message(role="user", content=text),), metadata={"a": 1})
    for _ in range(2):
        answer = ask(request, ASKER, gateway(backend, store))
        if isinstance(answer, AnswerStream):
            assert "".join(delta.text for delta in answer.deltas) == "fine"
        else:
            assert answer.text == "fine"
    [call] = backend.calls  # the second is a replay
    assert call.messages[-1].content == text
    events = stored_events(store)
    assert [event.messages for event in events.values()] == [(), None]
    assert [event.cut_fields for event in events.values()] == [("messages",)] * 2
    assert events["interaction"].metadata["a"] == 1
    with pytest.raises(Conflict):
        ask(request.model_copy(update={"messages": (Message(role="user", content=text + "!"),)}), ASKER, gateway(backend, store))


def test_what_goes_with_a_conversation_has_to_fit_an_item() -> None:
    backend, store = Saying("fine"), MemoryEventStore()
    tools: list[JsonValue] = [{"type": "function", "function": {"name": "f", "description": "x" * MAX_STORED_BYTES}}]
    request = InferRequest(skill=SKILL, messages=(Message(role="user", content="hi"),), parameters={"tools": tools})
    with pytest.raises(PayloadTooLarge):
        infer(request, ASKER, gateway(backend, store))
    assert (backend.calls, store.events) == ([], {})


@pytest.mark.parametrize("text", [GROWING * 2, "x" * 3_000_000, "\x00" * 900_000, "ñ" * 700_000])
def test_an_oversized_answer_is_stored_cut_and_says_so(text: str) -> None:
    backend, store = Saying(text), MemoryEventStore()
    answer = infer(InferRequest(skill=SKILL, inputs={"email": "hi"}), ASKER, gateway(backend, store))
    stored = next(one for one in store.events.values() if one.event_type == "output")
    output = stored.event()
    assert isinstance(output, OutputProduced)
    assert len(stored.payload.encode()) <= MAX_STORED_BYTES
    assert len(stored.payload.encode()) > MAX_STORED_BYTES // 2
    assert output.metadata["cut"] == ["text"]
    assert "1.1.1.1" not in output.text
    assert len(json.dumps(answer.text, ensure_ascii=False).encode()) <= MAX_ANSWER_BYTES
    assert (answer.finish_reason == "length") == (answer.text != text)


def test_a_stream_without_end_ends() -> None:
    backend, store = Saying("x" * 50_000, pieces=10_000), MemoryEventStore()
    stream = infer_stream(InferRequest(skill=SKILL, inputs={"email": "hi"}), ASKER, gateway(backend, store))
    deltas = [*stream.deltas]
    assert deltas[-1].finish_reason == "length"
    assert sum(len(delta.text) for delta in deltas) <= MAX_ANSWER_BYTES
    assert backend.count < 25
    [output] = [one.event() for one in store.events.values() if one.event_type == "output"]
    assert isinstance(output, OutputProduced)
    assert (output.finish_reason, output.metadata["cut"]) == ("length", ["text"])


def test_what_an_answer_holds_besides_its_text_is_bounded_too() -> None:
    call = ToolCall(id="1", function=CalledFunction(name="f", arguments="x" * 2_000_000))
    [one] = bound_choices([Choice("hi", "tool_calls", tool_calls=(call,), logprobs=["x" * 2_000_000])])
    assert (one.text, one.tool_calls, one.logprobs, one.finish_reason) == ("hi", (), None, "length")
    choices = bound_choices([Choice("x" * 900_000, "stop") for _ in range(16)])
    assert sum(len(choice.text) for choice in choices) <= MAX_ANSWER_BYTES
    assert bound_choices([Choice("hi", "stop", logprobs=[1])]) == (Choice("hi", "stop", logprobs=[1]),)


def test_an_output_stays_storable_whatever_of_it_a_mask_makes_large() -> None:
    scrubber = Scrubber(PrivacySettings(custom=(CustomEntity(name="A" * 40, pattern="q", action="hash"),)), salt=b"pinch")
    call = ToolCall(id="1", function=CalledFunction(name="f", arguments="q" * 15_000))
    for output in (
        OutputProduced(skill=SKILL, interaction_id="i1", text="q" * 15_000),
        OutputProduced(skill=SKILL, interaction_id="i1", text="q" * 15_000, messages=(Message(role="user", content="q" * 15_000),)),
        OutputProduced(skill=SKILL, interaction_id="i1", text="ok", tool_calls=(call,)),
    ):
        [stored] = prepare_answers([output], TENANT, received_at=clock(), scrubber=scrubber)
        assert len(stored.payload.encode()) <= MAX_STORED_BYTES
        assert stored.event().metadata["cut"]
