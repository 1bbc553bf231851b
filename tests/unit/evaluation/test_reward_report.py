"""Mean rewards: each unit counts once, nobody more than his share, and the intervals cover the mean."""

from datetime import timedelta
from random import Random

import pytest

from rlaas.errors import InvalidInput
from rlaas.evaluation import reward_report
from rlaas.evaluation.reward_report import RewardFigures, compute_reward_figures, report_rewards
from rlaas.routing.route import UnitKind
from rlaas.telemetry.events import RewardComputed
from rlaas.telemetry.ingest import prepare
from tests.fakes.events import MemoryEventStore
from tests.fakes.worlds import NOW, SKILL, TENANT

DAY = NOW.date()


def reward(number: int, value: float, *, user: str | None = None, thread: str | None = None, n: int = 1, **more: object) -> RewardComputed:
    ids = {"reward_id": f"rew_{number}_{n}", "output_id": f"o{number}", "interaction_id": f"i{number}", "event_ids": ("f",)}
    about = {"skill": SKILL, "user_id": user, "thread_id": thread or f"t{number}", "occurred_at": NOW + timedelta(seconds=number + n)}
    return RewardComputed.model_validate({**ids, **about, "reward": value, "components": {"sent": value}, "n": n, **more})


def figures_of(rewards: list[RewardComputed], unit: UnitKind = "thread") -> RewardFigures:
    figures = compute_reward_figures(rewards, unit=unit)
    assert figures is not None
    return figures


def test_a_draft_counts_by_its_last_reward_and_a_unit_once_by_the_mean_of_its_drafts() -> None:
    again = [reward(1, 0.0, n=n, thread="a") for n in range(1, 5)] + [reward(1, 1.0, n=5, thread="a"), reward(2, 0.0, thread="a")]
    figures = figures_of([*again, reward(3, 1.0, thread="b")])
    assert (figures.mean, figures.drafts, figures.units, figures.people) == (0.75, 3, 2, 2)


def test_a_draft_gone_over_again_and_again_moves_nothing() -> None:
    honest = [reward(n, 1.0) for n in range(20)]
    assert figures_of([*honest, *(reward(99, 0.0, thread="again", n=n) for n in range(1, 200))]).mean == pytest.approx(20 / 21)


def test_one_person_moves_a_report_no_further_than_his_share_and_it_says_so() -> None:
    honest = [reward(n, 1.0, user=f"u{n % 100}") for n in range(400)]
    figures = figures_of([*honest, *(reward(1_000 + n, 0.0, user="mallory") for n in range(4_000))])
    assert figures.mean == pytest.approx(0.98)
    assert (figures.units, figures.people, figures.capped_people, figures.sampled) == (4_400, 101, 1, "people")
    assert (figures.largest_share, figures.counted) == (pytest.approx(0.02), pytest.approx(400 / 0.98))


def test_a_team_of_three_is_told_as_it_is() -> None:
    figures = figures_of([reward(n, float(n % 2), user="abc"[n % 7 // 3]) for n in range(70)])
    assert (figures.mean, figures.capped_people, figures.counted, figures.sampled) == (0.5, 0, 70, "units")


@pytest.mark.parametrize(("people", "alike"), [(30, 1.0), (30, 0.0), (4, 0.0), (200, 0.5)])
def test_intervals_cover_as_often_as_they_say(people: int, alike: float) -> None:
    random, covered, runs = Random(20260302), 0, 300
    for _ in range(runs):
        rewards: list[RewardComputed] = []
        for one in range(people):
            own = random.random() < 0.6
            for _ in range(random.randint(1, 8)):
                value = own if random.random() < alike else random.random() < 0.6
                rewards.append(reward(len(rewards), float(value), user=f"u{one}"))
        figures = figures_of(rewards)
        covered += figures.low <= 0.6 <= figures.high
    assert 0.91 <= covered / runs <= 0.99


def test_a_single_unit_says_nothing_of_the_next() -> None:
    assert (figures_of([reward(1, 1.0)]).low, figures_of([reward(1, 1.0)]).high) == (0.0, 1.0)


def test_a_report_is_by_policy_and_leaves_answers_of_a_fallback_out() -> None:
    store, v1 = MemoryEventStore(), f"{SKILL}@v1"
    for event in (
        reward(1, 1.0, policy_id=v1),
        reward(2, 0.0, policy_id=v1, fallback=True),
        reward(3, 0.0),
        reward(4, 0.5, policy_id=v1, occurred_at=NOW + timedelta(days=1)),
        reward(5, 0.5, policy_id=v1, occurred_at=NOW + timedelta(days=2)),
    ):
        store.put_new(prepare(event, TENANT, received_at=event.occurred_at or NOW))
    report = report_rewards(store, TENANT, SKILL, first=DAY, last=DAY + timedelta(days=1), unit="thread")
    assert {policy: figures.mean for policy, figures in report.policies.items()} == {v1: 0.75}
    assert report.others is not None
    assert report.others.mean == 0.0


def test_more_rewards_than_a_report_reads_are_refused_and_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryEventStore()
    for number in range(4):
        store.put_new(prepare(reward(number, 1.0), TENANT, received_at=NOW))
    monkeypatch.setattr(reward_report, "MOST_REWARDS", 3)
    with pytest.raises(InvalidInput, match="more than 3 rewards"):
        report_rewards(store, TENANT, SKILL, first=DAY, last=DAY, unit="thread")
    monkeypatch.setattr(reward_report, "MOST_REWARDS", 4)
    assert report_rewards(store, TENANT, SKILL, first=DAY, last=DAY, unit="thread").others is not None
