"""Before a rollout begins: whether it may, and its plan on the skill's own traffic."""

from datetime import datetime, timedelta

from rlaas.errors import Conflict, InvalidInput, NotFound
from rlaas.rollout.plan import Plan, PlanLimits, StepSpec, Traffic, estimate_traffic, make_plan, plan_steps
from rlaas.rollout.steps import Rollout, RolloutSettings, RolloutStep, list_live_arms
from rlaas.routing.route import Route
from rlaas.routing.route_store import RouteRecords
from rlaas.skills.skill import Skill
from rlaas.telemetry.events import RewardComputed
from rlaas.telemetry.store import EventStore
from rlaas.tenancy.registry import Change, list_all, rollout_key, skill_key

_ENOUGH_HISTORY = 5000
"""The most rewards that are read to plan from."""
_DAY_SECONDS = 86_400
_STARTS_WITHIN = timedelta(minutes=15)


def plan_rollout(
    records: RouteRecords, events: EventStore, *, tenant_id: str, skill: str, settings: RolloutSettings, now: datetime
) -> tuple[RolloutSettings, Plan]:
    """`settings` with their steps planned where they name none, and what the plan is expected to take on the skill's
    own traffic.

    Raises: NotFound without a skill or route.
    """
    records.get(Skill, tenant_id, skill_key(skill))
    route = records.get_route(tenant_id, skill)
    traffic = _read_traffic(events, route, settings, now)
    if settings.units_a_day is not None:
        traffic = traffic.model_copy(update={"units_a_day": settings.units_a_day})
    terms = PlanLimits(
        alpha=settings.alpha,
        at_most_days=settings.max_wait_seconds / _DAY_SECONDS,
        window_days=(settings.window_hours * 3600 + settings.lag_seconds) / _DAY_SECONDS,
        gain=settings.gain,
    )
    if settings.steps is None:
        last_margin = settings.margin if settings.objective == "non_inferiority" else 0.0
        asks = plan_steps(traffic, terms, last_margin=last_margin, min_samples=settings.min_samples)
        steps = tuple(RolloutStep(weight=ask.weight, margin=ask.margin) for ask in asks)
        settings = settings.model_copy(update={"steps": steps})
    gates = [(step.weight, settings.gate(index)) for index, step in enumerate(settings.planned)]
    return settings, make_plan([StepSpec(weight, gate.margin, gate.min_samples) for weight, gate in gates], traffic, terms)


def request_rollout(
    records: RouteRecords,
    events: EventStore,
    *,
    tenant_id: str,
    skill: str,
    rollout_id: str,
    candidate: str,
    settings: RolloutSettings,
    actor: str,
    reason: str,
    now: datetime,
    dryrun: bool = False,
) -> Rollout:
    """Check and record a rollout; a `dryrun` records nothing and returns what the rollout would be. The same request
    again returns the rollout recorded first.

    Raises: NotFound without that policy or route, InvalidInput when the candidate belongs to another skill, is already
    the control or the plan cannot conclude, Conflict when the route has live arms, another rollout of the skill has not
    ended or the id belongs to another rollout.
    """
    key = rollout_key(skill, rollout_id)
    existing = find_rollout(records, tenant_id, key)
    if existing is not None:
        if existing.candidate != candidate or settings not in (existing.requested, existing.settings):
            raise Conflict(f"{rollout_id} is another rollout already")
        return existing
    if records.get_policy(tenant_id, candidate).skill != skill:
        raise InvalidInput(f"{candidate} is not a policy of {skill!r}", param="policy_id")
    route = records.get_route(tenant_id, skill)
    if route.control == candidate:
        raise InvalidInput(f"{candidate} is the control already", param="policy_id")
    if list_live_arms(route):
        raise Conflict(f"the route of {skill!r} has live arms beside its control; end them first")
    running = _find_running(records, tenant_id, skill, now)
    if running is not None:
        raise Conflict(f"the rollout {running} of {skill!r} has not ended")
    planned_settings, expected = plan_rollout(records, events, tenant_id=tenant_id, skill=skill, settings=settings, now=now)
    if not expected.can_conclude and not dryrun:
        raise InvalidInput(f"this plan cannot conclude: {expected.advice}", param="settings")
    rollout = Rollout(
        rollout_id=rollout_id,
        tenant_id=tenant_id,
        skill=skill,
        control=route.control,
        candidate=candidate,
        requested=settings,
        settings=planned_settings,
        plan=expected,
        reward_spec=records.get(Skill, tenant_id, skill_key(skill)).record.reward,
        prior_mean=expected.traffic.reward_mean,
        prior_unsent=min(0.95, max(0.05, expected.traffic.unsent if expected.traffic.unsent is not None else 0.5)),
        reason=reason,
        created_at=now,
    )
    if not dryrun:
        records.put(tenant_id, key, rollout, Change(actor=actor, reason=reason, at=now))
    return rollout


def find_rollout(records: RouteRecords, tenant_id: str, key: str) -> Rollout | None:
    """The rollout under `key`; `None` where there is none."""
    try:
        return records.get(Rollout, tenant_id, key).record
    except NotFound:
        return None


def _read_traffic(events: EventStore, route: Route, settings: RolloutSettings, now: datetime) -> Traffic:
    """The traffic that the control's rewards of the last days show. Whole days are read, the newest first, until
    `_ENOUGH_HISTORY` rewards were read."""
    rewards: list[RewardComputed] = []
    since, read = now, 0
    for ago in range(settings.history_days + 1):
        start = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=ago)
        day_rewards: list[RewardComputed] = []
        for stored in events.iterate_day(route.tenant_id, route.skill, "reward", start.date()):
            event, read = stored.event(), read + 1
            if isinstance(event, RewardComputed) and event.policy_id == route.control and not event.fallback:
                day_rewards.append(event)
            if read >= _ENOUGH_HISTORY:
                if rewards:  # this day was cut short; those after it are enough
                    return estimate_traffic(rewards, unit=route.unit, since=since, until=now)
                return estimate_traffic(day_rewards, unit=route.unit, since=start, until=stored.occurred_at)
        rewards += day_rewards
        since = start
    return estimate_traffic(rewards, unit=route.unit, since=since, until=now)


def _find_running(records: RouteRecords, tenant_id: str, skill: str, now: datetime) -> str | None:
    for rollout in list_all(records, Rollout, tenant_id, rollout_key(skill, "")):
        if rollout.status == "running" or (rollout.status == "starting" and now - rollout.created_at < _STARTS_WITHIN):
            return rollout.rollout_id
    return None
