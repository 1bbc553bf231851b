"""A rollout's trial: it counts by decision, once a unit, for the arm dealt, and loses nothing and counts nothing twice
however it is looked at."""

import random
from datetime import timedelta
from typing import Literal

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from rlaas.rollout.plan import explain_indecision
from rlaas.rollout.steps import Rollout
from rlaas.rollout.trial import TrialState, catch_up, look
from rlaas.rollout.trial_evidence import TrialEvidence
from rlaas.skills.skill import MissingValues, RewardSpec, Skill
from rlaas.telemetry.events import OutputProduced
from rlaas.tenancy.registry import rollout_key, skill_key
from tests.fakes.trials import NEW, OLD, SETTINGS, World, dump_evidence
from tests.fakes.worlds import CHANGE, SKILL, TENANT


def rollout_of(world: World) -> Rollout:
    return world.registry.get(Rollout, TENANT, rollout_key(SKILL, "rol_1")).record


def begin_world(spec: RewardSpec | None = None) -> World:
    world = World()
    if spec is not None:
        stored = world.registry.get(Skill, TENANT, skill_key(SKILL))
        changed = stored.record.model_copy(update={"reward": spec})
        world.registry.replace(TENANT, skill_key(SKILL), changed, expected_version=stored.version, change=CHANGE)
    world.begin_rollout()
    return world


def deal(world: World, arm: str) -> OutputProduced:
    """A draft for a unit that drew `arm`."""
    while world.decide(f"i{world.count + 1}").policy_id != arm:
        world.count += 1
    return world.serve()


def seen(world: World) -> TrialState:
    return catch_up(rollout_of(world), events=world.events, now=world.now)


def test_a_unit_counts_when_its_window_has_closed_with_what_it_had_by_then() -> None:
    world = begin_world()
    world.advance(5)
    early, late = deal(world, NEW), deal(world, NEW)
    world.act(early, "sent", after=50)
    world.act(late, "sent", after=61)
    world.advance(69)
    assert seen(world).test.n == 0
    world.advance(2)
    candidate = seen(world).test.candidate
    assert (candidate.n, candidate.mean, candidate.missing) == (2, 0.5, 1)


def test_clients_clocks_have_no_part_in_it() -> None:
    world = begin_world()
    world.advance(5)
    for hours in (-1, 1):
        world.act(deal(world, NEW), "sent", claimed=world.now + timedelta(hours=hours))
    world.advance(100)
    assert (seen(world).test.candidate.n, seen(world).test.candidate.mean) == (2, 1.0)


def test_what_never_came_is_worth_what_the_spec_declares() -> None:
    world = begin_world(RewardSpec(missing=MissingValues(sent=1.0, edit_similarity=0.5)))
    world.advance(5)
    deal(world, OLD)
    world.advance(100)
    control = seen(world).test.control
    assert (control.mean, control.missing, control.unknown) == (0.75, 1, 0)


def test_a_unit_counts_for_the_arm_it_was_dealt_whoever_answered() -> None:
    world = begin_world()
    world.advance(5)
    _, decision = world.ask()
    while decision.policy_id != NEW:
        _, decision = world.ask()
    fallback = decision.model_copy(update={"fallback": True, "drawn": NEW, "arm": "control", "policy_id": OLD})
    world.act(world.serve(decision=fallback), "sent")
    world.advance(100)
    state = seen(world)
    assert (state.test.candidate.n, state.test.candidate.answered, state.test.control.n) == (1, 0, 0)
    assert state.harmed["failed"].candidate == 1


def test_a_request_that_nobody_answered_counts_as_nothing() -> None:
    world = begin_world()
    world.advance(5)
    while world.fail().policy_id != NEW:
        pass
    world.advance(100)
    state = seen(world)
    assert (state.test.candidate.n, state.test.candidate.mean, state.test.candidate.answered) == (1, 0.0, 0)
    assert state.harmed["failed"].candidate == 1
    assert state.served.candidate == 1


def test_a_unit_that_comes_again_is_no_new_evidence() -> None:
    world = begin_world()
    for _ in range(20):
        world.advance(5)
        world.act(world.serve("thread-1"), "discarded")
    world.advance(200)
    state = seen(world)
    assert (state.test.n, state.served.candidate + state.served.control) == (1, 1)


def test_silence_is_no_harm_of_the_candidates_until_its_window_closes() -> None:
    world = begin_world()
    world.advance(5)
    for _ in range(30):
        deal(world, NEW)
        world.advance(0.5)
    world.advance(20)
    assert seen(world).harm.compute_evidence("unsent") <= 1.0
    world.advance(100)
    assert seen(world).harm.compute_evidence("unsent") > 20


def test_what_is_plainly_bad_is_seen_long_before_the_window_closes() -> None:
    slow = SETTINGS.model_copy(update={"window_hours": 24.0, "max_wait_seconds": 14 * 86_400, "poll_seconds": 900})
    world = World()
    world.begin_rollout(slow)
    for _ in range(150):
        world.advance(20)
        output = world.serve()
        world.act(output, "discarded" if output.policy_id == NEW else "sent")
    world.advance(30)
    state = seen(world)
    assert state.test.n == 0
    assert state.evidence_of_harm().value >= 20
    assert state.evidence_of_harm().reason.startswith("its drafts are sent less often")


@pytest.mark.parametrize(("kind", "text", "latency_ms"), [("empty", "  ", 900.0), ("slow", "Dear customer", 20_000.0)])
def test_each_kind_of_harm_has_its_evidence(kind: str, text: str, latency_ms: float) -> None:
    world = begin_world()
    for _ in range(80):
        world.advance(1)
        world.count += 1
        if world.decide(f"i{world.count + 1}").policy_id == NEW:
            world.serve(text=text, latency_ms=latency_ms)
        else:
            world.serve()
    world.advance(20)
    state = seen(world)
    assert state.harm.compute_evidence(kind) > 20 / 0.1
    assert state.evidence_of_harm().value > 20


def test_with_nobody_there_nothing_is_known() -> None:
    world = begin_world()
    state = seen(world)
    assert (state.test.n, state.evidence_of_harm().value < 1) == (0, True)
    gate = SETTINGS.gate(0)
    assert "no traffic came" in explain_indecision(state.test, gate, weight=0.2, waited_seconds=10)


def test_outcomes_that_have_stopped_coming_are_named() -> None:
    world = begin_world()
    for _ in range(40):
        world.advance(5)
        world.serve()
    world.advance(100)
    reason = explain_indecision(seen(world).test, SETTINGS.gate(0), weight=0.2, waited_seconds=10)
    assert reason == "Nothing came back for any unit: outcomes have stopped coming"


@pytest.mark.parametrize(("user", "taken_back"), [("mallory", False), (None, True)])
def test_nobody_takes_a_candidate_back_by_opening_threads(user: str | None, taken_back: bool) -> None:
    """Without his name the same threads are as many people."""
    world = begin_world()
    for number in range(60):
        world.advance(2)
        world.act(world.serve(f"h{number}", user=f"u{number}"), "sent")
        draft = world.serve(f"m{number}", user=user, text="" if world.decide(f"m{number}").policy_id == NEW else "Dear")
        world.act(draft, "discarded" if draft.policy_id == NEW else "sent")
    world.advance(100)
    state = seen(world)
    assert (state.evidence_of_harm().value >= 20) == taken_back
    assert (state.test.n, state.counted.left_out) == ((120, 0) if taken_back else (62, 58))
    assert state.served.candidate + state.served.control == state.test.n
    evidence = TrialEvidence.of(rollout_of(world), state)
    assert (evidence.left_out, evidence.people) == (state.counted.left_out, 120 if taken_back else 61)


def test_a_user_whom_only_the_interaction_names_is_one_person() -> None:
    world = begin_world()
    for number in range(20):
        world.advance(2)
        name, decision = world.ask(f"m{number}", user="mallory")
        world.act(world.answer(name, decision), "sent")
    world.advance(100)
    assert (seen(world).test.n, seen(world).watched.left_out) == (2, 18)


def test_a_user_who_comes_each_day_is_watched_each_day_and_settled_once() -> None:
    world = begin_world()
    for _ in range(2):
        world.advance(5)
        for _ in range(4):
            world.serve("thread-1", text="")
        world.advance(86_400)
    state = seen(world)
    arm = "candidate" if state.test.candidate.n else "control"
    assert state.test.n == 1
    assert getattr(state.served, arm) == getattr(state.harmed["empty"], arm) == 2
    assert (len(state.harm.logs["empty"]), len(state.harm.daily["empty"])) == (1, 2)


def test_the_evidence_is_told_with_what_it_is_held_against() -> None:
    world = begin_world()
    for _ in range(20):
        world.advance(5)
        world.act(world.serve(), "sent")
    world.advance(100)
    evidence = TrialEvidence.of(rollout_of(world), seen(world))
    assert evidence.threshold == pytest.approx(20)
    assert evidence.candidate.settled + evidence.control.settled == 20
    assert (evidence.candidate.policy_id, evidence.control.mean) == (NEW, 1.0)


What = Literal["sent", "discarded", "both", "none", "failed", "empty"]
WHAT: tuple[What, ...] = ("sent", "discarded", "both", "none", "failed", "empty")
Happening = tuple[int, int, What, float]
happenings = st.lists(st.tuples(st.integers(0, 16), st.integers(0, 40), st.sampled_from(WHAT), st.floats(0, 90)), min_size=1, max_size=25)


@settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking takes minutes
@given(happenings, st.lists(st.integers(1, 200), max_size=8), st.integers(1, 5), st.randoms(use_true_random=False))
def test_state_kept_look_by_look_equals_state_begun_anew_however_the_stream_came(
    events: list[Happening], pauses: list[int], most: int, rng: random.Random
) -> None:
    world = begin_world()
    start = world.now
    for unit, pause, what, after in events:
        world.advance(pause)
        if what == "failed":
            world.fail(f"u{unit}")
            continue
        output = world.serve(
            f"u{unit}", user=f"p{unit % 2}", text="" if what == "empty" else "Dear", took=rng.choice([1.0, 5.0, 12.0, 100.0])
        )
        if what == "sent" or what == "discarded":
            world.act(output, what, after=after)
        if what == "both":
            world.act(output, "discarded", after=after)
            world.act(output, "sent", after=after + rng.uniform(0, 30))
    end = world.now + timedelta(seconds=300)
    # The store does not care in which order things were put, or how often.
    shuffled = list(world.events.events.items())
    rng.shuffle(shuffled)
    world.events.events.clear()
    world.events.events.update(shuffled)

    rollout, state, now = rollout_of(world), TrialState.begin(rollout_of(world)), start
    for pause in (*pauses, 10_000):
        now = min(end, now + timedelta(seconds=pause))
        # Only what had arrived by then can be seen.
        arrived = {key: event for key, event in world.events.events.items() if event.received_at <= now}
        past = World(events=type(world.events)(arrived))
        for _ in range(2 if now < end else 1_000):
            further = look(state, rollout, events=past.events, now=now, most=most)
            if further is state:
                break
            state = TrialState.model_validate_json(further.model_dump_json())
    anew = catch_up(rollout, events=world.events, now=end)
    assert dump_evidence(state) == dump_evidence(anew)
