import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaas.chat import Message
from rlaas.errors import Conflict, DependencyUnavailable, Forbidden, InvalidInput, NotFound
from rlaas.ids import find_interaction_id
from rlaas.privacy.scrub import Scrubber
from rlaas.skills.skill import Metric, Skill
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, InteractionCreated, OutputProduced, TaskResultReported
from rlaas.telemetry.feedback_token import ShownOutput, issue_feedback_token
from rlaas.telemetry.ingest import RecordedEvent, prepare, record_event, record_events
from rlaas.telemetry.pending import find_orphan_time, iterate_pending, join_waiting
from rlaas.telemetry.store import StoredEvent
from rlaas.tenancy.registry import skill_key
from tests.fakes.events import MemoryEventStore
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, clock, furnish_registry

SKILLS = furnish_registry()
INTERACTION = "int_01ARZ3NDEKTSV4RRFFQ69G5FAV"
METRICS = {
    "solved": Metric(type="boolean", direction="maximize"),
    "minutes": Metric(type="float", direction="minimize", attribution_window_hours=1),
    "why": Metric(type="comment"),
    "mood": Metric(type="float", direction="maximize", level="thread"),
}


def interaction(name: str | None = "i1", text: str = "hello") -> InteractionCreated:
    return InteractionCreated(interaction_id=name, skill=SKILL, inputs={"email": text})


def output(name: str = "o1", interaction_id: str = "i1") -> OutputProduced:
    return OutputProduced(output_id=name, interaction_id=interaction_id, skill=SKILL, text="Dear customer")


def edit(name: str | None = "f1", *, interaction_id: str = "i1", output_id: str | None = "o1", text: str = "Hi") -> FeedbackSubmitted:
    return FeedbackSubmitted(
        feedback_id=name, interaction_id=interaction_id, output_id=output_id, skill=SKILL, kind="edit", final_text=text
    )


def take(store: MemoryEventStore, event: AnyEvent, *, key: str | None = None) -> RecordedEvent:
    return record_event(event, TENANT, store, clock, skills=SKILLS, scrubber=AS_IT_IS, idempotency_key=key)


def test_an_event_sent_again_is_a_replay_and_stored_once() -> None:
    store = MemoryEventStore()
    assert take(store, interaction()) == RecordedEvent("i1", new=True, pending=False)
    assert take(store, interaction()) == RecordedEvent("i1", new=False, pending=False)
    assert len(store.events) == 1


@pytest.mark.parametrize("moment", [datetime(1, 1, 1, tzinfo=UTC), datetime(2019, 12, 31, tzinfo=UTC), NOW + timedelta(days=2)])
def test_an_event_of_no_sensible_day_is_refused_and_nothing_is_stored(moment: datetime) -> None:
    store = MemoryEventStore()
    with pytest.raises(InvalidInput) as refusal:
        take(store, interaction().model_copy(update={"occurred_at": moment}))
    assert refusal.value.param == "occurred_at"
    assert store.events == {}


def test_an_id_with_another_payload_conflicts_and_nothing_changes() -> None:
    store = MemoryEventStore()
    take(store, interaction())
    before = dict(store.events)
    with pytest.raises(Conflict) as conflict:
        take(store, interaction(text="other"))
    assert conflict.value.param == "interaction_id"
    with pytest.raises(Conflict):
        take(store, TaskResultReported(task_result_id="i1", interaction_id="i1", skill=SKILL, name="resolved", value=True))
    assert store.events == before


def test_a_replay_is_known_by_the_clients_payload_whenever_it_comes() -> None:
    store = MemoryEventStore()
    take(store, interaction())
    later = record_event(interaction(), TENANT, store, lambda: NOW + timedelta(days=1), skills=SKILLS, scrubber=AS_IT_IS)
    assert not later.new


def test_concurrent_duplicates_are_new_once() -> None:
    store = MemoryEventStore()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: take(store, interaction()), range(64)))
    assert sum(result.new for result in results) == 1


def test_an_idempotency_key_names_the_event_that_brings_no_id() -> None:
    store = MemoryEventStore()
    first = take(store, interaction(None), key="retry-1")
    assert take(store, interaction(None), key="retry-1") == RecordedEvent(first.event_id, new=False, pending=False)
    assert take(store, interaction(None), key="retry-2").event_id != first.event_id
    with pytest.raises(Conflict):
        take(store, interaction(None, text="other"), key="retry-1")
    assert take(store, interaction("mine"), key="retry-1").event_id == "mine"


@pytest.mark.parametrize("key", ["", "a" * 256, "with space", "non-ascii-é"])
def test_a_malformed_idempotency_key_is_refused(key: str) -> None:
    store = MemoryEventStore()
    with pytest.raises(InvalidInput) as refusal:
        take(store, interaction(None), key=key)
    assert refusal.value.param == "Idempotency-Key"
    assert store.events == {}


def test_feedback_before_its_interaction_is_kept_as_pending() -> None:
    store = MemoryEventStore()
    assert take(store, edit()).pending
    take(store, interaction())
    assert take(store, edit("f2")).pending
    take(store, output())
    assert take(store, edit("f3")) == RecordedEvent("f3", new=True, pending=False)
    assert len(store.events) == 5


def test_an_unknown_skill_is_not_found_and_nothing_is_stored() -> None:
    store = MemoryEventStore()
    with pytest.raises(NotFound) as refusal:
        take(store, InteractionCreated(skill="nothing", inputs={}))
    assert refusal.value.param == "skill"
    assert store.events == {}


def test_references_to_something_else_are_refused_by_field() -> None:
    store = MemoryEventStore()
    for event in (interaction(), interaction("i2"), output()):
        take(store, event)
    before = dict(store.events)
    for wrong, field in (
        (edit(interaction_id="i2"), "output_id"),
        (edit(interaction_id="o1", output_id=None), "interaction_id"),
        (edit(output_id="i1"), "output_id"),
    ):
        with pytest.raises(InvalidInput) as refusal:
            take(store, wrong)
        assert refusal.value.param == field
    assert store.events == before


def test_what_is_stored_reads_back_as_the_event_with_its_id_and_time() -> None:
    stored = prepare(interaction(None), TENANT, received_at=NOW)
    event = stored.event()
    assert isinstance(event, InteractionCreated)
    assert (event.interaction_id, event.occurred_at, event.inputs) == (stored.event_id, NOW, {"email": "hello"})
    assert stored.interaction_id == stored.event_id


def test_a_stored_event_with_optional_fields_that_came_later_is_read_at_any_depth() -> None:
    interaction = InteractionCreated(skill=SKILL, messages=(Message(role="user", content="hello"),))
    stored = prepare(interaction, TENANT, received_at=NOW)
    payload = json.loads(stored.payload)
    payload |= {"sentiment": "warm", "messages": [{**payload["messages"][0], "language": "en"}]}
    event = replace(stored, payload=json.dumps(payload)).event()
    assert isinstance(event, InteractionCreated)
    assert event.messages == interaction.messages


def test_a_stored_event_of_a_later_version_is_never_read_as_one_of_this() -> None:
    stored = prepare(interaction(), TENANT, received_at=NOW)
    with pytest.raises(ValidationError, match="schema_version"):
        replace(stored, payload=json.dumps({**json.loads(stored.payload), "schema_version": "2"})).event()


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=5))
def test_the_payloads_hash_does_not_depend_on_the_order_of_fields(inputs: dict[str, str]) -> None:
    backwards = dict(reversed(inputs.items()))
    one, other = (prepare(InteractionCreated(skill=SKILL, inputs=fields), TENANT, received_at=NOW) for fields in (inputs, backwards))
    assert one.payload_sha256 == other.payload_sha256


# Metrics


def metric_feedback(metric: str, value: bool | float | str, **fields: Any) -> FeedbackSubmitted:
    about = fields or {"interaction_id": "i1"}
    return FeedbackSubmitted(feedback_id="f1", skill=SKILL, kind="metric", metric=metric, value=value, **about)


@pytest.fixture
def measured() -> MemoryRegistry:
    registry = furnish_registry()
    current = registry.get(Skill, TENANT, skill_key(SKILL))
    skill = current.record.model_copy(update={"metrics": METRICS})
    registry.replace(TENANT, skill_key(SKILL), skill, expected_version=current.version, change=CHANGE)
    return registry


@pytest.mark.parametrize(
    "event",
    [
        metric_feedback("solved", True),
        metric_feedback("minutes", 3),
        metric_feedback("minutes", 3.5),
        metric_feedback("why", "too long"),
        metric_feedback("mood", 0.5, thread_id="t1"),
    ],
)
def test_feedback_of_a_registered_metric_is_taken(measured: MemoryRegistry, event: FeedbackSubmitted) -> None:
    store = MemoryEventStore()
    assert record_event(event, TENANT, store, clock, skills=measured, scrubber=AS_IT_IS).new
    assert store.events[TENANT, "f1"].interaction_id == event.interaction_id


@pytest.mark.parametrize(
    ("event", "param", "message"),
    [
        (metric_feedback("fun", 1.0), "metric", "registered: minutes, mood, solved, why"),
        (metric_feedback("solved", 1.0), "value", "of type boolean"),
        (metric_feedback("minutes", True), "value", "of type float"),
        (metric_feedback("why", 1.0), "value", "of type comment"),
        (metric_feedback("mood", 1.0), "interaction_id", "of level thread"),
        (metric_feedback("solved", True, thread_id="t1"), "interaction_id", "of level interaction"),
        (TaskResultReported(interaction_id="i1", skill=SKILL, name="minutes", value="long"), "value", "of type float"),
    ],
)
def test_feedback_that_fits_no_metric_is_refused_by_field_and_told_what_is_registered(
    measured: MemoryRegistry, event: AnyEvent, param: str, message: str
) -> None:
    store = MemoryEventStore()
    with pytest.raises(InvalidInput, match=message) as refusal:
        record_event(event, TENANT, store, clock, skills=measured, scrubber=AS_IT_IS)
    assert refusal.value.param == param
    assert store.events == {}


# Ids


def test_ids_that_the_service_makes_name_their_interaction() -> None:
    store = MemoryEventStore()
    take(store, interaction(INTERACTION))
    feedback = take(store, edit(None, interaction_id=INTERACTION, output_id=None))
    assert find_interaction_id(feedback.event_id) == INTERACTION
    assert take(store, edit(None, output_id=None)).event_id.startswith("fbk_")


def test_feedback_on_an_output_whose_id_names_its_interaction_needs_no_interaction_id() -> None:
    store = MemoryEventStore()
    take(store, interaction(INTERACTION))
    take(store, output("out_01ARZ3NDEKTSV4RRFFQ69G5FAV", INTERACTION))
    event = FeedbackSubmitted(output_id="out_01ARZ3NDEKTSV4RRFFQ69G5FAV", skill=SKILL, kind="action", action="sent")
    recorded = take(store, event)
    assert not recorded.pending
    stored = store.events[TENANT, recorded.event_id]
    assert stored.interaction_id == INTERACTION
    assert stored.event().interaction_id == INTERACTION


# What waits


def test_what_came_early_is_joined_when_the_last_it_waited_for_lands() -> None:
    store = MemoryEventStore()
    take(store, edit())
    for event in (interaction(), output()):
        assert [stored.event_id for stored in iterate_pending(store, TENANT, SKILL)] == ["f1"]
        take(store, event)
        join_waiting(TENANT, "i1", landed_ids=[take(store, event).event_id], pending_ids=[], store=store)
    assert not store.events[TENANT, "f1"].pending
    assert list(iterate_pending(store, TENANT, SKILL)) == []


def test_a_pending_event_that_nobody_followed_up_is_settled_when_looked_at() -> None:
    store = MemoryEventStore()
    take(store, edit(output_id=None))
    take(store, interaction())
    assert list(iterate_pending(store, TENANT, SKILL)) == []
    assert not store.events[TENANT, "f1"].pending


def test_an_event_is_orphaned_when_its_metrics_window_is_over(measured: MemoryRegistry) -> None:
    store = MemoryEventStore()
    record_event(metric_feedback("minutes", 3), TENANT, store, clock, skills=measured, scrubber=AS_IT_IS)
    assert find_orphan_time(store.events[TENANT, "f1"], METRICS) == NOW + timedelta(hours=1)
    take(store, edit("f2"))
    assert find_orphan_time(store.events[TENANT, "f2"], METRICS) == NOW + timedelta(days=7)


# Dry runs


def test_what_was_only_tried_is_there_for_what_is_tried_and_for_nothing_else() -> None:
    store = MemoryEventStore()
    tried: list[AnyEvent] = [interaction().model_copy(update={"dryrun": True}), edit(output_id=None).model_copy(update={"dryrun": True})]
    outcomes = record_events([*tried, edit("f2", output_id=None)], TENANT, store, clock, skills=SKILLS, scrubber=AS_IT_IS)
    assert outcomes == [
        RecordedEvent("i1", new=True, pending=False),
        RecordedEvent("f1", new=True, pending=False),
        RecordedEvent("f2", new=True, pending=True),
    ]
    assert {event_id for _, event_id in store.events} == {"f2"}


class LastFirstStore(MemoryEventStore):
    """Writes side by side end in any order: here, in the reverse one."""

    def put_each(self, events: Sequence[StoredEvent]) -> list[StoredEvent | DependencyUnavailable | None]:
        return super().put_each(events[::-1])[::-1]


@pytest.mark.parametrize("dryrun", [False, True])
def test_of_several_events_of_a_batch_with_one_id_the_first_decides(dryrun: bool) -> None:
    store = LastFirstStore()
    events = [one.model_copy(update={"dryrun": dryrun}) for one in (interaction(), interaction(), interaction(text="other"))]
    first, again, other = record_events(events, TENANT, store, clock, skills=SKILLS, scrubber=AS_IT_IS)
    assert (first, again) == (RecordedEvent("i1", new=True, pending=False), RecordedEvent("i1", new=False, pending=False))
    assert isinstance(other, Conflict)
    assert ["hello" in stored.payload for stored in store.events.values()] == ([] if dryrun else [True])


def test_events_of_a_batch_arrive_in_its_order() -> None:
    store = MemoryEventStore()
    edits = [edit(name, text=name) for name in ("f9", "f1", "f5")]
    record_events([interaction(), output(), *edits], TENANT, store, clock, skills=SKILLS, scrubber=AS_IT_IS)
    assert [event.event_id for event in store.read_interaction(TENANT, "i1")] == ["i1", "o1", "f9", "f1", "f5"]


def test_a_page_is_refused_event_by_event_and_nothing_of_it_is_looked_at() -> None:
    class Looked(Scrubber):
        def scrub(self, texts: Sequence[str]) -> list[str]:
            assert "secret" not in texts
            return super().scrub(texts)

    store, scrubber = MemoryEventStore(), Looked(settings=AS_IT_IS.settings, salt=AS_IT_IS.salt)
    [logged] = record_events([output()], TENANT, store, clock, skills=SKILLS, scrubber=scrubber)
    assert isinstance(logged, RecordedEvent)
    by_token = edit("mine", output_id=None).model_copy(update={"feedback_token": logged.feedback_token})
    refusal, unproven, outcome = record_events(
        [interaction("i2", "secret"), edit(text="secret"), by_token],
        TENANT,
        store,
        clock,
        skills=SKILLS,
        scrubber=scrubber,
        page_key_id="k1",
    )
    assert (type(refusal), type(unproven)) == (Forbidden, Forbidden)
    assert isinstance(outcome, RecordedEvent)
    assert [(event.event_type, event.output_id) for event in store.read_interaction(TENANT, "i1")] == [("output", "o1"), ("feedback", "o1")]


def test_what_a_page_says_again_with_another_token_or_key_is_a_replay() -> None:
    store = MemoryEventStore()
    outcomes = []
    for key_id, later in (("k1", 0), ("k2", 5)):
        token = issue_feedback_token(ShownOutput(SKILL, "i1", "o1"), scrubber=AS_IT_IS, now=NOW + timedelta(seconds=later))
        feedback = edit("mine").model_copy(update={"feedback_token": token})
        outcomes.append(record_event(feedback, TENANT, store, clock, skills=SKILLS, scrubber=AS_IT_IS, page_key_id=key_id))
    assert [outcome.new for outcome in outcomes] == [True, False]
