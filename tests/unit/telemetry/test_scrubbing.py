"""Every text of every event is scrubbed, and nothing else of it changes."""

import json

import pytest

from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import PrivacySettings
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, InteractionCreated, Message, OutputProduced, TaskResultReported
from rlaas.telemetry.ingest import record
from rlaas.telemetry.scrubbing import scrubbed
from tests.fakes.events import MemoryEventStore
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.worlds import SKILL, TENANT, clock, furnished

MAIL = "ada@example.com"
MASKS = Scrubber(PrivacySettings(), salt=b"pinch")
COMMON = {"skill": SKILL, "tags": (MAIL,), "metadata": {MAIL: [{"deep": {MAIL: MAIL}}, 1, None, True, MAIL]}, "thread_id": "t1"}
ABOUT = {**COMMON, "interaction_id": "i1"}
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
    [clean] = scrubbed([event], MASKS)
    assert "@" not in clean.model_dump_json()
    assert json.loads(clean.model_dump_json()) == json.loads(event.model_dump_json().replace(MAIL, "<EMAIL_ADDRESS>"))


def test_events_keep_their_own_texts() -> None:
    assert scrubbed(EVENTS, AS_IT_IS) == EVENTS
    assert scrubbed([], MASKS) == []


def test_what_is_stored_is_clean_and_its_replay_is_still_known() -> None:
    store = MemoryEventStore()
    first, second = (record(EVENTS[0], TENANT, store, clock, skills=furnished(), scrubber=MASKS) for _ in range(2))
    assert (first.new, second.new) == (True, False)
    assert MAIL not in str(store.events)


def test_the_name_of_a_task_result_is_scrubbed_too() -> None:
    [clean] = scrubbed([TaskResultReported(**ABOUT, name=MAIL, value=True)], MASKS)
    assert MAIL not in clean.model_dump_json()
