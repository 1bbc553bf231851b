"""A route: which policies answer a skill, in which shares, and the last good state to fall back to.

Each live arm owns spans of the line [0, 1), counted in millionths; the control owns the rest. Spans are carried from
one version of the route to the next, so that no unit changes arm needlessly: an arm whose weight rises takes spans that
others give up, and none that another arm keeps.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from rlaas.clock import Timestamp
from rlaas.ids import PolicyId, SkillName, TenantId
from rlaas.metering.budgets import Cap
from rlaas.routing.bandit_settings import BanditSettings
from rlaas.wire import WireModel

MILLION = 1_000_000
"""Parts that the line [0, 1) is divided into: weights are multiples of one millionth."""

MOST_SHADOWS = 32
"""The most shadow arms of a route: each decision names those that answer its request."""
MOST_ARMS = 100
"""The most arms of a route."""

UnitKind = Literal["thread", "user", "interaction"]
ArmMode = Literal["canary", "ab", "shadow", "bandit"]
_Point = Annotated[int, Field(ge=0, le=MILLION)]
BucketRange = tuple[_Point, _Point]


class Arm(WireModel):
    """A policy beside the control. `weight` in [0, 1] is its share of live traffic, or in mode `shadow` the share of
    requests that are mirrored to it.

    The bandit sets the weights of arms of mode `bandit`. `dropped` says why it stopped one, which then has weight 0
    until somebody gives it a weight again.
    """

    policy_id: PolicyId
    mode: ArmMode
    weight: float = Field(ge=0, le=1)
    spans: tuple[BucketRange, ...] = ()
    dropped: str | None = Field(default=None, max_length=500)
    cap: Cap | None = Field(default=None, description="What the arm may spend in a day before its share goes back to the control.")

    @model_validator(mode="after")
    def _dropped_is_stopped(self) -> Self:
        if self.dropped is not None and (self.mode != "bandit" or self.weight > 0):
            raise ValueError("only an arm of mode 'bandit' and of weight 0 is dropped")
        return self

    @property
    def live(self) -> bool:
        """Whether the arm's answers reach users."""
        return self.mode != "shadow"


class RouteTarget(WireModel):
    """The part of a route that decides who answers, and that a rollback restores."""

    control: PolicyId
    arms: tuple[Arm, ...] = ()

    @field_validator("arms", mode="after")
    @classmethod
    def _own_the_line(cls, arms: tuple[Arm, ...]) -> tuple[Arm, ...]:
        return _allot(arms, _list_spans(arms), control_spans=_find_gaps(sorted(span for arm in arms for span in arm.spans)))

    @model_validator(mode="after")
    def _each_policy_once(self) -> Self:
        policies = [self.control, *(arm.policy_id for arm in self.arms)]
        if len(set(policies)) < len(policies):
            raise ValueError("a policy may be in a route only once: as its control or as one arm")
        return self


class Route(RouteTarget):
    """A version of the routing of one skill."""

    tenant_id: TenantId
    skill: SkillName
    version: int = Field(ge=1)
    unit: UnitKind = "thread"
    salt: str
    rollout_id: str | None = None
    bandit: BanditSettings | None = None
    last_good: RouteTarget | None = None
    mode: Literal["normal", "rolled_back"] = "normal"
    changed_by: str
    reason: str
    changed_at: Timestamp

    @property
    def target(self) -> RouteTarget:
        """The deciding part, to store as a later version's `last_good`."""
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
        bandit: BanditSettings | None = None,
    ) -> Self:
        """The next version. Only as many units change policy as the shares that fall do so in total.

        A policy whose share falls gives up that much and no more, and one whose share rises keeps what it has, be it an
        arm or the control. A dropped arm stays dropped unless it has a weight again. `last_good` is what a rollback
        restores; `None` means that there is nothing to restore (the first route of a skill). Without `bandit` the
        bandit's settings stay as they are.

        Raises: pydantic.ValidationError for a route that is not valid, ValueError when the weights add up to over 1.
        """
        spans = {**_list_spans(self.arms), self.control: tuple(_find_gaps(sorted(span for arm in self.arms for span in arm.spans)))}
        dropped = {arm.policy_id: arm.dropped for arm in self.arms}
        next_arms = [
            arm.model_copy(update={"dropped": dropped.get(arm.policy_id)})
            if arm.mode == "bandit" and arm.weight == 0 and arm.dropped is None
            else arm
            for arm in arms
        ]
        return type(self)(
            tenant_id=self.tenant_id,
            skill=self.skill,
            version=self.version + 1,
            control=control,
            arms=_allot(next_arms, spans, control_spans=spans.get(control, ())),
            unit=self.unit,
            salt=self.salt,
            rollout_id=rollout_id,
            bandit=bandit or self.bandit,
            last_good=last_good,
            changed_by=changed_by,
            reason=reason,
            changed_at=changed_at,
        )


def _list_spans(arms: Iterable[Arm]) -> dict[str, tuple[BucketRange, ...]]:
    return {arm.policy_id: arm.spans for arm in arms}


def _allot(
    arms: Sequence[Arm], spans_before: Mapping[str, Sequence[BucketRange]], *, control_spans: Sequence[BucketRange]
) -> tuple[Arm, ...]:
    """Give each live arm spans that add up to its weight. It keeps its policy's spans as far as its weight goes, and
    takes what is missing first from spans that others gave up, and last from the control's. Large spans are kept and
    taken first, so that spans stay few."""
    if sum(_target_length(arm) for arm in arms) > MILLION:
        raise ValueError("the weights of live arms must add up to at most 1")
    own_spans = [_trim(spans_before.get(arm.policy_id, ()), _target_length(arm)) for arm in arms]
    occupied = sorted(span for spans in own_spans for span in spans)
    if any(end <= start for start, end in occupied) or any(a[1] > b[0] for a, b in pairwise(occupied)):
        raise ValueError("the spans of arms must be non-empty and must not overlap")
    free = _find_gaps(occupied)
    given_up = _subtract_spans(free, control_spans)
    controls = _subtract_spans(free, given_up)
    result = []
    for arm, spans in zip(arms, own_spans, strict=True):
        missing = _target_length(arm) - _sum_lengths(spans)
        extra = _trim(given_up, missing)
        extra += _trim(controls, missing - _sum_lengths(extra))
        given_up, controls = _subtract_spans(given_up, extra), _subtract_spans(controls, extra)
        result.append(arm.model_copy(update={"spans": _merge(sorted([*spans, *extra]))}))
    return tuple(result)


def _target_length(arm: Arm) -> int:
    return round(arm.weight * MILLION) if arm.live else 0


def _sum_lengths(spans: Iterable[BucketRange]) -> int:
    return sum(end - start for start, end in spans)


def _trim(spans: Iterable[BucketRange], length: int) -> list[BucketRange]:
    """`length` millionths of `spans`: the largest spans, and the beginning of the last one."""
    result: list[BucketRange] = []
    for start, end in sorted(spans, key=lambda span: (span[0] - span[1], span[0])):
        if length <= 0:
            break
        result.append((start, min(end, start + length)))
        length -= end - start
    return result


def _find_gaps(spans: Sequence[BucketRange]) -> list[BucketRange]:
    """The parts of the line that sorted, disjoint `spans` leave free."""
    edges = [0, *(edge for span in spans for edge in span), MILLION]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if end > start]


def _subtract_spans(spans: Iterable[BucketRange], removed: Iterable[BucketRange]) -> list[BucketRange]:
    """`spans` without the parts in `removed`, sorted; the spans of each must be disjoint."""
    cuts = sorted(removed)
    result: list[BucketRange] = []
    for start, end in sorted(spans):
        for cut_start, cut_end in cuts:
            if cut_end > start and cut_start < end:
                if cut_start > start:
                    result.append((start, cut_start))
                start = cut_end
        if start < end:
            result.append((start, end))
    return result


def _merge(spans: Sequence[BucketRange]) -> tuple[BucketRange, ...]:
    result: list[BucketRange] = []
    for start, end in spans:
        if result and result[-1][1] == start:
            result[-1] = (result[-1][0], end)
        else:
            result.append((start, end))
    return tuple(result)
