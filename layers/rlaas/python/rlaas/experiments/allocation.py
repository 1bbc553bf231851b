"""Allocation: settle a bandit's decisions since the last look and set the route's shares by them. It runs on a
schedule, off the request path.

A decision is counted once, when its attribution window has passed (`settlement`): all arms' decisions are equally old
when they count, and those still in their window count for no arm. The statistics lag one window behind, which costs
regret but adds no bias.

The guards do not wait: whether a request failed, was slow, unsafe or expensive is known when its output is stored. They
drop an arm on evidence (`harm`), never because a rate happened to be over its bound at one look.

A unit counts at most once a day, by its first decision, and no person's units are more than one person's share of an
arm (`rlaas.voices`), so that nobody moves shares or drops an arm by asking again and again.

Each of the two passes, for guards and for rewards, reads the bandit's decisions in the order of `decided_at`, from its
own watermark on. Watermarks and statistics are one item, which is written only if no other run has written it: a run
that dies is repeated from where the last one ended, and nothing counts twice.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, Self

from pydantic import Field

from rlaas.clock import Timestamp
from rlaas.experiments.bandit import Allotment, ArmState, ArmStatistics, allocate
from rlaas.experiments.harm import HarmKind, HarmLedger, log_wealth, profit_over_bound, weigh_evidence
from rlaas.experiments.settlement import (
    Deal,
    Harms,
    find_harms,
    find_person,
    list_decisions,
    select_first_requests,
    select_firsts,
    settle_deal,
)
from rlaas.ids import PolicyId, SkillName, TenantId
from rlaas.rewards.follow_up import RewardSpecs
from rlaas.routing.bandit_settings import BanditSettings
from rlaas.routing.route import MILLION, Arm, Route
from rlaas.routing.route_store import Routes
from rlaas.skills.skill import RewardSpec
from rlaas.telemetry.store import EventStore
from rlaas.voices import Voices
from rlaas.wire import WireModel

ACTOR = "bandit"
"""Who changes a route for its bandit, and the name of the trial that its decisions belong to."""
MOST_DECISIONS = 20_000
"""Decisions that one pass of one run reads; the next run goes on from there."""
_WORTH_A_MOVE = 0.005
"""Shares stay when they would move less of the traffic than this, so that units do not change arm for noise."""
_SLOW = 0.05
"""When more than this share of units is slower than the bound, the 95th percentile is over the bound."""
_DEAREST = 10.0
"""A request's cost counts up to this many times the bound, so that one outlier is no evidence."""


@dataclass(slots=True)
class HarmRecord:
    """What the guards have counted of an arm: units served, units harmed by kind (for `dear` the total cost in US
    dollars), and the evidence."""

    ledger: HarmLedger
    served: int = 0
    harmed: dict[str, float] = field(default_factory=dict)
    voices: Voices = field(default_factory=Voices)


class BanditStatistics(WireModel):
    """The statistics of a skill's bandit, by policy; the control's policy is one of them.

    The guards have counted decisions up to `guarded_until`, the rewards those up to `settled_until`; `voices` say whose
    units the rewarded ones are. `dropped` are the arms that were dropped at the last look.
    """

    tenant_id: TenantId
    skill: SkillName
    arms: dict[PolicyId, ArmStatistics] = Field(default_factory=dict)
    harms: dict[PolicyId, HarmRecord] = Field(default_factory=dict)
    voices: dict[PolicyId, Voices] = Field(default_factory=dict)
    dropped: tuple[PolicyId, ...] = ()
    guarded_until: Timestamp
    settled_until: Timestamp
    version: int = Field(default=0, ge=0)

    def of(self, policy_id: str) -> ArmStatistics:
        """A policy's statistics; empty ones for a policy that is not listed."""
        return self.arms.get(policy_id, ArmStatistics())

    def discount(self, days: float, settings: BanditSettings) -> Self:
        """The statistics with every arm's rewards discounted by `days`."""
        return self.model_copy(update={"arms": {policy: statistics.discount(days, settings) for policy, statistics in self.arms.items()}})


class BanditStore(Protocol):
    """The statistics of each skill's bandit."""

    def load(self, tenant_id: str, skill: str) -> BanditStatistics | None:
        """The statistics, strongly consistent; `None` before the first look."""
        ...

    def save(self, statistics: BanditStatistics) -> None:
        """Store version `statistics.version`, which follows the one stored. Raises: Conflict when it does not."""
        ...


@dataclass(frozen=True, slots=True)
class Allocation:
    """What a look did: the new route, or why there is none; and how many requests it saw and how many decisions it
    settled."""

    route: Route | None
    reason: str
    seen: int = 0
    settled: int = 0


def allocate_route(
    tenant_id: str,
    skill: str,
    *,
    routes: Routes,
    specs: RewardSpecs,
    events: EventStore,
    statistics: BanditStore,
    now: datetime,
    most: int = MOST_DECISIONS,
) -> Allocation:
    """Bring the statistics of the skill's bandit up to `now` and set the route's shares by them, in one conditional
    write. Each pass reads at most `most` decisions.

    Does nothing while a rollout owns the route, or once the route was rolled back, until an operator changes it.
    Raises: NotFound without a route, Conflict when another run or writer was faster (the next run catches up),
    DependencyUnavailable.
    """
    route = routes.get_route(tenant_id, skill)
    settings = route.bandit
    if settings is None or not any(arm.mode == "bandit" for arm in route.arms):
        return Allocation(None, "the route has no bandit")
    if route.rollout_id is not None:
        return Allocation(None, f"the route belongs to {route.rollout_id}")
    if route.mode == "rolled_back":
        return Allocation(None, "the route was rolled back")
    stored = statistics.load(tenant_id, skill)
    before = stored or BanditStatistics(tenant_id=tenant_id, skill=skill, guarded_until=route.changed_at, settled_until=route.changed_at)
    look = _Look(events=events, spec=specs.get_reward_spec(tenant_id, skill), settings=settings, now=now, most=most)
    after, seen = look.add_harms(_readmit_arms(before, route))
    after, settled = look.add_rewards(after)
    successor, shares = _build_next_route(route, after, settings, now)
    after = after.model_copy(update={"dropped": tuple(policy for policy, share in shares.items() if share.dropped)})
    if after != before:
        statistics.save(after.model_copy(update={"version": before.version + 1}))
    if successor is None:
        return Allocation(None, "the shares stay", seen, settled)
    routes.write_route(successor, expected_version=route.version)
    return Allocation(successor, successor.reason, seen, settled)


@dataclass(frozen=True, slots=True)
class _Look:
    events: EventStore
    spec: RewardSpec
    settings: BanditSettings
    now: datetime
    most: int

    def add_harms(self, statistics: BanditStatistics) -> tuple[BanditStatistics, int]:
        """The statistics with the harm of the requests served since the last look, and the number of these requests."""
        lag = timedelta(seconds=self.settings.lag_seconds)
        deals, until = self._list_decisions(statistics, statistics.guarded_until, self.now - lag, lag)
        harms = statistics.model_copy(deep=True).harms
        if list_bounds(self.settings):
            for request in select_first_requests(self.events, deals, lag=lag):
                at = request.deal.decision.decided_at
                record = harms.setdefault(request.deal.policy_id, HarmRecord(HarmLedger(first=at.toordinal())))
                if record.voices.hear(find_person(request.deal, request.history, lag=lag), at):
                    count_harms(record, find_harms(request.deal, request.history), self.settings, at=at, new=request.new)
                record.voices.forget(at)
        return statistics.model_copy(update={"harms": harms, "guarded_until": until}), len(deals)

    def add_rewards(self, statistics: BanditStatistics) -> tuple[BanditStatistics, int]:
        """The statistics with the decisions settled since the last look, and the number of these decisions. Earlier
        rewards lose weight by the time between the two looks."""
        window = timedelta(hours=self.settings.window_hours)
        lag = timedelta(seconds=self.settings.lag_seconds)
        deals, until = self._list_decisions(statistics, statistics.settled_until, self.now - window - lag, window + lag)
        base = statistics.discount((until - statistics.settled_until) / timedelta(days=1), self.settings)
        arms, voices = dict(base.arms), statistics.model_copy(deep=True).voices
        for deal, history in select_firsts(self.events, deals, lag=window + lag, of_day=True):
            at, arm_voices = deal.decision.decided_at, voices.setdefault(deal.policy_id, Voices())
            if arm_voices.hear(find_person(deal, history, lag=window + lag), at):
                settlement = settle_deal(deal, history, self.spec, until=at + window)
                arms[deal.policy_id] = arms.get(deal.policy_id, ArmStatistics()).add_reward(settlement.reward, self.settings)
            arm_voices.forget(at)
        return base.model_copy(update={"arms": arms, "voices": voices, "settled_until": until}), len(deals)

    def _list_decisions(
        self, statistics: BanditStatistics, after: datetime, until: datetime, lag: timedelta
    ) -> tuple[list[Deal], datetime]:
        return list_decisions(self.events, statistics.tenant_id, statistics.skill, ACTOR, after=after, until=until, lag=lag, most=self.most)


def list_bounds(settings: BanditSettings) -> dict[HarmKind, float]:
    """The bound of each kind of harm that the settings guard against: a share of units, or US dollars a request."""
    bounds: dict[HarmKind, float] = {}
    if settings.error_rate is not None:
        bounds["failed"] = settings.error_rate.above
    if settings.safety_rate is not None:
        bounds["unsafe"] = settings.safety_rate.above
    if settings.latency is not None:
        bounds["slow"] = _SLOW
    if settings.cost is not None:
        bounds["dear"] = settings.cost.usd
    return bounds


def count_harms(record: HarmRecord, harms: Harms, settings: BanditSettings, *, at: datetime, new: bool = True) -> None:
    """Count one more unit of an arm, by its first request on the day of `at`; `new`: it is the unit's first request of
    all."""
    record.served += 1
    slow = settings.latency is not None and harms.latency_ms is not None and harms.latency_ms > settings.latency.p95_ms
    values: dict[HarmKind, float | None] = {
        "failed": float(harms.failed),
        "unsafe": float(harms.unsafe),
        "slow": None if harms.latency_ms is None else float(slow),
        "dear": harms.cost_usd,
    }
    for kind, bound in list_bounds(settings).items():
        value = values[kind]
        if value is None:
            continue
        record.harmed[kind] = record.harmed.get(kind, 0.0) + value
        amount = min(value, _DEAREST * bound) if kind == "dear" else value
        logs = log_wealth(profit_over_bound(amount, bound))
        record.ledger.add_daily(kind, at.date(), logs)
        if new:
            record.ledger.add(kind, at.date(), logs)


def explain_breach(record: HarmRecord, settings: BanditSettings) -> str | None:
    """Why the guards drop an arm; `None` when they do not."""
    bounds = list_bounds(settings)
    if not bounds:
        return None
    weights: Mapping[str, float] = {kind: 1 / len(bounds) for kind in bounds}
    evidence = weigh_evidence({kind: record.ledger.compute_evidence(kind) for kind in bounds}, weights)
    if evidence.value < 1 / settings.alpha:
        return None
    rates = ", ".join(f"{kind} {total / record.served:.4g}" for kind, total in record.harmed.items() if total)
    return f"{evidence.reason} >= {1 / settings.alpha:.3g} in {record.served} units ({rates} a unit)"


def _readmit_arms(statistics: BanditStatistics, route: Route) -> BanditStatistics:
    """The statistics without the harm of arms that were dropped and that somebody has since given a weight again."""
    readmitted = {arm.policy_id for arm in route.arms if arm.dropped is None} & set(statistics.dropped)
    return statistics.model_copy(
        update={"harms": {policy: record for policy, record in statistics.harms.items() if policy not in readmitted}}
    )


def _build_next_route(
    route: Route, statistics: BanditStatistics, settings: BanditSettings, now: datetime
) -> tuple[Route | None, dict[str, Allotment]]:
    """The next route, `None` when its shares would hardly differ; and the new shares by policy."""
    playing = [arm for arm in route.arms if arm.mode == "bandit"]
    others = sum(round(arm.weight * MILLION) for arm in route.arms if arm.live and arm.mode != "bandit")
    states = {
        arm.policy_id: ArmState(statistics.of(arm.policy_id), dropped=arm.dropped or _find_breach(statistics, arm, settings))
        for arm in playing
    }
    states[route.control] = ArmState(statistics.of(route.control), keep=True)
    shares = allocate(states, settings, parts=MILLION - others)
    movement = sum(max(0, shares[arm.policy_id].parts - round(arm.weight * MILLION)) for arm in playing)
    movement = max(movement, sum(max(0, round(arm.weight * MILLION) - shares[arm.policy_id].parts) for arm in playing))
    newly_dropped = any(shares[arm.policy_id].dropped and not arm.dropped for arm in playing)
    if movement < _WORTH_A_MOVE * MILLION and not newly_dropped:
        return None, shares
    arms = [_set_share(arm, shares[arm.policy_id]) if arm.mode == "bandit" else arm for arm in route.arms]
    successor = route.succeed(
        control=route.control,
        arms=arms,
        last_good=route.last_good,
        rollout_id=None,
        changed_by=ACTOR,
        reason=_describe_shares(route, statistics, shares),
        changed_at=now,
    )
    return successor, shares


def _find_breach(statistics: BanditStatistics, arm: Arm, settings: BanditSettings) -> str | None:
    record = statistics.harms.get(arm.policy_id)
    return explain_breach(record, settings) if record is not None else None


def _set_share(arm: Arm, share: Allotment) -> Arm:
    return arm.model_copy(update={"weight": share.parts / MILLION, "dropped": share.dropped})


def _describe_shares(route: Route, statistics: BanditStatistics, shares: dict[str, Allotment]) -> str:
    """Each policy's share, its probability to be the best and its mean, in words for the audit."""
    return "; ".join(
        f"{'control ' if policy == route.control else ''}{policy} "
        + (
            f"dropped: {share.dropped}"
            if share.dropped
            else f"{share.parts / MILLION:.2%}"
            + (f", best with probability {share.best:.3f}" if share.best is not None else ", too few settled to judge")
            + (
                f", mean {mean:.4f} of {statistics.of(policy).n:.1f}"
                if (mean := statistics.of(policy).mean) is not None
                else ", no reward yet"
            )
        )
        for policy, share in shares.items()
    )
