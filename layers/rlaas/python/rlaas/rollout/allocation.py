"""Allocation: what became of a bandit's decisions since the last look, and the route's shares from it. On a schedule, off the request path.

Delayed rewards. Feedback comes minutes or days after an answer, and not equally soon: a good draft is sent at once, a bad one is discarded
when somebody finds the time. Whoever counts rewards as they come takes the quicker arm for the better one, and an arm that was just given
more traffic for a worse one. Here a decision is counted once, when its attribution window has passed, with the reward that it had by the
end of its window, however late the look at it comes. All arms' decisions so are equally old when they count; those still in their window
count for no arm. What is known lags one window behind, which costs regret and no bias.

The guards do not wait: whether a request failed, was slow, unsafe or dear is known when its output is stored.

Both passes go through the outputs that the bandit dealt by the time they were produced, each from its own watermark on. Watermarks and
statistics are one item, written on the condition that nobody else did: a run that dies is done again from where the last one got to, and
nothing counts twice. An output that an application reports later than `lag_seconds` is not seen by the guards, and one later than the
window has no reward here.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, Self

from pydantic import Field

from rlaas.clock import Timestamp
from rlaas.ids import PolicyId, SkillName, TenantId
from rlaas.rewards.reward import complete
from rlaas.routing.assign import CONTROL, Decision
from rlaas.routing.bandit import ArmState, ArmStatistics, BanditSettings, Served, Share, allocate
from rlaas.routing.registry import Routes
from rlaas.routing.route import MILLION, Arm, Route
from rlaas.telemetry.events import GuardrailActed, OutputProduced, RewardComputed
from rlaas.telemetry.store import EventStore, StoredEvent
from rlaas.wire import WireModel

ACTOR = "bandit"
"""Who changes a route for its bandit."""
MOST_OUTPUTS = 20_000
"""Outputs that one pass of one run goes through; the next run goes on from there."""
_WORTH_A_MOVE = 0.005
"""Shares that would move less of the traffic than this stay: units do not change arm for noise."""
_SAME_REQUEST = timedelta(minutes=15)
"""A guardrail's action lies at most this long before the output it is about."""
_READERS = 16


class BanditStatistics(WireModel):
    """What a skill's bandit knows, by policy; the control's policy is one of them.

    Outputs produced until `guarded_until` are in what the guards count, those until `settled_until` in the rewards. `dropped` are the
    arms that were dropped at the last look.
    """

    tenant_id: TenantId
    skill: SkillName
    arms: dict[PolicyId, ArmStatistics] = Field(default_factory=dict)
    dropped: tuple[PolicyId, ...] = ()
    guarded_until: Timestamp
    settled_until: Timestamp
    version: int = Field(default=0, ge=0)

    def of(self, policy_id: str) -> ArmStatistics:
        """What is known of a policy."""
        return self.arms.get(policy_id, ArmStatistics())

    def aged(self, days: float, settings: BanditSettings) -> Self:
        """As it is worth `days` later."""
        return self.model_copy(update={"arms": {policy: known.aged(days, settings) for policy, known in self.arms.items()}})


class BanditStore(Protocol):
    """The statistics of each skill's bandit."""

    def load(self, tenant_id: str, skill: str) -> BanditStatistics | None:
        """The statistics, strongly consistent; `None` before the first look."""
        ...

    def save(self, statistics: BanditStatistics) -> None:
        """Store version `statistics.version`, which follows the one stored. Raises: Conflict when it does not."""
        ...


@dataclass(frozen=True, slots=True)
class Allocated:
    """What a look did: the new route, or why there is none; and how many outputs it saw and how many decisions it settled."""

    route: Route | None
    reason: str
    seen: int = 0
    settled: int = 0


def allocate_route(
    tenant_id: str, skill: str, *, routes: Routes, events: EventStore, statistics: BanditStore, now: datetime, most: int = MOST_OUTPUTS
) -> Allocated:
    """Bring the statistics of the skill's bandit up to `now` and write the route's shares from them, by one conditional write.

    Nothing while a rollout has the route, or after it was taken back: an operator then sets it going again. Raises: NotFound without a
    route, Conflict when another run or writer was faster (the next run does it), DependencyUnavailable.
    """
    route = routes.get_route(tenant_id, skill)
    settings = route.bandit
    if settings is None or not any(arm.mode == "bandit" for arm in route.arms):
        return Allocated(None, "the route has no bandit")
    if route.rollout_id is not None:
        return Allocated(None, f"the route belongs to {route.rollout_id}")
    if route.mode == "rolled_back":
        return Allocated(None, "the route was rolled back")
    found = statistics.load(tenant_id, skill)
    before = found or BanditStatistics(tenant_id=tenant_id, skill=skill, guarded_until=route.changed_at, settled_until=route.changed_at)
    look = _Look(events=events, settings=settings, now=now, most=most)
    known, seen = look.guards(_pardoned(before, route))
    known, settled = look.rewards(known)
    successor, shares = _dealt(route, known, settings, now)
    known = known.model_copy(update={"dropped": tuple(policy for policy, share in shares.items() if share.dropped)})
    if known != before:
        statistics.save(known.model_copy(update={"version": before.version + 1}))
    if successor is None:
        return Allocated(None, "the shares stay", seen, settled)
    routes.write_route(successor, expected_version=route.version)
    return Allocated(successor, successor.reason, seen, settled)


@dataclass(frozen=True, slots=True)
class _Look:
    events: EventStore
    settings: BanditSettings
    now: datetime
    most: int

    def guards(self, known: BanditStatistics) -> tuple[BanditStatistics, int]:
        """With the requests served since, and how many."""
        until = self.now - timedelta(seconds=self.settings.lag_seconds)
        outputs, until = self._outputs(known, known.guarded_until, until)
        unsafe = self._unsafe(known, until) if outputs and self.settings.safety_rate is not None else set[str]()
        arms = dict(known.arms)
        for stored, produced, decision in outputs:
            policy = _policy_dealt(decision)
            served = Served(
                failed=decision.fallback,
                unsafe=stored.interaction_id in unsafe,
                latency_ms=None if decision.fallback else produced.latency_ms,
                cost_usd=None if decision.fallback else produced.cost_usd,
            )
            arms[policy] = arms.get(policy, ArmStatistics()).served(served, self.settings)
        return known.model_copy(update={"arms": arms, "guarded_until": until}), len(outputs)

    def rewards(self, known: BanditStatistics) -> tuple[BanditStatistics, int]:
        """With the decisions settled since, and how many. What was known before loses weight by the time between the two looks."""
        window = timedelta(hours=self.settings.window_hours)
        outputs, until = self._outputs(known, known.settled_until, self.now - window)
        aged = known.aged((until - known.settled_until) / timedelta(days=1), self.settings)
        arms, settled = dict(aged.arms), 0
        counted = [(stored, decision) for stored, _, decision in outputs if decision.counts]
        with ThreadPoolExecutor(_READERS) as readers:
            rewards = list(readers.map(lambda one: self._reward(one[0], window), counted))
        for (_, decision), reward in zip(counted, rewards, strict=True):
            if reward is None and self.settings.no_reward == "ignore":
                continue
            policy = _policy_dealt(decision)
            arms[policy] = arms.get(policy, ArmStatistics()).rewarded(reward or 0.0, self.settings)
            settled += 1
        return aged.model_copy(update={"arms": arms, "settled_until": until}), settled

    def _outputs(
        self, known: BanditStatistics, after: datetime, until: datetime
    ) -> tuple[list[tuple[StoredEvent, OutputProduced, Decision]], datetime]:
        """The outputs after `after`, by time, and the time until which these are all: `until`, or earlier when there are too many."""
        outputs: list[tuple[StoredEvent, OutputProduced, Decision]] = []
        for stored in self._listed(known, "output", after, until):
            if len(outputs) >= self.most and stored.occurred_at > outputs[-1][0].occurred_at:
                return outputs, outputs[-1][0].occurred_at
            produced = stored.event()
            if isinstance(produced, OutputProduced) and produced.decision is not None and produced.decision.bandit:
                outputs.append((stored, produced, produced.decision))
        return outputs, max(after, until)

    def _listed(self, known: BanditStatistics, event_type: str, after: datetime, until: datetime) -> Iterator[StoredEvent]:
        kind: Callable[..., Iterator[StoredEvent]] = self.events.by_day
        day = after.date()
        while day <= until.date():
            for stored in kind(known.tenant_id, known.skill, event_type, day, since=after):
                if stored.occurred_at > until:
                    return
                if stored.occurred_at > after:
                    yield stored
            day += timedelta(days=1)

    def _unsafe(self, known: BanditStatistics, until: datetime) -> set[str]:
        """The interactions on whose answer a guardrail acted."""
        acted = (stored.event() for stored in self._listed(known, "guardrail", known.guarded_until - _SAME_REQUEST, until))
        return {event.interaction_id for event in acted if isinstance(event, GuardrailActed) and event.stage == "output"}

    def _reward(self, output: StoredEvent, window: timedelta) -> float | None:
        """The fullest complete reward that the output had when its window ended."""
        until = output.occurred_at + window
        around = self.events.by_interaction(output.tenant_id, output.interaction_id or "")
        rewards = [
            reward
            for stored in around
            if stored.event_type == "reward" and stored.output_id == output.event_id and stored.received_at <= until
            if isinstance(reward := stored.event(), RewardComputed) and complete(reward)
        ]
        return max(rewards, key=lambda reward: reward.n).reward if rewards else None


def _policy_dealt(decision: Decision) -> str:
    """The policy of the arm that the unit was dealt; a fallback is its failure."""
    return decision.candidates[0].policy_id if decision.dealt == CONTROL else decision.dealt


def _pardoned(known: BanditStatistics, route: Route) -> BanditStatistics:
    """With the guards' counts of arms at 0 that somebody let back in."""
    back = {arm.policy_id for arm in route.arms if arm.dropped is None} & set(known.dropped)
    return known.model_copy(
        update={"arms": {policy: known.of(policy).pardoned() if policy in back else of for policy, of in known.arms.items()}}
    )


def _dealt(route: Route, known: BanditStatistics, settings: BanditSettings, now: datetime) -> tuple[Route | None, dict[str, Share]]:
    """The next route, unless its shares are what they are or nearly so; and what was dealt, by policy."""
    playing = [arm for arm in route.arms if arm.mode == "bandit"]
    others = sum(round(arm.weight * MILLION) for arm in route.arms if arm.live and arm.mode != "bandit")
    states = {arm.policy_id: ArmState(known.of(arm.policy_id), dropped=arm.dropped) for arm in playing}
    states[route.control] = ArmState(known.of(route.control), keep=True)
    shares = allocate(states, settings, parts=MILLION - others)
    moved = sum(max(0, shares[arm.policy_id].parts - round(arm.weight * MILLION)) for arm in playing)
    moved = max(moved, sum(max(0, round(arm.weight * MILLION) - shares[arm.policy_id].parts) for arm in playing))
    newly_dropped = any(shares[arm.policy_id].dropped and not arm.dropped for arm in playing)
    if moved < _WORTH_A_MOVE * MILLION and not newly_dropped:
        return None, shares
    arms = [_dealt_arm(arm, shares[arm.policy_id]) if arm.mode == "bandit" else arm for arm in route.arms]
    successor = route.succeed(
        control=route.control,
        arms=arms,
        last_good=route.last_good,
        rollout_id=None,
        changed_by=ACTOR,
        reason=_told(route, known, shares),
        changed_at=now,
    )
    return successor, shares


def _dealt_arm(arm: Arm, share: Share) -> Arm:
    return arm.model_copy(update={"weight": share.parts / MILLION, "dropped": share.dropped})


def _told(route: Route, known: BanditStatistics, shares: dict[str, Share]) -> str:
    """The posterior's numbers, for the audit."""
    return "; ".join(
        f"{'control ' if policy == route.control else ''}{policy} "
        + (
            f"dropped: {share.dropped}"
            if share.dropped
            else f"{share.parts / MILLION:.2%}"
            + (f", best with probability {share.best:.3f}" if share.best is not None else ", too few settled to judge")
            + (f", mean {mean:.4f} of {known.of(policy).n:.1f}" if (mean := known.of(policy).mean) is not None else ", no reward yet")
        )
        for policy, share in shares.items()
    )
