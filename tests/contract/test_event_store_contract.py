from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from rlaas.adapters.aws.events import DynamoEventStore, build_item, read_stored_event
from rlaas.rewards.standing import EventArrival, Standing, StandingStore
from rlaas.telemetry.events import FeedbackSubmitted, InteractionCreated, OutputProduced, RewardComputed
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.store import EventStore, StoredEvent, Trial
from tests.contract.tables import make_table
from tests.fakes.worlds import NOW, SKILL, TENANT, clock

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


def interaction(name: str, *, tenant: str = TENANT, text: str = "hello", minutes: int = 0) -> StoredEvent:
    event = InteractionCreated(interaction_id=name, skill=SKILL, inputs={"email": text})
    return prepare(event, tenant, received_at=NOW + timedelta(minutes=minutes))


def output(name: str, interaction_id: str, *, minutes: int = 0) -> StoredEvent:
    event = OutputProduced(output_id=name, interaction_id=interaction_id, skill=SKILL, text="Dear 💌")
    return prepare(event, TENANT, received_at=NOW + timedelta(minutes=minutes))


def test_an_event_is_stored_once_and_the_second_put_answers_with_the_first(event_store: EventStore) -> None:
    assert event_store.put_new(interaction("i1")) is None
    assert event_store.put_new(interaction("i1", text="other", minutes=1)) == interaction("i1")
    assert event_store.get_many(TENANT, ["i1"]) == {"i1": interaction("i1")}


def test_tenants_do_not_see_or_block_each_other(event_store: EventStore) -> None:
    assert event_store.put_new(interaction("i1")) is None
    assert event_store.put_new(interaction("i1", tenant="other", text="other")) is None
    assert event_store.get_many("third", ["i1"]) == {}
    assert [event.tenant_id for event in event_store.read_interaction("other", "i1")] == ["other"]


def test_get_many_leaves_absent_events_out(event_store: EventStore) -> None:
    event_store.put_new(interaction("i1"))
    event_store.put_new(output("o1", "i1"))
    events = event_store.get_many(TENANT, ["o1", "nothing", "i1", "i1"])
    assert events == {"i1": interaction("i1"), "o1": output("o1", "i1")}
    assert event_store.get_many(TENANT, []) == {}


def test_an_interactions_events_come_in_the_order_received(event_store: EventStore) -> None:
    for event in (output("o2", "i1", minutes=2), interaction("i1"), output("o1", "i1", minutes=1), interaction("i2")):
        event_store.put_new(event)
    assert [event.event_id for event in event_store.read_interaction(TENANT, "i1")] == ["i1", "o1", "o2"]


@pytest.mark.parametrize("digest", ["0" * 64, None])
def test_an_output_is_read_with_the_digest_of_an_older_release_and_without_one(event_store: StandingStore, digest: str | None) -> None:
    event = replace(output("o1", "i1", minutes=1), payload_sha256=digest)
    assert event_store.put_new(interaction("i1")) is None
    assert event_store.put_new(event) is None
    assert event_store.put_new(output("o1", "i1")) == event
    assert event_store.put_each([output("o1", "i1")]) == [event]
    assert event_store.get_many(TENANT, ["o1"]) == {"o1": event}
    assert event_store.read_interaction(TENANT, "i1") == [interaction("i1"), event]
    assert event_store.read_heads(TENANT, ["o1"])["o1"].event_id == "o1"
    assert [one.event_id for one in event_store.read_outline(TENANT, "i1")] == ["i1", "o1"]


@pytest.mark.parametrize("digest", ["0" * 64, None])
def test_a_streams_record_is_read_with_the_digest_of_an_older_release_and_without_one(digest: str | None) -> None:
    event = replace(output("o1", "i1"), payload_sha256=digest)
    item = build_item(event, expires_at=NOW)
    assert ("payload_sha256" in item) == (digest is not None)
    assert read_stored_event(cast(Any, item)) == event


INTERACTION = "int_01ARZ3NDEKTSV4RRFFQ69G5FAV"
OUTPUT = "out_01ARZ3NDEKTSV4RRFFQ69G5FAV"


@pytest.mark.parametrize("output_id", ["o1", OUTPUT, f"{OUTPUT}_2", "out_01BX5ZZKBKACTAV9WEVGEMMVRZ"])
def test_an_output_is_found_by_its_id_and_by_its_interaction_whatever_its_id_names(event_store: EventStore, output_id: str) -> None:
    event_store.put_new(interaction(INTERACTION))
    event = output(output_id, INTERACTION, minutes=1)
    assert event_store.put_new(event) is None
    assert event_store.get_many(TENANT, [output_id]) == {output_id: event}
    assert event_store.read_interaction(TENANT, INTERACTION) == [interaction(INTERACTION), event]


@pytest.mark.parametrize("event_id", ["same", OUTPUT, f"{OUTPUT}_2"])
def test_an_id_is_taken_once_whichever_interaction_it_comes_with(event_store: EventStore, event_id: str) -> None:
    first, second = output(event_id, INTERACTION), output(event_id, "int_2")
    assert event_store.put_new(second) is None
    assert event_store.put_new(first) == second
    assert event_store.get_many(TENANT, [event_id]) == {event_id: second}
    assert event_store.read_interaction(TENANT, INTERACTION) == []
    assert event_store.read_interaction(TENANT, "int_2") == [second]


def test_an_interaction_cannot_take_the_id_of_an_output(event_store: EventStore) -> None:
    assert event_store.put_new(output("same", "i1")) is None
    assert event_store.put_new(interaction("same")) == output("same", "i1")


def test_many_events_are_put_side_by_side_and_answered_in_their_order(event_store: EventStore) -> None:
    event_store.put_new(interaction("i7"))
    events = [interaction(f"i{number}") for number in range(120)]
    answers = event_store.put_each([*events, interaction("i7", text="other")])
    assert [number for number, answer in enumerate(answers) if answer is not None] == [7, 120]
    assert len(event_store.get_many(TENANT, [event.event_id for event in events])) == 120
    assert event_store.put_each([]) == []


def test_a_pending_event_is_listed_until_it_is_settled_and_stays_what_it_is(event_store: EventStore) -> None:
    waiting = replace(output("o1", "i1"), pending=True)
    for event in (waiting, output("o2", "i1"), replace(output("o3", "i1", minutes=5), pending=True)):
        event_store.put_new(event)
    assert [event.event_id for event in event_store.iterate_pending(TENANT, SKILL)] == ["o1", "o3"]
    assert [event.event_id for event in event_store.iterate_pending(TENANT, SKILL, since=NOW + timedelta(minutes=5))] == ["o3"]
    assert list(event_store.iterate_pending("other", SKILL)) == []
    event_store.mark_landed(waiting)
    assert [event.event_id for event in event_store.iterate_pending(TENANT, SKILL)] == ["o3"]
    assert event_store.get_many(TENANT, ["o1"])["o1"] == output("o1", "i1")


def test_settling_what_is_gone_makes_nothing(event_store: EventStore) -> None:
    event_store.mark_landed(output("o1", "i1"))
    assert event_store.get_many(TENANT, ["o1"]) == {}


def reward(name: str, *, minutes: int = 0) -> StoredEvent:
    event = RewardComputed(
        reward_id=name,
        interaction_id="i1",
        output_id="o1",
        skill=SKILL,
        reward=1 / 3,
        components={"sent": 1.0},
        n=1,
        event_ids=("f1",),
    )
    return prepare(event, TENANT, received_at=NOW + timedelta(minutes=minutes))


def test_a_days_rewards_come_by_time_and_from_a_moment_on(event_store: EventStore) -> None:
    for minutes in (5, 0, 24 * 60):
        event_store.put_new(reward(f"r{minutes}", minutes=minutes))
    event_store.put_new(output("o1", "i0"))
    day = NOW.date()
    assert [event.event_id for event in event_store.iterate_day(TENANT, SKILL, "reward", day)] == ["r0", "r5"]
    late = event_store.iterate_day(TENANT, SKILL, "reward", day, since=NOW + timedelta(minutes=5))
    assert [event.event_id for event in late] == ["r5"]
    assert list(event_store.iterate_day(TENANT, "other-skill", "reward", day)) == []


def test_interactions_are_not_listed_by_day(event_store: EventStore) -> None:
    with pytest.raises(ValueError, match="interaction events are not listed by day"):
        event_store.iterate_day(TENANT, SKILL, "interaction", NOW.date())


def in_trial(name: str, unit: str, *, minutes: float, trial: str = "rol_1", failed: bool = False) -> StoredEvent:
    """An output or failure of a decision of the trial, decided `minutes` after noon and reported a minute later."""
    decided_at = NOW + timedelta(minutes=minutes)
    event = output(name, f"i{name}", minutes=0)
    return replace(
        event,
        event_type="failure" if failed else "output",
        received_at=decided_at + timedelta(minutes=1),
        trial=Trial(trial, unit, decided_at),
    )


def test_the_decisions_of_a_trial_are_listed_by_when_they_were_made_across_days(event_store: EventStore) -> None:
    first, last = in_trial("o1", "0.25", minutes=0), in_trial("o3", "0.25", minutes=1_500)
    failed = in_trial("o2", "0.5", minutes=30, failed=True)
    for event in (last, in_trial("o4", "0.25", minutes=5, trial="rol_2"), failed, first, output("o5", "i5")):
        event_store.put_new(event)

    def listed(after: float, until: float) -> list[StoredEvent]:
        start, end = NOW + timedelta(minutes=after), NOW + timedelta(minutes=until)
        return [*event_store.iterate_trial(TENANT, SKILL, "rol_1", after=start, until=end)]

    assert listed(-1, 2_000) == [first, failed, last]
    assert listed(0, 1_499) == [failed]
    assert listed(30, 1_500) == [last]
    assert [*event_store.iterate_trial("other", SKILL, "rol_1", after=NOW - timedelta(days=1), until=NOW + timedelta(days=2))] == []


def test_a_units_decisions_in_a_trial_are_listed_by_when_they_were_made(event_store: EventStore) -> None:
    events = [in_trial(f"o{minutes}", "0.25", minutes=minutes) for minutes in (7, 3, 1, 5, 2, 4, 6)]
    for event in (*events, in_trial("other", "0.5", minutes=0)):
        event_store.put_new(event)
    ids = [event.event_id for event in event_store.iterate_unit(TENANT, SKILL, "rol_1", "0.25")]
    assert ids == ["o1", "o2", "o3", "o4", "o5", "o6", "o7"]
    later = event_store.iterate_unit(TENANT, SKILL, "rol_1", "0.25", since=NOW + timedelta(minutes=6))
    assert [event.event_id for event in later] == ["o6", "o7"]


def test_a_reward_comes_back_with_its_numbers(event_store: EventStore) -> None:
    event_store.put_new(reward("rew_o1_1"))
    (stored,) = event_store.iterate_day(TENANT, SKILL, "reward", NOW.date())
    assert stored == reward("rew_o1_1")
    assert stored.event() == reward("rew_o1_1").event()


def test_heads_and_outlines_leave_payloads_out(event_store: StandingStore) -> None:
    waiting = replace(output("o1", INTERACTION, minutes=1), pending=True)
    bound = replace(output(OUTPUT, INTERACTION, minutes=2), pending=True)
    for event in (bound, waiting, interaction(INTERACTION)):
        event_store.put_new(event)
    bare = [replace(event, payload="") for event in (interaction(INTERACTION), waiting, bound)]
    assert event_store.read_heads(TENANT, ["o1", "nothing", OUTPUT]) == {"o1": bare[1], OUTPUT: bare[2]}
    assert event_store.read_outline(TENANT, INTERACTION) == bare


def test_a_standing_is_replaced_only_while_it_stands_and_is_no_event(event_store: StandingStore) -> None:
    first = Standing(latest={"edit": EventArrival(NOW, "f1")}, n=1)
    second = first.after({"action": EventArrival(NOW, "f2")})
    assert event_store.read_standing(TENANT, INTERACTION, OUTPUT) == Standing()
    assert event_store.put_standing(TENANT, INTERACTION, OUTPUT, first, before=0)
    assert not event_store.put_standing(TENANT, INTERACTION, OUTPUT, second, before=0)
    assert event_store.put_standing(TENANT, INTERACTION, OUTPUT, second, before=1)
    assert not event_store.put_standing(TENANT, INTERACTION, OUTPUT, first, before=1)
    assert event_store.read_standing(TENANT, INTERACTION, OUTPUT) == second
    assert event_store.read_standing(TENANT, INTERACTION, "") == event_store.read_standing("other", INTERACTION, OUTPUT) == Standing()
    assert event_store.read_interaction(TENANT, INTERACTION) == event_store.read_outline(TENANT, INTERACTION) == []


def test_of_megabytes_of_feedback_some_is_left_out_and_no_answer_or_reward(dynamodb: DynamoDBClient) -> None:
    store = DynamoEventStore(make_table(dynamodb, "events"), ttl_days=30, dynamodb=dynamodb, clock=clock)
    ulid = INTERACTION.removeprefix("int_")
    small = [interaction(INTERACTION), output(OUTPUT, INTERACTION), reward(f"rew_{OUTPUT}_1")]
    small[2] = replace(small[2], interaction_id=INTERACTION)
    for event in small:
        store.put_new(event)
    for number in range(24):
        edit = FeedbackSubmitted(
            feedback_id=f"fbk_{ulid}_{number}", interaction_id=INTERACTION, skill=SKILL, kind="edit", final_text="x" * 300_000
        )
        store.put_new(prepare(edit, TENANT, received_at=NOW))
    events = store.read_interaction(TENANT, INTERACTION)
    assert {event.event_id for event in events} >= {event.event_id for event in small}
    assert 2_000_000 < sum(len(event.payload) for event in events) < 6_000_000
    assert {event.event_type for event in store.read_outline(TENANT, INTERACTION)} >= {"interaction", "output", "reward"}
