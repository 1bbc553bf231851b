"""Trials in memory, and a world in which people ask, get answers and act on them."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from rlaas.errors import Conflict
from rlaas.rewards.follow_up import FollowUp
from rlaas.rewards.standing import collect_arrivals
from rlaas.rollout.conduct import Conductor
from rlaas.rollout.request import request_rollout
from rlaas.rollout.steps import Rollout, RolloutSettings, RolloutStep
from rlaas.rollout.trial import TrialState
from rlaas.routing.assign import Decision, assign
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, InteractionCreated, OutputProduced, RequestFailed
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.store import StoredEvent
from tests.fakes.events import MemoryEventStore
from tests.fakes.guards import MemoryGuards
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import NOW, SKILL, TENANT, furnish_registry

OLD, NEW = f"{SKILL}@v1", f"{SKILL}@v2"
SETTINGS = RolloutSettings(
    steps=(RolloutStep(weight=0.2, margin=0.2, min_samples=5), RolloutStep(weight=0.5, min_samples=10)),
    poll_seconds=60,
    window_hours=1 / 60,
    lag_seconds=10,
    max_wait_seconds=36_000,
    units_a_day=86_400.0,
    stratify_by=None,
)
"""Windows of a minute: a unit is settled 70 seconds after its decision."""

Act = Literal["sent", "discarded", "regenerated"]


def dump_evidence(state: TrialState) -> object:
    """The part of the state that is the same however the looks were made: all but their times, and but for what no
    later look needs."""
    when = {"points", "version", "watched_until", "settled_until"}
    return state.model_dump(exclude={**dict.fromkeys(when, True), "watched": {"silent"}, "counted": {"silent"}})


@dataclass
class MemoryTrials:
    states: dict[tuple[str, str, str], TrialState] = field(default_factory=dict)

    def load(self, tenant_id: str, skill: str, rollout_id: str) -> TrialState | None:
        return self.states.get((tenant_id, skill, rollout_id))

    def save(self, state: TrialState) -> None:
        key = (state.tenant_id, state.skill, state.rollout_id)
        existing = self.states.get(key)
        if state.version != (existing.version if existing else 0) + 1:
            raise Conflict("another look was faster")
        self.states[key] = TrialState.model_validate_json(state.model_dump_json())


@dataclass
class World:
    """A skill with two policies and a clock that traffic moves."""

    registry: MemoryRegistry = field(default_factory=furnish_registry)
    events: MemoryEventStore = field(default_factory=MemoryEventStore)
    trials: MemoryTrials = field(default_factory=MemoryTrials)
    guards: MemoryGuards = field(default_factory=MemoryGuards)
    now: datetime = NOW
    count: int = 0

    def clock(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> datetime:
        self.now += timedelta(seconds=seconds)
        return self.now

    def put(self, event: AnyEvent, at: datetime) -> StoredEvent:
        stored = prepare(event, TENANT, received_at=at)
        self.events.put_new(stored)
        return stored

    def decide(self, unit: str) -> Decision:
        route = self.registry.get_route(TENANT, SKILL)
        return assign(route, unit, decision_id=f"dec_{self.count}", decided_at=self.now)

    def ask(self, unit: str | None = None, *, user: str | None = None) -> tuple[str, Decision]:
        """Store a new interaction; its id and the decision for it."""
        self.count += 1
        name = f"i{self.count}"
        self.put(InteractionCreated(interaction_id=name, skill=SKILL, inputs={"email": "?"}, thread_id=unit, user_id=user), self.now)
        return name, self.decide(unit or name)

    def serve(
        self,
        unit: str | None = None,
        *,
        user: str | None = None,
        text: str = "Dear customer",
        took: float = 1.0,
        latency_ms: float | None = None,
        cost_usd: float | None = None,
        decision: Decision | None = None,
    ) -> OutputProduced:
        """Store a request and its answer `took` seconds later; the output."""
        name, own_decision = self.ask(unit, user=user)
        more = {"thread_id": unit, "user_id": user, "latency_ms": latency_ms, "cost_usd": cost_usd}
        return self.answer(name, decision or own_decision, text=text, took=took, **more)

    def answer(self, name: str, decision: Decision, *, text: str = "Dear customer", took: float = 1.0, **more: object) -> OutputProduced:
        """Store the answer to an interaction, `took` seconds from now."""
        about = {"interaction_id": name, "skill": SKILL, "text": text, "policy_id": decision.policy_id, "decision": decision}
        output = OutputProduced.model_validate({"output_id": f"o{self.count}", **about, **more})
        self.put(output, self.now + timedelta(seconds=took))
        return output

    def fail(self, unit: str | None = None) -> Decision:
        """Store a request that nobody answered; its decision."""
        name, decision = self.ask(unit)
        self.store_failure(name, decision)
        return decision

    def store_failure(self, name: str, decision: Decision) -> None:
        """Store that nobody answered an interaction."""
        failure = RequestFailed(failure_id=f"fail{self.count}", interaction_id=name, skill=SKILL, decision=decision, reason="nobody")
        self.put(failure, self.now + timedelta(seconds=1))

    def act(self, output: OutputProduced, action: Act, *, after: float = 2.0, claimed: datetime | None = None) -> None:
        """Store somebody's action on a draft, `after` seconds from now, and its reward."""
        at = self.now + timedelta(seconds=after)
        feedback = FeedbackSubmitted(
            feedback_id=f"f{len(self.events.events)}",
            interaction_id=output.interaction_id,
            output_id=output.output_id,
            skill=SKILL,
            kind="action",
            action=action,
            occurred_at=claimed or at,
        )
        stored = self.put(feedback, at)
        FollowUp(self.events, self.registry.get_reward_spec, lambda: at + timedelta(milliseconds=300))(collect_arrivals([stored]))

    def request(self, rollout_id: str = "rol_1", settings: RolloutSettings = SETTINGS, candidate: str = NEW, **more: bool) -> Rollout:
        return request_rollout(
            self.registry,
            self.events,
            tenant_id=TENANT,
            skill=SKILL,
            rollout_id=rollout_id,
            candidate=candidate,
            settings=settings,
            actor="key:1",
            reason="try it",
            now=self.now,
            **more,
        )

    def make_conductor(self, rollout_id: str = "rol_1") -> Conductor:
        return Conductor(self.registry, self.events, self.trials, self.guards, self.clock, TENANT, SKILL, rollout_id)

    def make_history(self, units: int = 60) -> None:
        """The control's week: every other draft was sent."""
        for number in range(units):
            self.advance(10)
            self.act(self.serve(), "sent" if number % 2 else "discarded")
        self.advance(10)

    def begin_rollout(self, settings: RolloutSettings = SETTINGS) -> Conductor:
        """Start a rollout after the control's week; its conductor, in the first step."""
        self.make_history()
        self.request(settings=settings)
        conductor = self.make_conductor()
        conductor.begin()
        assert conductor.set_weight(0) == "running"
        return conductor
