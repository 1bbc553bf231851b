"""An answer that nobody saw has no reward, and takes none away from the one that was seen."""

from datetime import timedelta

from rlaas.chat import Message
from rlaas.preferences.pairs import build_pairs
from rlaas.rewards.follow_up import FollowUp
from rlaas.rewards.standing import collect_arrivals
from rlaas.routing.assign import assign, make_shadow_decision
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, OutputProduced, RewardComputed
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.store import StoredEvent
from tests.fakes.events import MemoryEventStore
from tests.fakes.worlds import NOW, SKILL, TENANT, clock, furnish_registry, make_route

SERVED = assign(make_route(), "t1", decision_id="dec_1", decided_at=NOW)


def output(name: str, *, shadow: bool) -> OutputProduced:
    decision = make_shadow_decision(SERVED, f"{SKILL}@v2") if shadow else SERVED
    messages = (Message(role="user", content="where is it?"),)
    text = "Your parcel is on its way."
    return OutputProduced(output_id=name, interaction_id="i1", skill=SKILL, text=text, decision=decision, messages=messages)


def store_event(store: MemoryEventStore, event: AnyEvent, *, after: int) -> StoredEvent:
    stored = prepare(event, TENANT, received_at=NOW + timedelta(seconds=after))
    store.put_new(stored)
    return stored


def follow_up(store: MemoryEventStore, event: StoredEvent) -> list[RewardComputed]:
    return FollowUp(store, furnish_registry().get_reward_spec, clock)(collect_arrivals([event]))


def test_feedback_about_the_interaction_is_about_the_answer_that_was_seen_though_the_shadows_came_later() -> None:
    store = MemoryEventStore()
    assert follow_up(store, store_event(store, output("seen", shadow=False), after=0)) == []
    unseen = store_event(store, output("unseen", shadow=True), after=1)
    sent = store_event(store, FeedbackSubmitted(feedback_id="f1", interaction_id="i1", skill=SKILL, kind="action", action="sent"), after=2)
    [reward] = follow_up(store, sent)
    assert reward.output_id == "seen"
    assert follow_up(store, unseen) == []


def test_feedback_on_a_shadows_output_makes_no_reward_and_no_pair() -> None:
    store = MemoryEventStore()
    assert follow_up(store, store_event(store, output("unseen", shadow=True), after=0)) == []
    edit = FeedbackSubmitted(
        feedback_id="f1", interaction_id="i1", output_id="unseen", skill=SKILL, kind="edit", final_text="It comes today, I promise."
    )
    assert follow_up(store, store_event(store, edit, after=1)) == []
    pairs = build_pairs(store.events.values())
    assert (pairs.pairs, pairs.dropped) == ((), {"shadow": 1})
