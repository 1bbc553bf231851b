"""Assignment: a unit's arm and the probability it had, decided by hashing alone."""

import hashlib
from collections.abc import Collection
from datetime import datetime

from pydantic import Field

from rlaas.clock import Timestamp
from rlaas.ids import PolicyId
from rlaas.routing.route import MILLION, MOST_SHADOWS, Arm, Route, UnitKind
from rlaas.wire import WireModel

CONTROL = "control"
"""The arm name of the route's control; every other arm is named by its policy id."""
PINNED = "pinned"
"""The arm name of a policy that the request itself asked for."""


class Candidate(WireModel):
    """A policy that could have answered, and with what probability."""

    policy_id: PolicyId
    arm: str
    probability: float = Field(ge=0, le=1)


class Decision(WireModel):
    """What was decided and how likely that was: the record that every off-policy estimate rests on.

    `propensity` is the probability of the arm taken. Decisions with `cached`, `fallback`, `pinned` or `shadow` true are
    left out of estimates: an arm other than the one `drawn` answered, or chance did not choose, or no user saw the
    answer. `shadows` are the policies that answer the same request unseen; they are not among the candidates. `bandit`:
    a bandit sets the shares.
    """

    decision_id: str
    route_version: int
    candidates: tuple[Candidate, ...]
    policy_id: PolicyId
    arm: str
    propensity: float = Field(ge=0, le=1)
    bucket: float = Field(ge=0, lt=1)
    unit: UnitKind
    reason: str
    rollout_id: str | None = None
    decided_at: Timestamp
    cached: bool = False
    fallback: bool = False
    pinned: bool = False
    drawn: str | None = None
    bandit: bool = False
    shadow: bool = False
    shadows: tuple[PolicyId, ...] = Field(default=(), max_length=MOST_SHADOWS)

    @property
    def counts(self) -> bool:
        """Whether estimates may use the decision: chance alone chose the arm, and that arm answered a user."""
        return not (self.cached or self.fallback or self.pinned or self.shadow)

    @property
    def dealt(self) -> str:
        """The arm that the unit was dealt, whoever answered."""
        return self.drawn or self.arm


def find_bucket(salt: str, unit_id: str) -> float:
    """The point in [0, 1) of the unit under `salt`: uniform, and the same for ever."""
    digest = hashlib.sha256(f"{salt}:{unit_id}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def assign(
    route: Route,
    unit_id: str,
    *,
    decision_id: str,
    decided_at: datetime,
    interaction_id: str | None = None,
    without: Collection[PolicyId] = frozenset(),
) -> Decision:
    """Which arm answers the unit, and with what probability; and which shadow arms answer it unseen.

    A unit whose point lies in one of an arm's spans gets that arm, every other one the control. The spans of the arms
    `without` (their cap is spent) are the control's for now, and the probabilities say so. Shadow arms own no span:
    each takes its share of requests by a hash of its own of the `interaction_id` (without one, the decision's id), so
    that what is mirrored depends neither on the arm that answers nor on what another shadow arm takes. O(arms).
    """
    live = [arm for arm in route.arms if arm.live and arm.policy_id not in without]
    shares = [sum(end - start for start, end in arm.spans) for arm in live]
    candidates = (
        Candidate(policy_id=route.control, arm=CONTROL, probability=(MILLION - sum(shares)) / MILLION),
        *(
            Candidate(policy_id=arm.policy_id, arm=arm.policy_id, probability=share / MILLION)
            for arm, share in zip(live, shares, strict=True)
        ),
    )
    point = find_bucket(route.salt, unit_id)
    millionth = int(point * MILLION)
    choice, reason = candidates[0], "control"
    for arm, candidate in zip(live, candidates[1:], strict=True):
        if _owns(arm, millionth):
            choice, reason = candidate, arm.mode
    if choice.arm == CONTROL and any(_owns(arm, millionth) for arm in route.arms if arm.policy_id in without):
        reason = "the arm's cap is spent"
    if route.mode == "rolled_back" and choice.arm == CONTROL:
        reason = "rolled_back"
    return Decision(
        decision_id=decision_id,
        route_version=route.version,
        candidates=candidates,
        policy_id=choice.policy_id,
        arm=choice.arm,
        propensity=choice.probability,
        bucket=point,
        unit=route.unit,
        reason=reason,
        rollout_id=route.rollout_id,
        decided_at=decided_at,
        bandit=route.bandit is not None and any(arm.mode == "bandit" for arm in route.arms),
        shadows=tuple(
            arm.policy_id
            for arm in route.arms
            if not arm.live and find_bucket(f"{route.salt}:shadow:{arm.policy_id}", interaction_id or decision_id) < arm.weight
        )[:MOST_SHADOWS],
    )


def make_shadow_decision(served: Decision, policy_id: str) -> Decision:
    """The decision for the shadow answer of `policy_id` beside the one `served`. No user sees it, and its propensity is
    1: once the request is mirrored, the shadow answers for certain."""
    return served.model_copy(
        update={
            "policy_id": policy_id,
            "arm": policy_id,
            "propensity": 1.0,
            "reason": "shadow",
            "cached": False,
            "fallback": False,
            "drawn": None,
            "bandit": False,
            "shadow": True,
            "shadows": (),
        }
    )


def pin_decision(route: Route, policy_id: str, unit_id: str, *, decision_id: str, decided_at: datetime) -> Decision:
    """The decision for a request that asks for `policy_id` itself."""
    only = Candidate(policy_id=policy_id, arm=PINNED, probability=1.0)
    return Decision(
        decision_id=decision_id,
        route_version=route.version,
        candidates=(only,),
        policy_id=policy_id,
        arm=PINNED,
        propensity=1.0,
        bucket=find_bucket(route.salt, unit_id),
        unit=route.unit,
        reason="the request asks for this policy",
        decided_at=decided_at,
        pinned=True,
    )


def _owns(arm: Arm, millionth: int) -> bool:
    return any(start <= millionth < end for start, end in arm.spans)
