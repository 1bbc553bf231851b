"""Rewards follow events: what lands in an interaction settles what waited for it, and brings the rewards of its outputs
up to date.

What an event costs does not depend on how many came before it: an output's reward takes some five reads and one or two
writes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from rlaas.clock import Clock
from rlaas.errors import DependencyUnavailable
from rlaas.rewards.reward import compute_reward, make_reward_id
from rlaas.rewards.standing import Arrivals, EventArrival, Latest, Standing, StandingKind, StandingStore, find_latest
from rlaas.skills.skill import RewardSpec
from rlaas.telemetry.events import RewardComputed
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.pending import join_waiting
from rlaas.telemetry.store import StoredEvent

_ATTEMPTS = 5


class RewardSpecs(Protocol):
    """Knows how each skill is rewarded."""

    def get_reward_spec(self, tenant_id: str, skill: str) -> RewardSpec:
        """The skill's reward spec. Raises: NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Follows up what arrives: joins and rewards. `spec_of` tells how a tenant's skill is rewarded.

    Two processes may work on one interaction at once, on the same events and in any order. An output's first reward is
    one conditional write; from then on standings change by conditional writes, so each reward has an `n` of its own,
    and the higher one includes what the other one does. A process that dies on the way leaves the rest to the next
    delivery.
    """

    store: StandingStore
    spec_of: Callable[[str, str], RewardSpec]
    clock: Clock

    def __call__(self, arrivals: Arrivals, events: Mapping[str, StoredEvent] | None = None) -> list[RewardComputed]:
        """The new rewards that `arrivals` lead to, stored: one for each output, however much feedback it got.

        Feedback without an output id is about the interaction's last output. Shadows' outputs have no reward: nobody
        saw them. `events`, by id, need not be read again. Raises: DependencyUnavailable, NotFound.
        """
        tenant_id, interaction_id = arrivals.tenant_id, arrivals.interaction_id
        by_output: dict[str, dict[StandingKind, EventArrival]] = {name: {} for name in arrivals.landed if name != interaction_id}
        by_output |= {name: {**one} for name, one in arrivals.said.items()}
        unnamed: dict[StandingKind, EventArrival] = by_output.pop("", {})
        has_unnamed = bool(unnamed)
        if arrivals.pending:
            unnamed["waiting"] = max(arrivals.pending.values())
        interaction_latest: Latest = self._note(arrivals, unnamed) if unnamed or arrivals.landed else {}
        if arrivals.pending or "waiting" in interaction_latest:
            join_waiting(tenant_id, interaction_id, landed_ids=arrivals.landed, pending_ids=tuple(arrivals.pending), store=self.store)
        about_last: Latest = {kind: one for kind, one in interaction_latest.items() if kind != "waiting"}
        if about_last and (has_unnamed or by_output):
            seen_ids = [event.event_id for event in self.store.read_outline(tenant_id, interaction_id) if _was_seen(event, interaction_id)]
            for last in seen_ids[-1:]:
                by_output[last] = {**Standing(latest=by_output.get(last, {})).after(about_last).latest}
        rewards = (_Output(self, arrivals, output_id, dict(events or {})).update(latest) for output_id, latest in by_output.items())
        return [reward for reward in rewards if reward is not None]

    def _note(self, arrivals: Arrivals, latest: Latest) -> Latest:
        """The latest feedback in the interaction that names no output, with `latest` added."""
        for _ in range(_ATTEMPTS):
            before = self.store.read_standing(arrivals.tenant_id, arrivals.interaction_id, "")
            standing = before.after(latest)
            if standing is before or self._put(arrivals, "", standing, before=before.n):
                return standing.latest
        raise _build_contention_error()

    def _put(self, arrivals: Arrivals, output_id: str, standing: Standing, *, before: int) -> bool:
        return self.store.put_standing(arrivals.tenant_id, arrivals.interaction_id, output_id, standing, before=before)


@dataclass(slots=True)
class _Output:
    """An output whose reward is brought up to date, and the events that were read for that."""

    follow_up: FollowUp
    arrivals: Arrivals
    output_id: str
    events: dict[str, StoredEvent] = field(default_factory=dict)
    highest_n: int = 0
    """The highest `n` of a reward that another process has made."""

    def update(self, latest: Latest) -> RewardComputed | None:
        """The output's reward with `latest`, if it is new.

        Until more feedback comes, the first reward itself says what the standing is. Before the output has landed, and
        from the second reward on, the standing is written before the reward.
        """
        store = self.follow_up.store
        for _ in range(_ATTEMPTS):
            before = store.read_standing(self.arrivals.tenant_id, self.arrivals.interaction_id, self.output_id)
            current = before if before.n else self._read_first_standing()
            standing = current.after(latest)
            if not standing.latest:
                return None
            if standing.n <= self.highest_n:
                standing = Standing(latest=standing.latest, n=self.highest_n + 1)
            is_first = before.n == 0 and standing.n == 1
            if not (standing.n == before.n or (is_first and self._find_output() is not None)):
                if not self.follow_up._put(self.arrivals, self.output_id, standing, before=before.n):
                    continue
                if self._find_output() is None:
                    return None
            reward = self._build_reward(standing)
            if reward is None:
                return None
            now = self.follow_up.clock()
            # Lists are ordered by this time, and a reader that follows one must not miss a late reward.
            reward = reward.model_copy(update={"occurred_at": now})
            other = store.put_new(prepare(reward, self.arrivals.tenant_id, received_at=now))
            if other is None:
                return reward
            earlier = other.event()
            if not isinstance(earlier, RewardComputed) or earlier.event_ids == reward.event_ids:
                return None
            latest, self.highest_n = current.after(latest).after(self._read_latest(earlier)).latest, earlier.n
        raise _build_contention_error()

    def _read_first_standing(self) -> Standing:
        if self.output_id in self.arrivals.landed and not self.highest_n:
            return Standing()  # most likely it has none yet; where it has, the write says so
        first = self._read([make_reward_id(self.output_id, 1)])
        reward = first[0].event() if first else None
        return Standing(latest={**self._read_latest(reward)}, n=1) if isinstance(reward, RewardComputed) else Standing()

    def _read_latest(self, reward: RewardComputed) -> Latest:
        return find_latest(self._read(reward.event_ids))

    def _find_output(self) -> StoredEvent | None:
        events = self._read([self.output_id])
        return events[0] if events and _was_seen(events[0], self.arrivals.interaction_id) else None

    def _build_reward(self, standing: Standing) -> RewardComputed | None:
        output = self._find_output()
        if output is None:
            return None
        feedback = self._read([one.event_id for one in standing.latest.values()])
        return compute_reward(output, feedback, self.follow_up.spec_of(self.arrivals.tenant_id, output.skill), n=standing.n)

    def _read(self, event_ids: "list[str] | tuple[str, ...]") -> list[StoredEvent]:
        missing = [event_id for event_id in event_ids if event_id not in self.events]
        if missing:
            self.events |= self.follow_up.store.get_many(self.arrivals.tenant_id, missing)
        return [self.events[event_id] for event_id in event_ids if event_id in self.events]


def _was_seen(event: StoredEvent, interaction_id: str) -> bool:
    return event.event_type == "output" and event.interaction_id == interaction_id and "shadow" not in event.shadow_roles


def _build_contention_error() -> DependencyUnavailable:
    return DependencyUnavailable("the feedback on an output changes too often at the moment")
