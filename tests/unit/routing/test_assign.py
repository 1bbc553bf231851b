from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaas.routing.assign import CONTROL, Decision, assign, bucket
from rlaas.routing.route import Arm, Route
from tests.fakes.worlds import NOW, SKILL, canary, route

UNITS = [f"thread-{n}" for n in range(600)]
WEIGHTS = st.lists(st.integers(0, 1_000_000), min_size=1, max_size=4).map(
    lambda parts: [part / 1_000_000 if sum(parts) <= 1_000_000 else int(part / sum(parts) * 1_000_000) / 1_000_000 for part in parts]
)


def arms(weights: list[float]) -> tuple[Arm, ...]:
    return tuple(canary(number, weight) for number, weight in enumerate(weights, start=2))


def ramped(before: Route, after: list[float]) -> Route:
    return before.succeed(
        control=before.control, arms=arms(after), last_good=None, rollout_id=None, changed_by="key:1", reason="ramp", changed_at=NOW
    )


def decide(of: Route, unit: str) -> Decision:
    return assign(of, unit, decision_id="dec_1", decided_at=NOW)


def arms_of(of: Route) -> dict[str, str]:
    return {unit: decide(of, unit).arm for unit in UNITS}


@given(WEIGHTS)
def test_probabilities_are_the_weights_sum_to_one_and_the_propensity_is_the_takens(weights: list[float]) -> None:
    of = route(arms=arms(weights))
    for unit in UNITS[:20]:
        decision = decide(of, unit)
        assert sum(candidate.probability for candidate in decision.candidates) == pytest.approx(1, abs=1e-12)
        assert [candidate.probability for candidate in decision.candidates[1:]] == pytest.approx(weights, abs=1e-9)
        (taken,) = [candidate for candidate in decision.candidates if candidate.arm == decision.arm]
        assert (taken.probability, taken.policy_id) == (decision.propensity, decision.policy_id)
        assert decision.propensity > 0


@settings(max_examples=50)
@given(WEIGHTS)
def test_each_arm_gets_its_share_of_units(weights: list[float]) -> None:
    counts = Counter(arms_of(route(arms=arms(weights))).values())
    for number, weight in enumerate(weights, start=2):
        share = counts[f"{SKILL}@v{number}"] / len(UNITS)
        assert abs(share - weight) < 5 * (0.25 / len(UNITS)) ** 0.5  # five standard deviations of the widest binomial


@settings(max_examples=50)
@given(WEIGHTS, st.data())
def test_a_changed_weight_moves_only_units_between_that_arm_and_the_control(weights: list[float], data: st.DataObject) -> None:
    before = route(arms=arms(weights))
    position = data.draw(st.integers(0, len(weights) - 1))
    room = 1_000_000 - sum(round(weight * 1_000_000) for weight in weights) + round(weights[position] * 1_000_000)
    after = [*weights]
    after[position] = data.draw(st.integers(0, room)) / 1_000_000
    changed = f"{SKILL}@v{position + 2}"
    raised = after[position] >= weights[position]
    expected = (CONTROL, changed) if raised else (changed, CONTROL)
    was, is_ = arms_of(before), arms_of(ramped(before, after))
    assert {(was[unit], is_[unit]) for unit in UNITS if was[unit] != is_[unit]} <= {expected}


@given(WEIGHTS, WEIGHTS, WEIGHTS)
def test_any_chain_of_routes_keeps_shares_exact_and_spans_apart(first: list[float], second: list[float], third: list[float]) -> None:
    last = ramped(ramped(route(arms=arms(first)), second), third)
    spans = sorted(span for arm in last.arms for span in arm.spans)
    assert all(earlier[1] <= later[0] for earlier, later in pairwise(spans))
    for arm, weight in zip(last.arms, third, strict=True):
        assert sum(end - start for start, end in arm.spans) == round(weight * 1_000_000)


def test_a_full_canary_that_becomes_the_control_keeps_every_unit() -> None:
    full = route(arms=(canary(2, 1.0),))
    shipped = full.succeed(control=f"{SKILL}@v2", last_good=full.target, rollout_id=None, changed_by="key:1", reason="ship", changed_at=NOW)
    assert {decide(full, unit).policy_id for unit in UNITS} == {decide(shipped, unit).policy_id for unit in UNITS} == {f"{SKILL}@v2"}


def test_a_removed_arms_units_go_to_the_control_and_no_others_move() -> None:
    before = route(arms=arms([0.2, 0.3, 0.1]))
    after = before.succeed(
        control=before.control, arms=before.arms[1:], last_good=None, rollout_id=None, changed_by="k", reason="stop", changed_at=NOW
    )
    was, is_ = arms_of(before), arms_of(after)
    assert {(was[unit], is_[unit]) for unit in UNITS if was[unit] != is_[unit]} == {(f"{SKILL}@v2", CONTROL)}


def test_shadow_arms_answer_nobody_and_are_no_candidates() -> None:
    shadowed = route(arms=(Arm(policy_id=f"{SKILL}@v2", mode="shadow", weight=1.0), canary(3, 0.5)))
    decisions = [decide(shadowed, unit) for unit in UNITS]
    assert {decision.arm for decision in decisions} == {CONTROL, f"{SKILL}@v3"}
    assert [candidate.arm for candidate in decisions[0].candidates] == [CONTROL, f"{SKILL}@v3"]


def test_a_units_arm_is_the_same_each_time_and_depends_on_the_salt() -> None:
    of = route(arms=(canary(2, 0.5),))
    other = of.model_copy(update={"salt": "another"})
    assert arms_of(of) == arms_of(of)
    assert arms_of(of) != arms_of(other)


@given(st.text(), st.text())
def test_a_bucket_lies_on_the_line(salt: str, unit: str) -> None:
    assert 0 <= bucket(salt, unit) < 1


def test_the_bucket_of_a_unit_never_changes() -> None:
    """The first 53 bits of `printf pinch:thread-1 | sha256sum`. Were it to change, every unit of every rollout would be dealt anew."""
    assert bucket("pinch", "thread-1") == 0.2408825404505487


@pytest.mark.parametrize(
    ("weights", "fault"),
    [([0.6, 0.5], "add up to at most 1"), ([-0.1], "greater than or equal to 0"), ([1.1], "less than or equal to 1")],
)
def test_weights_that_make_no_sense_are_refused(weights: list[float], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        route(arms=arms(weights))


def test_a_policy_stands_in_a_route_once() -> None:
    with pytest.raises(ValidationError, match="a policy stands in a route once"):
        route(control=2, arms=(canary(2, 0.1),))
    with pytest.raises(ValidationError, match="a policy stands in a route once"):
        route(arms=(canary(2, 0.1), canary(2, 0.1)))


def test_a_route_reads_back_from_its_json() -> None:
    of = route(arms=arms([0.25, 0.125]), last_good=route().target)
    assert Route.model_validate_json(of.model_dump_json()) == of
