"""Answers piece by piece, and what is stored of them."""

from collections.abc import Iterator

import pytest

from rlaas.chat import (
    BackendFailed,
    ChatCall,
    Delta,
)
from rlaas.policies.backend import BackendSpec
from rlaas.telemetry.events import OutputProduced
from tests.fakes.backend import EchoBackend
from tests.fakes.events import MemoryEventStore
from tests.fakes.worlds import SKILL, TENANT, furnish_registry, make_canary_route
from tests.unit.inference.asking import ask_stream, guard_policy, list_actions


def test_a_stream_is_stored_as_the_answer_it_adds_up_to() -> None:
    store = MemoryEventStore()
    stream = ask_stream(store)
    texts = [delta.text for delta in stream.deltas]
    assert len([text for text in texts if text]) > 3
    output = store.get_many(TENANT, [stream.output_id])[stream.output_id].event()
    assert isinstance(output, OutputProduced)
    assert (output.text, output.finish_reason) == ("".join(texts), "stop")
    assert output.usage is not None
    again = ask_stream(store)
    assert again.output_id != stream.output_id


def test_a_stream_left_by_its_reader_is_stored_as_far_as_it_came() -> None:
    store = MemoryEventStore()
    stream = ask_stream(store)
    first = next(stream.deltas).text
    stream.deltas.close()
    output = store.get_many(TENANT, [stream.output_id])[stream.output_id].event()
    assert isinstance(output, OutputProduced)
    assert (output.text, output.finish_reason, output.usage) == (first, "cancelled", None)


def test_until_its_first_piece_a_stream_has_fallbacks_and_a_broken_one_is_a_failure() -> None:
    backend = EchoBackend(down={"v2"})
    stream = ask_stream(MemoryEventStore(), registry=furnish_registry((make_canary_route(2, 1.0),)), backend=backend)
    assert (stream.policy_id, stream.decision.fallback) == (f"{SKILL}@v1", True)
    store = MemoryEventStore()
    broken = ask_stream(store, backend=Breaking())
    next(broken.deltas)
    with pytest.raises(BackendFailed):
        list(broken.deltas)
    assert [event.event_type for event in store.events.values()] == ["interaction", "failure"]


class Breaking(EchoBackend):
    """Says one word and breaks off."""

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        yield Delta(text="Dear ")
        raise BackendFailed("the connection broke")


def test_a_stream_whose_answer_may_be_withheld_is_checked_first_and_one_that_is_only_flagged_streams() -> None:
    words = {"kind": "block_list", "terms": ["Reply"]}
    store = MemoryEventStore()
    withheld = ask_stream(store, registry=guard_policy(output=[{**words, "action": "block"}], safe_answer="No."))
    assert [delta.text for delta in withheld.deltas if delta.text] == ["No."]
    flagged = ask_stream(store, registry=guard_policy(output=[{**words, "action": "flag"}]))
    assert len([delta.text for delta in flagged.deltas if delta.text]) > 3
    assert sorted(action for _, _, action in list_actions(store)) == ["block", "flag"]
