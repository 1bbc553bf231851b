from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.ids import derived_id
from rlaas.rewards.record import record_reward
from rlaas.rewards.reward import edit_similarity, latest_rewards, reward_of
from rlaas.routing.assign import Decision, assign
from rlaas.telemetry.events import FeedbackSubmitted, OutputProduced, RewardComputed
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.store import StoredEvent
from rlaas.tenancy.tenant import RewardSpec
from tests.fakes.events import MemoryEventStore
from tests.fakes.worlds import NOW, SKILL, TENANT, canary, clock, furnished, route

SPECS = furnished()
HALVES = RewardSpec()


def decision() -> Decision:
    return assign(route(arms=(canary(2, 1.0),), version=7, rollout_id="rol_1"), "t1", decision_id="dec_1", decided_at=NOW)


def output(name: str = "o1", *, text: str = "abcd", minutes: int = 0) -> StoredEvent:
    event = OutputProduced(
        output_id=name,
        interaction_id="i1",
        skill=SKILL,
        thread_id="t1",
        user_id="u1",
        policy_id=f"{SKILL}@v2",
        text=text,
        decision=decision(),
    )
    return prepare(event, TENANT, received_at=NOW + timedelta(minutes=minutes))


def edit(text: str, name: str = "f1", *, output_id: str | None = "o1", minutes: int = 1) -> StoredEvent:
    event = FeedbackSubmitted(feedback_id=name, interaction_id="i1", output_id=output_id, skill=SKILL, kind="edit", final_text=text)
    return prepare(event, TENANT, received_at=NOW + timedelta(minutes=minutes))


def action(taken: str, name: str = "f2", *, output_id: str | None = "o1", minutes: int = 2) -> StoredEvent:
    body = f'{{"feedback_id":"{name}","interaction_id":"i1","skill":"{SKILL}","kind":"action","action":"{taken}"}}'
    event = FeedbackSubmitted.model_validate_json(body).model_copy(update={"output_id": output_id})
    return prepare(event, TENANT, received_at=NOW + timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("feedback", "components", "reward"),
    [
        ([edit("abcd")], {"edit_similarity": 1.0}, 1.0),
        ([edit("abxx")], {"edit_similarity": 0.5}, 0.5),
        ([edit("abxx"), action("sent")], {"edit_similarity": 0.5, "sent": 1.0}, 0.75),
        ([action("sent")], {"edit_similarity": 1.0, "sent": 1.0}, 1.0),
        ([action("discarded")], {"edit_similarity": 0.0, "sent": 0.0}, 0.0),
        ([edit("abxx"), action("regenerated")], {"edit_similarity": 0.0, "sent": 0.0}, 0.0),
        ([edit("xxxx", minutes=1), edit("abxx", "f9", minutes=3), action("sent")], {"edit_similarity": 0.5, "sent": 1.0}, 0.75),
        ([action("discarded"), action("sent", "f9", minutes=3)], {"edit_similarity": 1.0, "sent": 1.0}, 1.0),
    ],
)
def test_the_reward_is_the_weighted_mean_of_its_components(
    feedback: list[StoredEvent], components: dict[str, float], reward: float
) -> None:
    made = reward_of(output(), feedback, HALVES)
    assert made is not None
    assert made.components == components
    assert made.reward == pytest.approx(reward)
    assert made.n == len(feedback)


def test_a_reward_says_where_it_came_from() -> None:
    made = reward_of(output(), [action("sent"), edit("abcd")], HALVES)
    assert made is not None
    assert (made.policy_id, made.arm, made.propensity, made.route_version) == (f"{SKILL}@v2", f"{SKILL}@v2", 1.0, 7)
    assert (made.rollout_id, made.thread_id, made.user_id, made.event_ids) == ("rol_1", "t1", "u1", ("f1", "f2"))


def test_weights_of_zero_leave_a_component_out() -> None:
    only_sent = RewardSpec(edit_similarity=0, sent=2)
    assert reward_of(output(), [edit("xxxx")], only_sent) is None
    made = reward_of(output(), [edit("xxxx"), action("sent")], only_sent)
    assert made is not None
    assert made.reward == 1.0


@given(st.text(max_size=30), st.text(max_size=30))
def test_similarity_is_symmetric_within_bounds_and_one_only_for_equal_texts(draft: str, final: str) -> None:
    similarity = edit_similarity(draft, final)
    assert 0 <= similarity <= 1
    assert similarity == edit_similarity(final, draft)
    assert (similarity == 1) == (draft == final)


def follow(store: MemoryEventStore, *events: StoredEvent) -> list[RewardComputed | None]:
    """Each event is stored, then the stream delivers it."""

    def made() -> Iterator[RewardComputed | None]:
        for event in events:
            store.put_new(event)
            yield record_reward(event, store=store, specs=SPECS, clock=clock)

    return list(made())


def rewards_in(store: MemoryEventStore) -> dict[str, RewardComputed]:
    events = [event.event() for event in store.events.values()]
    return latest_rewards(event for event in events if isinstance(event, RewardComputed))


def test_each_feedback_brings_the_reward_up_to_date() -> None:
    store = MemoryEventStore()
    made = follow(store, output(), edit("abxx"), action("sent"))
    assert [reward.n if reward else None for reward in made] == [None, 1, 2]
    assert rewards_in(store)["o1"].reward == pytest.approx(0.75)
    assert ["sent" in reward.components for reward in made if reward] == [False, True]


def test_feedback_before_its_output_is_joined_when_it_lands() -> None:
    store = MemoryEventStore()
    assert follow(store, edit("abxx"), action("sent")) == [None, None]
    (made,) = follow(store, output())
    assert made is not None
    assert made.n == 2
    assert made.reward == pytest.approx(0.75)


def test_feedback_on_an_output_to_come_is_not_given_to_another() -> None:
    store = MemoryEventStore()
    assert follow(store, output("o1"), edit("xxxx", output_id="o2")) == [None, None]
    (made,) = follow(store, output("o2", minutes=1))
    assert made is not None
    assert set(rewards_in(store)) == {"o2"}


def test_feedback_without_an_output_is_about_the_last_one() -> None:
    store = MemoryEventStore()
    follow(store, output("o1"), output("o2", minutes=1), action("sent", output_id=None))
    assert set(rewards_in(store)) == {"o2"}


def test_a_stream_that_delivers_twice_changes_nothing() -> None:
    store = MemoryEventStore()
    follow(store, output(), action("sent"))
    before = dict(store.events)
    assert follow(store, output(), action("sent")) == [None, None]
    assert store.events == before


def test_an_output_id_of_full_length_still_has_a_valid_reward_id() -> None:
    made = reward_of(output("o" * 64), [action("sent", output_id="o" * 64)], HALVES)
    assert made is not None
    assert made.reward_id == derived_id("rew", "o" * 64, "1")
