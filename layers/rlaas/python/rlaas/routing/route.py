"""A route: which policies answer a skill, in which shares, and the last good state to fall back to.

Each live arm owns spans of the line [0, 1), counted in millionths; the control owns the rest. Spans are carried from one version of
the route to the next, so raising an arm takes only what it needs from the control and no other unit changes arm.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from rlaas.clock import Timestamp
from rlaas.ids import PolicyId, SkillName, TenantId
from rlaas.wire import WireModel

MILLION = 1_000_000
"""Units the line [0, 1) is divided into: weights are multiples of one millionth."""

Unit = Literal["thread", "user", "interaction"]
ArmMode = Literal["canary", "ab", "shadow"]
_Point = Annotated[int, Field(ge=0, le=MILLION)]
Span = tuple[_Point, _Point]


class Arm(WireModel):
    """A policy beside the control. `weight` is its share of live traffic, or of the mirrored requests for mode `shadow`."""

    policy_id: PolicyId
    mode: ArmMode
    weight: float = Field(ge=0, le=1)
    spans: tuple[Span, ...] = ()

    @property
    def live(self) -> bool:
        """Whether the arm's answers reach users."""
        return self.mode != "shadow"


class RouteTarget(WireModel):
    """The part of a route that decides: what a rollback restores."""

    control: PolicyId
    arms: tuple[Arm, ...] = ()

    @field_validator("arms", mode="after")
    @classmethod
    def _own_the_line(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        return _allot(arms)

    @model_validator(mode="after")
    def _each_policy_once(self) -> Self:
        policies = [self.control, *(arm.policy_id for arm in self.arms)]
        if len(set(policies)) < len(policies):
            raise ValueError("a policy stands in a route once: as its control or as one arm")
        return self


class Route(RouteTarget):
    """A version of the routing of one skill. Make the next one with `succeed`, the way back is `Routes.rollback`."""

    tenant_id: TenantId
    skill: SkillName
    version: int = Field(ge=1)
    unit: Unit = "thread"
    salt: str
    rollout_id: str | None = None
    last_good: RouteTarget | None = None
    mode: Literal["normal", "rolled_back"] = "normal"
    changed_by: str
    reason: str
    changed_at: Timestamp

    @property
    def target(self) -> RouteTarget:
        """The deciding part, to keep as a later version's `last_good`."""
        return RouteTarget(control=self.control, arms=self.arms)

    def succeed(
        self,
        *,
        control: str,
        arms: Sequence[Arm] = (),
        last_good: RouteTarget | None,
        rollout_id: str | None,
        changed_by: str,
        reason: str,
        changed_at: datetime,
    ) -> Self:
        """The next version. Arms that stay keep their spans, so only the units a changed weight needs move.

        `last_good` is where a rollback leads; `None` says there is no way back (the first route of a skill).
        """
        held = {arm.policy_id: arm.spans for arm in self.arms}
        return type(self)(
            tenant_id=self.tenant_id,
            skill=self.skill,
            version=self.version + 1,
            control=control,
            arms=tuple(arm.model_copy(update={"spans": held.get(arm.policy_id, ())}) for arm in arms),
            unit=self.unit,
            salt=self.salt,
            rollout_id=rollout_id,
            last_good=last_good,
            changed_by=changed_by,
            reason=reason,
            changed_at=changed_at,
        )


def _allot(arms: Sequence[Arm]) -> tuple[Arm, ...]:
    """Give each live arm spans that add up to its weight: keep what it holds, then trim from the end or take the first free ones."""
    if sum(_wanted(arm) for arm in arms) > MILLION:
        raise ValueError("the weights of live arms must add up to at most 1")
    kept = [_trim(arm.spans, _wanted(arm)) for arm in arms]
    taken = sorted(span for spans in kept for span in spans)
    if any(end <= start for start, end in taken) or any(a[1] > b[0] for a, b in pairwise(taken)):
        raise ValueError("the spans of arms must be non-empty and must not overlap")
    free = _gaps(taken)
    allotted = []
    for arm, spans in zip(arms, kept, strict=True):
        more = _trim(free, _wanted(arm) - _length(spans))
        free = _gaps(sorted([*_gaps(free), *more]))
        allotted.append(arm.model_copy(update={"spans": _merge(sorted([*spans, *more]))}))
    return tuple(allotted)


def _wanted(arm: Arm) -> int:
    return round(arm.weight * MILLION) if arm.live else 0


def _length(spans: Iterable[Span]) -> int:
    return sum(end - start for start, end in spans)


def _trim(spans: Iterable[Span], length: int) -> list[Span]:
    """The first `length` millionths of `spans`, in their order."""
    kept: list[Span] = []
    for start, end in spans:
        if length <= 0:
            break
        kept.append((start, min(end, start + length)))
        length -= end - start
    return kept


def _gaps(spans: Sequence[Span]) -> list[Span]:
    """What sorted, disjoint `spans` leave of the line."""
    edges = [0, *(edge for span in spans for edge in span), MILLION]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]


def _merge(spans: Sequence[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    for start, end in spans:
        if merged and merged[-1][1] == start:
            merged[-1] = (merged[-1][0], end)
        else:
            merged.append((start, end))
    return tuple(merged)
