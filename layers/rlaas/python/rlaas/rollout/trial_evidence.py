"""The evidence of a rollout's trial, for people and their pages."""

from typing import Self

from rlaas.clock import Timestamp
from rlaas.experiments.sequential import ArmSums
from rlaas.ids import PolicyId
from rlaas.rollout.steps import Rollout
from rlaas.rollout.trial import LookPoint, TrialState
from rlaas.wire import WireModel


class ArmEvidence(WireModel):
    """The evidence on one arm. Counts are units; `missing` is the share in [0, 1] of settled units for which something
    never came, `answered_mean` the mean reward of those that the arm itself answered."""

    policy_id: PolicyId
    served: int
    settled: int
    mean: float | None
    missing: float | None
    answered_mean: float | None
    harmed: dict[str, int]


class TrialEvidence(WireModel):
    """The evidence of a trial, for people: both arms, harm by kind, and the evidence over time beside the `threshold`
    that it is compared with.

    `people` is the number of people behind recently settled units (at most 128 are told apart); `left_out` is the
    number of units beyond a person's share.
    """

    rollout_id: str
    threshold: float
    harm: float
    harm_reason: str
    watched_until: Timestamp
    settled_until: Timestamp
    candidate: ArmEvidence
    control: ArmEvidence
    people: int = 0
    left_out: int = 0
    points: tuple[LookPoint, ...]

    @classmethod
    def of(cls, rollout: Rollout, state: TrialState) -> Self:
        """The evidence that `state` holds."""
        harm = state.evidence_of_harm()

        def arm(policy_id: str, sums: ArmSums, served: int, harmed: dict[str, int]) -> ArmEvidence:
            return ArmEvidence(
                policy_id=policy_id,
                served=served,
                settled=sums.n,
                mean=sums.mean,
                missing=sums.missing_share,
                answered_mean=sums.answered_mean,
                harmed=harmed,
            )

        by_kind = sorted(state.harmed.items())
        return cls(
            rollout_id=rollout.rollout_id,
            threshold=1 / rollout.settings.alpha,
            harm=harm.value,
            harm_reason=harm.reason,
            watched_until=state.watched_until,
            settled_until=state.settled_until,
            candidate=arm(
                rollout.candidate, state.test.candidate, state.served.candidate, {kind: counts.candidate for kind, counts in by_kind}
            ),
            control=arm(rollout.control, state.test.control, state.served.control, {kind: counts.control for kind, counts in by_kind}),
            people=len(state.counted.ever.counts),
            left_out=state.counted.left_out,
            points=state.points,
        )
