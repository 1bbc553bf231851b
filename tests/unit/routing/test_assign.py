import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaas.routing.assign import CONTROL, Decision, assign, find_bucket, make_shadow_decision
from rlaas.routing.route import Arm, Route
from tests.fakes.worlds import NOW, SKILL, make_canary_route, make_route

UNITS = [f"thread-{n}" for n in range(600)]
WEIGHTS = st.lists(st.integers(0, 1_000_000), min_size=1, max_size=4).map(
    lambda parts: [part / 1_000_000 if sum(parts) <= 1_000_000 else int(part / sum(parts) * 1_000_000) / 1_000_000 for part in parts]
)


def arms(weights: list[float]) -> tuple[Arm, ...]:
    return tuple(make_canary_route(number, weight) for number, weight in enumerate(weights, start=2))


def ramp(before: Route, after: list[float]) -> Route:
    return before.succeed(
        control=before.control, arms=arms(after), last_good=None, rollout_id=None, changed_by="key:1", reason="ramp", changed_at=NOW
    )


def decide(of: Route, unit: str) -> Decision:
    return assign(of, unit, decision_id="dec_1", decided_at=NOW)


def arms_of(of: Route) -> dict[str, str]:
    return {unit: decide(of, unit).arm for unit in UNITS}


@given(WEIGHTS)
def test_probabilities_are_the_weights_sum_to_one_and_the_propensity_is_the_takens(weights: list[float]) -> None:
    of = make_route(arms=arms(weights))
    for unit in UNITS[:20]:
        decision = decide(of, unit)
        assert sum(candidate.probability for candidate in decision.candidates) == pytest.approx(1, abs=1e-12)
        assert [candidate.probability for candidate in decision.candidates[1:]] == pytest.approx(weights, abs=1e-9)
        (candidate,) = [candidate for candidate in decision.candidates if candidate.arm == decision.arm]
        assert (candidate.probability, candidate.policy_id) == (decision.propensity, decision.policy_id)
        assert decision.propensity > 0


@settings(max_examples=50)
@given(WEIGHTS)
def test_each_arm_gets_its_share_of_units(weights: list[float]) -> None:
    counts = Counter(arms_of(make_route(arms=arms(weights))).values())
    for number, weight in enumerate(weights, start=2):
        share = counts[f"{SKILL}@v{number}"] / len(UNITS)
        assert abs(share - weight) < 5 * (0.25 / len(UNITS)) ** 0.5  # five standard deviations of the widest binomial


@settings(max_examples=50)
@given(WEIGHTS, st.data())
def test_a_changed_weight_moves_only_units_between_that_arm_and_the_control(weights: list[float], data: st.DataObject) -> None:
    before = make_route(arms=arms(weights))
    position = data.draw(st.integers(0, len(weights) - 1))
    room = 1_000_000 - sum(round(weight * 1_000_000) for weight in weights) + round(weights[position] * 1_000_000)
    after = [*weights]
    after[position] = data.draw(st.integers(0, room)) / 1_000_000
    changed = f"{SKILL}@v{position + 2}"
    raised = after[position] >= weights[position]
    expected = (CONTROL, changed) if raised else (changed, CONTROL)
    was, is_ = arms_of(before), arms_of(ramp(before, after))
    assert {(was[unit], is_[unit]) for unit in UNITS if was[unit] != is_[unit]} <= {expected}


@given(WEIGHTS, WEIGHTS, WEIGHTS)
def test_any_chain_of_routes_keeps_shares_exact_and_spans_apart(first: list[float], second: list[float], third: list[float]) -> None:
    last = ramp(ramp(make_route(arms=arms(first)), second), third)
    spans = sorted(span for arm in last.arms for span in arm.spans)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))
    for arm, weight in zip(last.arms, third, strict=True):
        assert sum(end - start for start, end in arm.spans) == round(weight * 1_000_000)


def test_a_full_canary_that_becomes_the_control_keeps_every_unit() -> None:
    full = make_route(arms=(make_canary_route(2, 1.0),))
    shipped = full.succeed(control=f"{SKILL}@v2", last_good=full.target, rollout_id=None, changed_by="key:1", reason="ship", changed_at=NOW)
    assert {decide(full, unit).policy_id for unit in UNITS} == {decide(shipped, unit).policy_id for unit in UNITS} == {f"{SKILL}@v2"}


def test_a_removed_arms_units_go_to_the_control_and_no_others_move() -> None:
    before = make_route(arms=arms([0.2, 0.3, 0.1]))
    after = before.succeed(
        control=before.control, arms=before.arms[1:], last_good=None, rollout_id=None, changed_by="k", reason="stop", changed_at=NOW
    )
    was, is_ = arms_of(before), arms_of(after)
    assert {(was[unit], is_[unit]) for unit in UNITS if was[unit] != is_[unit]} == {(f"{SKILL}@v2", CONTROL)}


def test_shadow_arms_answer_nobody_and_are_no_candidates() -> None:
    shadowed = make_route(arms=(Arm(policy_id=f"{SKILL}@v2", mode="shadow", weight=1.0), make_canary_route(3, 0.5)))
    decisions = [decide(shadowed, unit) for unit in UNITS]
    assert {decision.arm for decision in decisions} == {CONTROL, f"{SKILL}@v3"}
    assert [candidate.arm for candidate in decisions[0].candidates] == [CONTROL, f"{SKILL}@v3"]


def test_a_units_arm_is_the_same_each_time_and_depends_on_the_salt() -> None:
    of = make_route(arms=(make_canary_route(2, 0.5),))
    other = of.model_copy(update={"salt": "another"})
    assert arms_of(of) == arms_of(of)
    assert arms_of(of) != arms_of(other)


@given(st.text(), st.text())
def test_a_bucket_lies_on_the_line(salt: str, unit: str) -> None:
    assert 0 <= find_bucket(salt, unit) < 1


def test_the_bucket_of_a_unit_never_changes() -> None:
    """The first 53 bits of `printf pinch:thread-1 | sha256sum`. Were it to change, every unit of every rollout would be
    dealt anew."""
    assert find_bucket("pinch", "thread-1") == 0.2408825404505487


@pytest.mark.parametrize(
    ("weights", "fault"),
    [([0.6, 0.5], "add up to at most 1"), ([-0.1], "greater than or equal to 0"), ([1.1], "less than or equal to 1")],
)
def test_weights_that_make_no_sense_are_refused(weights: list[float], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        make_route(arms=arms(weights))


def test_a_policy_stands_in_a_route_once() -> None:
    with pytest.raises(ValidationError, match="a policy may be in a route only once"):
        make_route(control=2, arms=(make_canary_route(2, 0.1),))
    with pytest.raises(ValidationError, match="a policy may be in a route only once"):
        make_route(arms=(make_canary_route(2, 0.1), make_canary_route(2, 0.1)))


def test_a_route_reads_back_from_its_json() -> None:
    of = make_route(arms=arms([0.25, 0.125]), last_good=make_route().target)
    assert Route.model_validate_json(of.model_dump_json()) == of


@settings(max_examples=100)
@given(WEIGHTS, WEIGHTS, WEIGHTS)
def test_a_change_of_many_weights_moves_no_more_of_the_line_than_the_shares_that_fell(
    first: list[float], second: list[float], third: list[float]
) -> None:
    """Raises and cuts at once, arms that come and go: what moves is the total variation of the shares, the least that
    can."""
    before = ramp(make_route(arms=arms(first)), second)
    after = ramp(before, third)
    was, is_ = owners(before), owners(after)
    shares = {arm: measure_share(was, arm) for _, arm in was} | {arm: 0 for _, arm in is_ if arm not in {a for _, a in was}}
    total_fall = sum(max(0, share - measure_share(is_, arm)) for arm, share in shares.items())
    assert measure_movement(was, is_) == total_fall


def test_an_old_control_that_becomes_an_arm_keeps_its_units() -> None:
    before = make_route(arms=(make_canary_route(2, 0.3),))
    after = before.succeed(
        control=f"{SKILL}@v2",
        arms=(make_canary_route(1, 0.7),),
        last_good=None,
        rollout_id=None,
        changed_by="k",
        reason="swap",
        changed_at=NOW,
    )
    assert {decide(before, unit).policy_id == decide(after, unit).policy_id for unit in UNITS} == {True}


def test_spans_stay_few_through_a_thousand_reallocations() -> None:
    rng = random.Random(4)
    now = make_route(arms=arms([0.1] * 9))
    most = 0
    for _ in range(1000):
        shares = [rng.gammavariate(1, 1) for _ in range(10)]
        now = ramp(now, [int(share / sum(shares) * 1_000_000) / 1_000_000 for share in shares[:9]])
        most = max(most, sum(len(arm.spans) for arm in now.arms))
    assert most < 100


def owners(of: Route) -> list[tuple[int, str]]:
    """The line as pieces: where each ends, and whose it is."""
    pieces, at = [], 0
    for (start, end), owner in sorted((span, arm.policy_id) for arm in of.arms for span in arm.spans):
        pieces += [(start, of.control)] if start > at else []
        pieces.append((end, owner))
        at = end
    return [*pieces, (1_000_000, of.control)] if at < 1_000_000 else pieces


def measure_share(pieces: list[tuple[int, str]], arm: str) -> int:
    starts = [0, *(end for end, _ in pieces)]
    return sum(end - start for start, (end, owner) in zip(starts, pieces, strict=False) if owner == arm)


def measure_movement(was: list[tuple[int, str]], is_: list[tuple[int, str]]) -> int:
    ends = sorted({end for end, _ in was} | {end for end, _ in is_})
    at = [0, *ends]

    def owner(pieces: list[tuple[int, str]], end: int) -> str:
        return next(arm for piece_end, arm in pieces if end <= piece_end)

    return sum(end - start for start, end in pairwise(at) if owner(was, end) != owner(is_, end))


def test_a_shadow_arm_mirrors_its_share_of_requests_whatever_arm_answers() -> None:
    """20,000 interactions of one thread and of many: five standard deviations."""
    of = make_route(arms=(Arm(policy_id=f"{SKILL}@v2", mode="shadow", weight=0.3), shadow(4, 0.6), make_canary_route(3, 0.5)))
    decisions = [assign(of, f"thread-{n % 500}", decision_id="dec_1", decided_at=NOW, interaction_id=f"int-{n}") for n in range(20_000)]
    counts = Counter((decision.arm, *decision.shadows) for decision in decisions)
    arms_taken = Counter(decision.arm for decision in decisions)
    for arm, total in arms_taken.items():
        for shadows, share in (((2,), 0.3 * 0.4), ((4,), 0.7 * 0.6), ((2, 4), 0.18), ((), 0.28)):
            mirrored = counts[(arm, *(f"{SKILL}@v{version}" for version in shadows))]
            assert abs(mirrored / total - share) < 5 * (0.25 / total) ** 0.5
    again = assign(of, "thread-1", decision_id="dec_2", decided_at=NOW, interaction_id="int-1")
    assert again.shadows == decisions[1].shadows


def shadow(version: int, weight: float) -> Arm:
    return Arm(policy_id=f"{SKILL}@v{version}", mode="shadow", weight=weight)


def test_the_decision_of_a_shadow_answer_counts_for_no_estimate_and_keeps_its_candidates() -> None:
    served = decide(make_route(arms=(shadow(2, 1.0), make_canary_route(3, 0.5))), "thread-1")
    unseen = make_shadow_decision(served, f"{SKILL}@v2")
    assert (unseen.policy_id, unseen.shadow, unseen.shadows, unseen.counts) == (f"{SKILL}@v2", True, (), False)
    assert sum(candidate.probability for candidate in unseen.candidates) == 1
    assert served.counts


def test_a_dropped_arm_stays_dropped_until_it_gets_a_weight_again() -> None:
    stopped = make_route(arms=(Arm(policy_id=f"{SKILL}@v2", mode="bandit", weight=0.0, dropped="error rate 30%"),))

    def put(weight: float) -> Arm:
        arm = Arm(policy_id=f"{SKILL}@v2", mode="bandit", weight=weight)
        (now,) = stopped.succeed(
            control=stopped.control, arms=(arm,), last_good=None, rollout_id=None, changed_by="k", reason="put", changed_at=NOW
        ).arms
        return now

    assert put(0.0).dropped == "error rate 30%"
    assert put(0.2).dropped is None
    with pytest.raises(ValidationError, match="of weight 0 is dropped"):
        Arm(policy_id=f"{SKILL}@v2", mode="bandit", weight=0.1, dropped="error rate 30%")


def test_a_route_with_more_shadows_than_a_decision_names_still_answers() -> None:
    many = tuple(Arm(policy_id=f"{SKILL}@v{at}", mode="shadow", weight=1.0) for at in range(2, 40))
    assert len(decide(make_route(arms=many), "t").shadows) == 32
