"""The share that one person may have of what is counted."""

import json
import math
import random
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rlaas.voices import FREE, FREE_A_DAY, LEAST_SHARE, MANY, Voices, bound_share, bound_units, identify_person

MONDAY = datetime(2026, 3, 2, tzinfo=UTC)
Unit = tuple[datetime, str]


def make_units(of_person: dict[str, int], *, days: int = 1, first_hour: float = 0.0, hours: float = 24.0, seed: int = 1) -> list[Unit]:
    """So many units of each person a day, spread over `hours` hours, in the order of time."""
    rng = random.Random(seed)
    units = [
        (MONDAY + timedelta(days=day, hours=first_hour + hours * rng.random()), who)
        for day in range(days)
        for who, count in of_person.items()
        for _ in range(count)
    ]
    return sorted(units)


def hear_units(voices: Voices, units: list[Unit]) -> list[str]:
    return [who for at, who in units if voices.hear(who, at)]


@pytest.mark.parametrize(
    ("people", "share"), [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2 / 3), (20, 0.1), (100, LEAST_SHARE), (10**6, LEAST_SHARE)]
)
def test_a_person_may_have_twice_an_even_share(people: int, share: float) -> None:
    assert bound_share(people) == pytest.approx(share)


@given(st.lists(st.integers(1, 2_000), min_size=1, max_size=60))
def test_a_cap_leaves_everybody_their_share_and_is_the_largest_that_does(counts: list[int]) -> None:
    most, share = bound_units(counts), bound_share(len(counts))
    left = [min(count, most) for count in counts]
    assert max(left) <= share * sum(left) * (1 + 1e-9)
    if math.isfinite(most):
        wider = [min(count, most * 1.001) for count in counts]
        assert max(wider) > share * sum(wider)


def test_with_two_people_nothing_is_capped() -> None:
    assert bound_units([1_000, 1]) == math.inf


@pytest.mark.parametrize("before", [0, 200])
@pytest.mark.parametrize("repeated", [10, 100, 3_000])
def test_among_many_nobody_has_more_than_their_share_at_any_time_of_any_day(before: int, repeated: int) -> None:
    voices, counts = Voices(before=before), Counter[str]()
    today: Counter[str] = Counter()
    units = make_units({f"p{n}": 5 for n in range(200)} | {"again": repeated}, days=2)
    for at, who in units:
        if at.date() > MONDAY.date() and sum(today.values()) == sum(counts.values()):
            today.clear()
        if voices.hear(who, at):
            counts[who] += 1
            today[who] += 1
        if before or counts.total() > 250:  # before that there are few people
            assert counts["again"] <= max(FREE, 0.025 * sum(counts.values()))  # counts are too high by 1/128 at most, and never too low
            assert today["again"] <= max(FREE_A_DAY, 0.025 * sum(today.values()))
    assert counts["p7"] >= 9
    assert voices.left_out == len(units) - sum(counts.values())


def test_a_team_loses_next_to_nothing() -> None:
    units = make_units({"ada": 110, "bo": 60, "cy": 30}, days=14)
    assert len(hear_units(Voices(before=3), units)) > 0.97 * len(units)
    shifts = sorted(unit for place, who in enumerate("abc") for unit in make_units({who: 67}, days=14, first_hour=8 * place, hours=8))
    assert len(hear_units(Voices(before=3), shifts)) > 0.9 * len(shifts)
    alone = make_units({"ada": 200})
    assert len(hear_units(Voices(), alone)) == len(alone)


def test_people_who_left_make_room() -> None:
    voices = Voices()
    hear_units(voices, make_units({"ada": 50, "bo": 50, "cy": 50}))
    later = [(at + timedelta(days=40), who) for at, who in make_units({"ada": 100})]
    assert len(hear_units(voices, later)) == 100


def test_each_unit_without_user_or_thread_counts_as_a_person_of_its_own() -> None:
    people = {identify_person(None, None, f"unit-{n}"): 1 for n in range(2_000)}
    assert len(hear_units(Voices(before=500), make_units(people, days=1))) > 0.98 * len(people)


def test_a_person_is_the_user_or_else_the_thread_or_else_the_unit() -> None:
    assert (
        identify_person("u", "t", "i")
        == identify_person("u", None, "j")
        != identify_person(None, "t", "i")
        == identify_person(None, "t", "j")
        != identify_person(None, None, "i")
    )
    assert identify_person("x", None, "i") != identify_person(None, "x", "i")


@pytest.mark.parametrize("hours", [1, 24])
def test_an_earlier_answer_can_be_asked_for_until_it_is_forgotten(hours: int) -> None:
    voices = Voices(before=MANY, silence_hours=hours)
    units = make_units({"again": 300} | {f"p{n}": 3 for n in range(30)})
    answers = [(at, who, voices.hear(who, at)) for at, who in units]
    assert not all(counts for *_, counts in answers)
    assert [voices.was_heard(who, at) for at, who, _ in answers] == [counts for *_, counts in answers]
    voices.forget(MONDAY + timedelta(days=1))
    assert voices.silent == {}


@pytest.mark.parametrize(("hours", "window"), [(1, 48), (24, 10 * 24)])
def test_the_state_of_silent_people_is_small(hours: int, window: int) -> None:
    voices = Voices(before=100, silence_hours=hours)
    for day in range(window // 24):
        for at, who in make_units({f"p{n}": 40 if n < 45 else 2 for n in range(300)}, seed=day):
            voices.hear(who, at + timedelta(days=day))
    assert 0 < len(json.dumps(voices.silent)) < (120_000 if hours == 1 else 25_000)


def test_voices_stored_in_between_give_the_same_answers_and_stay_small() -> None:
    units = make_units({"again": 300} | {f"p{n}": 3 for n in range(400)}, days=3)
    voices, stored, adapter = Voices(), Voices(), TypeAdapter(Voices)
    for place, (at, who) in enumerate(units):
        if place % 500 == 0:
            stored = adapter.validate_json(adapter.dump_json(stored))
            stored.forget(at - timedelta(hours=24))
        assert voices.hear(who, at) == stored.hear(who, at)
    assert len(json.dumps(asdict(stored))) < 12_000
