"""Every text of every event is scrubbed, and nothing else of it changes."""

import json
from typing import Any

import pytest
from pydantic import Field, JsonValue

from rlaas.chat import CalledFunction, Document, Message, ToolCall
from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import CustomEntity, EntityAction, PrivacySettings
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, InteractionCreated, OutputProduced, TaskResultReported
from rlaas.telemetry.ingest import record_event
from rlaas.telemetry.scrubbing import scrub_events
from rlaas.wire import WireModel
from tests.fakes.events import MemoryEventStore
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.worlds import SKILL, TENANT, clock, furnish_registry

MAIL = "ada@example.com"
MASKS = Scrubber(PrivacySettings(), salt=b"pinch")
COMMON: dict[str, Any] = {
    "skill": SKILL,
    "tags": (MAIL,),
    "metadata": {MAIL: [{"deep": {MAIL: MAIL}}, 1, None, True, MAIL]},
    "thread_id": "t1",
}
ABOUT: dict[str, Any] = {**COMMON, "interaction_id": "i1"}
EVENTS: list[AnyEvent] = [
    InteractionCreated(**COMMON, interaction_id="i1", inputs={"email": MAIL, "name": MAIL}, messages=(Message(role="user", content=MAIL),)),
    OutputProduced(**ABOUT, text=MAIL, messages=(Message(role="system", content=MAIL),), finish_reason=MAIL),
    FeedbackSubmitted(**ABOUT, kind="edit", final_text=MAIL),
    FeedbackSubmitted(**ABOUT, kind="comment", comment=MAIL),
    FeedbackSubmitted(**ABOUT, kind="label", label=MAIL),
    FeedbackSubmitted(**ABOUT, kind="metric", metric="why", value=MAIL),
    TaskResultReported(**ABOUT, name="outcome", value=MAIL),
]


@pytest.mark.parametrize("event", EVENTS)
def test_no_text_of_an_event_keeps_personal_data(event: AnyEvent) -> None:
    [clean] = scrub_events([event], MASKS)
    assert "@" not in clean.model_dump_json()
    assert json.loads(clean.model_dump_json()) == json.loads(event.model_dump_json().replace(MAIL, "<EMAIL_ADDRESS>"))


def test_events_keep_their_own_texts() -> None:
    assert scrub_events(EVENTS, AS_IT_IS) == EVENTS
    assert scrub_events([], MASKS) == []


def test_what_is_stored_is_clean_and_its_replay_is_still_known() -> None:
    store = MemoryEventStore()
    first, second = (record_event(EVENTS[0], TENANT, store, clock, skills=furnish_registry(), scrubber=MASKS) for _ in range(2))
    assert (first.new, second.new) == (True, False)
    assert MAIL not in str(store.events)


def test_the_name_of_a_task_result_is_scrubbed_too() -> None:
    [clean] = scrub_events([TaskResultReported(**ABOUT, name=MAIL, value=True)], MASKS)
    assert MAIL not in clean.model_dump_json()


def test_nothing_beside_texts_keeps_personal_data() -> None:
    call = ToolCall(id=MAIL, function=CalledFunction(name=MAIL, arguments=f'{{"to": "{MAIL}", "card": 4.111111111111111e15}}'))
    events: list[AnyEvent] = [
        InteractionCreated(
            skill=SKILL,
            inputs={MAIL: "x", f"<{MAIL}>": "y"},
            messages=(Message(role="assistant", tool_calls=(call,)), Message(role="tool", content="ok", tool_call_id=MAIL)),
            documents=(Document(text=MAIL, source=MAIL),),
            parameters={"tools": [{"properties": {MAIL: {"enum": [4111111111111111, -4111111111111111.0]}}}], MAIL: 1},
            metadata={"phone": 447911123456, "card": 4111111111111111.0},
        ),
        OutputProduced(**ABOUT, text="x", model=MAIL, tool_calls=(call,)),
        TaskResultReported(**ABOUT, name="outcome", value=4111111111111111.0),
        FeedbackSubmitted(**ABOUT, kind="metric", metric="why", value=4111111111111111.0),
    ]
    for event in scrub_events(events, MASKS):
        text = event.model_dump_json()
        assert "@" not in text
        assert "1111" not in text
        assert "447911123456" not in text
    interaction = scrub_events(events, MASKS)[0]
    assert isinstance(interaction, InteractionCreated)
    assert interaction.messages is not None
    assert interaction.messages[0].tool_calls[0].id == interaction.messages[1].tool_call_id == "<EMAIL_ADDRESS>"
    assert interaction.inputs == {"<EMAIL_ADDRESS>": "x", "<<EMAIL_ADDRESS>>": "y"}


class _Nested(WireModel):
    note: str | None = None
    others: tuple[str, ...] = ()


class _Newer(InteractionCreated):
    """An interaction with fields that nobody has heard of."""

    remark: str = ""
    pairs: dict[str, dict[str, float]] = Field(default_factory=dict)
    nested: _Nested | None = None
    any_json: JsonValue = None


def test_a_new_field_is_looked_at_without_being_listed() -> None:
    event = _Newer(
        skill=SKILL,
        inputs={},
        remark=MAIL,
        pairs={MAIL: {MAIL: 1.0}},
        nested=_Nested(note=MAIL, others=(MAIL, "fine")),
        any_json={MAIL: [4111111111111111, {"deep": MAIL}]},
    )
    [clean] = scrub_events([event], MASKS)
    assert "@" not in clean.model_dump_json()
    assert "1111" not in clean.model_dump_json()
    assert "fine" in clean.model_dump_json()


def test_names_that_become_one_another_are_told_apart() -> None:
    [clean] = scrub_events([InteractionCreated(skill=SKILL, inputs={"a@example.com": "1", "b@example.com": "2"})], MASKS)
    assert isinstance(clean, InteractionCreated)
    assert clean.inputs == {"<EMAIL_ADDRESS>": "1", "<EMAIL_ADDRESS> (2)": "2"}


@pytest.mark.parametrize("action", ["mask", "hash", "drop"])
def test_what_is_stored_can_be_read_again_however_long_a_mask_is(action: EntityAction) -> None:
    scrubber = Scrubber(PrivacySettings(actions={"IP_ADDRESS": action}), salt=b"pinch")
    address, many = "1.1.1.1", "1.1.1.1 " * 16
    for event in (
        InteractionCreated(skill=SKILL, inputs={}, tags=(address, many[:64]), documents=(Document(text="x", source=many * 10),)),
        OutputProduced(**ABOUT, text="x", finish_reason=many, model=many * 2),
        FeedbackSubmitted(**ABOUT, kind="label", label=address),
        TaskResultReported(**ABOUT, name=many, value=True),
    ):
        store = MemoryEventStore()
        record_event(event, TENANT, store, clock, skills=furnish_registry(), scrubber=scrubber)
        assert all(address not in stored.event().model_dump_json() for stored in store.events.values())


def test_ids_and_words_of_fixed_lists_stay() -> None:
    scrubber = Scrubber(PrivacySettings(custom=(CustomEntity(name="ANY", pattern="[a-z0-9]+"),)), salt=b"pinch")
    event = FeedbackSubmitted(**{**ABOUT, "thread_id": "4111111111111111", "metadata": {}, "tags": ()}, kind="action", action="sent")
    assert scrub_events([event], scrubber) == [event]
