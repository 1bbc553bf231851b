from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.ids import derive_id
from rlaas.rewards.follow_up import FollowUp
from rlaas.rewards.reward import compute_reward, select_latest_rewards
from rlaas.rewards.standing import Standing, collect_arrivals
from rlaas.routing.assign import Decision, assign
from rlaas.skills.skill import RewardSpec
from rlaas.telemetry.events import FeedbackSubmitted, OutputProduced, RewardComputed
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.store import StoredEvent
from tests.fakes.events import MemoryEventStore
from tests.fakes.worlds import NOW, SKILL, TENANT, clock, furnish_registry, make_canary_route, make_route

SPECS = furnish_registry()
HALVES = RewardSpec()


def decision() -> Decision:
    return assign(make_route(arms=(make_canary_route(2, 1.0),), version=7, rollout_id="rol_1"), "t1", decision_id="dec_1", decided_at=NOW)


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


def action(value: str, name: str = "f2", *, output_id: str | None = "o1", minutes: int = 2) -> StoredEvent:
    body = f'{{"feedback_id":"{name}","interaction_id":"i1","skill":"{SKILL}","kind":"action","action":"{value}"}}'
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
    result = compute_reward(output(), feedback, HALVES, n=len(feedback))
    assert result is not None
    assert result.components == components
    assert result.reward == pytest.approx(reward)
    assert result.n == len(feedback)


def test_a_reward_says_where_it_came_from() -> None:
    reward = compute_reward(output(), [action("sent"), edit("abcd")], HALVES, n=2)
    assert reward is not None
    assert (reward.policy_id, reward.arm, reward.propensity, reward.route_version) == (f"{SKILL}@v2", f"{SKILL}@v2", 1.0, 7)
    assert (reward.rollout_id, reward.thread_id, reward.user_id, reward.event_ids) == ("rol_1", "t1", "u1", ("f1", "f2"))


def test_weights_of_zero_leave_a_component_out() -> None:
    only_sent = RewardSpec(edit_similarity=0, sent=2)
    assert compute_reward(output(), [edit("xxxx")], only_sent, n=1) is None
    reward = compute_reward(output(), [edit("xxxx"), action("sent")], only_sent, n=2)
    assert reward is not None
    assert reward.reward == 1.0


def follow_up(store: MemoryEventStore, *events: StoredEvent) -> list[RewardComputed]:
    return FollowUp(store, SPECS.get_reward_spec, clock)(collect_arrivals(events))


def follow(store: MemoryEventStore, *events: StoredEvent) -> list[RewardComputed | None]:
    """Each event is stored, then the stream delivers it."""

    def deliver() -> Iterator[RewardComputed | None]:
        for event in events:
            store.put_new(event)
            rewards = follow_up(store, event)
            yield rewards[0] if rewards else None

    return list(deliver())


def rewards_in(store: MemoryEventStore) -> dict[str, RewardComputed]:
    events = [event.event() for event in store.events.values()]
    return select_latest_rewards(event for event in events if isinstance(event, RewardComputed))


def test_each_feedback_brings_the_reward_up_to_date() -> None:
    store = MemoryEventStore()
    rewards = follow(store, output(), edit("abxx"), action("sent"))
    assert [reward.n if reward else None for reward in rewards] == [None, 1, 2]
    assert rewards_in(store)["o1"].reward == pytest.approx(0.75)
    assert ["sent" in reward.components for reward in rewards if reward] == [False, True]


def test_feedback_before_its_output_is_joined_when_it_lands() -> None:
    store = MemoryEventStore()
    assert follow(store, edit("abxx"), action("sent")) == [None, None]
    (reward,) = follow(store, output())
    assert reward is not None
    assert reward.event_ids == ("f1", "f2")
    assert reward.reward == pytest.approx(0.75)


def test_feedback_on_an_output_to_come_is_not_given_to_another() -> None:
    store = MemoryEventStore()
    assert follow(store, output("o1"), edit("xxxx", output_id="o2")) == [None, None]
    (reward,) = follow(store, output("o2", minutes=1))
    assert reward is not None
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
    reward = compute_reward(output("o" * 64), [action("sent", output_id="o" * 64)], HALVES, n=1)
    assert reward is not None
    assert reward.reward_id == derive_id("rew", "o" * 64, "1")


def together(store: MemoryEventStore, *events: StoredEvent) -> list[RewardComputed]:
    """All are stored, then the stream delivers them in one batch."""
    for event in events:
        store.put_new(event)
    return follow_up(store, *events)


def test_a_thousand_edits_of_one_output_that_come_together_make_one_reward_by_the_last() -> None:
    store = MemoryEventStore()
    edits = [edit("xxxx", f"f{number}", minutes=number) for number in range(1, 1000)]
    [reward] = together(store, output(), *edits, edit("abcd", "last", minutes=2000))
    assert (reward.components["edit_similarity"], reward.event_ids) == (1.0, ("last",))


@dataclass
class Reads(MemoryEventStore):
    """Counts the events whose texts are read."""

    texts: int = 0

    def get_many(self, tenant_id: str, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        events = super().get_many(tenant_id, event_ids)
        self.texts += len(events)
        return events

    def read_interaction(self, tenant_id: str, interaction_id: str) -> list[StoredEvent]:
        raise AssertionError("reads all of an interaction")


def test_what_an_event_costs_does_not_grow_with_those_before_it() -> None:
    store, costs = Reads(), []
    follow(store, output())
    for number in range(1, 200):
        before = store.texts
        [reward] = follow(store, edit("abxx", f"f{number}", minutes=number))
        assert reward is not None
        assert reward.n == number
        costs.append(store.texts - before)
    assert set(costs[2:]) == {2}  # the output and the edit
    assert max(costs) <= 4  # and once the first reward, which says what stood before


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=6))
def test_the_last_reward_is_the_same_in_whatever_order_and_however_often_events_are_followed_up(order: list[int], again: list[int]) -> None:
    happened = [
        output("o1"),
        edit("xxxx", "f1", minutes=1),
        action("discarded", "f2", minutes=2),
        edit("abxx", "f3", minutes=3),
        action("sent", "f4", output_id=None, minutes=4),
        output("o0", text="other", minutes=-5),
    ]
    store = MemoryEventStore()
    for event in happened:
        store.put_new(event)
    for place in [*order, *again]:
        follow_up(store, happened[place])
    last = rewards_in(store)["o1"]
    assert (last.components, last.event_ids) == ({"sent": 1.0, "edit_similarity": 0.5}, ("f3", "f4"))


@dataclass
class Racing(MemoryEventStore):
    """Lets `overtaking` happen before the next write of a standing or a reward."""

    overtaking: Callable[[], object] | None = None

    def put_new(self, event: StoredEvent) -> StoredEvent | None:
        if event.event_type == "reward":
            self._be_overtaken()
        return super().put_new(event)

    def put_standing(self, tenant_id: str, interaction_id: str, output_id: str, standing: Standing, *, before: int) -> bool:
        self._be_overtaken()
        return super().put_standing(tenant_id, interaction_id, output_id, standing, before=before)

    def _be_overtaken(self) -> None:
        if self.overtaking:
            overtake, self.overtaking = self.overtaking, None
            overtake()


@pytest.mark.parametrize(
    "before", [[], [edit("xxxx", "f0", minutes=0)], [edit("xxxx", "f0", minutes=0), action("discarded", "f8", minutes=0)]]
)
def test_of_two_writers_of_one_output_the_higher_reward_saw_both(before: list[StoredEvent]) -> None:
    store = Racing()
    follow(store, output(), *before)
    store.put_new(action("sent"))
    store.overtaking = lambda: follow(store, edit("abxx"))
    [reward] = follow_up(store, action("sent"))
    assert reward.components == {"sent": 1.0, "edit_similarity": 0.5}
    assert rewards_in(store)["o1"] == reward


def test_feedback_followed_up_while_its_output_lands_is_in_the_last_reward() -> None:
    """One writer sees no output, and is about to write what stands; it lands, and another makes the first reward, of
    other feedback."""
    store = Racing()
    store.put_new(edit("abxx"))
    store.overtaking = lambda: follow(store, output(), action("sent"))
    follow_up(store, edit("abxx"))
    assert rewards_in(store)["o1"].components == {"sent": 1.0, "edit_similarity": 0.5}


def test_what_a_first_reward_lacks_is_in_the_next_though_its_own_feedback_is_older() -> None:
    store = Racing()
    store.put_new(edit("abxx", "newer", minutes=5))
    store.overtaking = lambda: follow(store, output(), edit("xxxx", "older", minutes=1))
    follow_up(store, edit("abxx", "newer", minutes=5))
    for _ in range(2):
        assert (rewards_in(store)["o1"].n, rewards_in(store)["o1"].event_ids) == (2, ("newer",))
        assert follow_up(store, output(), edit("abxx", "newer", minutes=5), edit("xxxx", "older", minutes=1)) == []


def test_a_writer_that_dies_before_its_reward_leaves_it_to_the_next_delivery() -> None:
    store = MemoryEventStore()
    follow(store, output())
    store.put_new(edit("abxx"))
    store.put_standing(TENANT, "i1", "o1", Standing().after(collect_arrivals([edit("abxx")]).said["o1"]), before=0)
    [reward] = follow(store, edit("abxx"))
    assert reward is not None
    assert reward.n == 1


def test_an_output_with_rewards_from_before_standings_goes_on_from_these() -> None:
    """Their `n` counted events, so that they took numbers without a standing."""
    store = MemoryEventStore()
    feedback = [edit("xxxx", "f0", minutes=0), action("sent", "f1", minutes=1), action("discarded", "f2", minutes=2)]
    for event in (output(), *feedback):
        store.put_new(event)
    for n in range(1, len(feedback) + 1):
        old = compute_reward(output(), feedback[:n], HALVES, n=n)
        assert old is not None
        store.put_new(prepare(old, TENANT, received_at=NOW))
    follow(store, action("sent", "f3", minutes=5))
    last = rewards_in(store)["o1"]
    assert (last.n, last.components, last.event_ids) == (4, {"edit_similarity": 0.0, "sent": 1.0}, ("f0", "f3"))


def test_texts_too_long_to_compare_as_a_whole_say_so() -> None:
    reward = compute_reward(output(text="ab" * 10_000), [edit("ba" * 10_000 + "c")], HALVES, n=1)
    assert reward is not None
    assert reward.edit_measure == "pieces"
    short = compute_reward(output(), [edit("abxx")], HALVES, n=1)
    assert short is not None
    assert short.edit_measure is None
