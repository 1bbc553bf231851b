"""Assignment: a unit's arm and the probability it had, decided by hashing alone."""

import hashlib
from datetime import datetime

from pydantic import Field

from rlaas.clock import Timestamp
from rlaas.ids import PolicyId
from rlaas.routing.route import MILLION, Route, Unit
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
    """What was decided and how likely it was: the record every off-policy estimate rests on.

    `propensity` is the probability of the arm taken. Decisions with `cached`, `fallback` or `pinned` true are left out of estimates.
    """

    decision_id: str
    route_version: int
    candidates: tuple[Candidate, ...]
    policy_id: PolicyId
    arm: str
    propensity: float = Field(ge=0, le=1)
    bucket: float = Field(ge=0, lt=1)
    unit: Unit
    reason: str
    rollout_id: str | None = None
    decided_at: Timestamp
    cached: bool = False
    fallback: bool = False
    pinned: bool = False


    @property
    def counts(self) -> bool:
        """Whether estimates may use it: the arm answered, and chance alone chose it."""
        return not (self.cached or self.fallback or self.pinned)


def bucket(salt: str, unit: str) -> float:
    """The point in [0, 1) of `unit` under `salt`: uniform, and the same for ever."""
    digest = hashlib.sha256(f"{salt}:{unit}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def assign(route: Route, unit: str, *, decision_id: str, decided_at: datetime) -> Decision:
    """Which arm answers `unit`, and with what probability.

    A unit whose point lies in one of an arm's spans gets that arm, every other one the control. Shadow arms own no span. O(arms).
    """
    live = [arm for arm in route.arms if arm.live]
    shares = [sum(end - start for start, end in arm.spans) for arm in live]
    candidates = (
        Candidate(policy_id=route.control, arm=CONTROL, probability=(MILLION - sum(shares)) / MILLION),
        *(
            Candidate(policy_id=arm.policy_id, arm=arm.policy_id, probability=share / MILLION)
            for arm, share in zip(live, shares, strict=True)
        ),
    )
    point = bucket(route.salt, unit)
    millionth = int(point * MILLION)
    taken, reason = candidates[0], "control"
    for arm, candidate in zip(live, candidates[1:], strict=True):
        if any(start <= millionth < end for start, end in arm.spans):
            taken, reason = candidate, arm.mode
    if route.mode == "rolled_back" and taken.arm == CONTROL:
        reason = "rolled_back"
    return Decision(
        decision_id=decision_id,
        route_version=route.version,
        candidates=candidates,
        policy_id=taken.policy_id,
        arm=taken.arm,
        propensity=taken.probability,
        bucket=point,
        unit=route.unit,
        reason=reason,
        rollout_id=route.rollout_id,
        decided_at=decided_at,
    )


def pinned(route: Route, policy_id: str, unit: str, *, decision_id: str, decided_at: datetime) -> Decision:
    """The decision for a request that asks for `policy_id` itself."""
    only = Candidate(policy_id=policy_id, arm=PINNED, probability=1.0)
    return Decision(
        decision_id=decision_id,
        route_version=route.version,
        candidates=(only,),
        policy_id=policy_id,
        arm=PINNED,
        propensity=1.0,
        bucket=bucket(route.salt, unit),
        unit=route.unit,
        reason="the request asks for this policy",
        decided_at=decided_at,
        pinned=True,
    )
