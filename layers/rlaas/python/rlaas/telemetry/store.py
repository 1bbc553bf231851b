"""Events as stored, and the store the rooms read and write them through."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, Protocol

from rlaas.errors import DependencyUnavailable
from rlaas.routing.assign import Decision
from rlaas.skills.skill import Metric
from rlaas.telemetry.events import (
    REPORTED,
    AnyEvent,
    EventType,
    GuardrailActed,
    RequestFailed,
    RewardComputed,
)

MODELS: dict[str, type[AnyEvent]] = {
    **REPORTED,
    "reward": RewardComputed,
    "guardrail": GuardrailActed,
    "failure": RequestFailed,
}
"""The model of each event type."""


ShadowRole = Literal["mirrored", "shadow"]
"""What an output's decision says of it, for readers of the store's stream: `mirrored`, shadows are to answer its
request too; `shadow`, it is a shadow's own."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The trial (a rollout by its id, or `bandit`) that a decision belongs to, its unit (by the point of
    `routing.assign.find_bucket`), and when it was made (our own clock)."""

    name: str
    unit_id: str
    decided_at: datetime

    @classmethod
    def of(cls, decision: Decision) -> "Trial | None":
        """The trial of `decision`; `None` where no trial dealt it, or no chance was in it, or no user saw the
        answer."""
        name = decision.rollout_id or ("bandit" if decision.bandit else None)
        if name is None or decision.cached or decision.pinned or decision.shadow:
            return None
        return cls(name, f"{decision.bucket:.17g}", decision.decided_at)


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event at rest. `payload` is its canonical JSON with every id and time filled in; `payload_sha256` is of what
    the client sent: None for what RLaaS made itself, and in the lake, which does not keep it.

    `pending` says that what the event refers to had not landed when it was last checked.
    """

    event_type: EventType
    event_id: str
    tenant_id: str
    skill: str
    interaction_id: str | None
    output_id: str | None
    thread_id: str | None
    policy_id: str | None
    occurred_at: datetime
    received_at: datetime
    payload_sha256: str | None
    payload: str
    pending: bool = False
    shadow_roles: tuple[ShadowRole, ...] = ()
    trial: Trial | None = None

    def event(self) -> AnyEvent:
        """The event itself. Fields that a later writer added are ignored."""
        return MODELS[self.event_type].model_validate_json(self.payload, extra="ignore")


class EventStore(Protocol):
    """Immutable events by id, and by interaction."""

    def put_new(self, event: StoredEvent) -> StoredEvent | None:
        """Store `event` in one conditional write; `None` when it was new, else what holds its id. Raises:
        DependencyUnavailable."""
        ...

    def read_interaction(self, tenant_id: str, interaction_id: str) -> list[StoredEvent]:
        """The events of an interaction in the order received, strongly consistent; not all of them where there are
        megabytes of feedback."""
        ...

    def read_heads(self, tenant_id: str, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        """As `get_many`, with empty payloads."""
        ...

    def read_outline(self, tenant_id: str, interaction_id: str) -> list[StoredEvent]:
        """As `read_interaction`, with empty payloads; not all of them where there is a megabyte of events or more."""
        ...

    def mark_landed(self, event: StoredEvent) -> None:
        """Mark `event` as no longer pending: what it refers to has landed."""
        ...

    def put_each(self, events: Sequence[StoredEvent]) -> list[StoredEvent | DependencyUnavailable | None]:
        """`put_new` of each, side by side; the results in their order."""
        ...

    def get_many(self, tenant_id: str, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        """The events with these ids, strongly consistent; absent ones are left out."""
        ...

    def iterate_day(
        self, tenant_id: str, skill: str, event_type: EventType, day: date, *, since: datetime | None = None
    ) -> Iterator[StoredEvent]:
        """Rewards or guardrails' actions that were received on `day` (UTC), from `since` on, by time.

        May lag a write by a moment. Raises: ValueError for another type of event, DependencyUnavailable.
        """
        ...

    def iterate_trial(self, tenant_id: str, skill: str, trial: str, *, after: datetime, until: datetime) -> Iterator[StoredEvent]:
        """The trial's outputs and failures whose decisions were made after `after` and not after `until`, by the time
        of the decision; may lag a write by a moment."""
        ...

    def iterate_unit(self, tenant_id: str, skill: str, trial: str, unit_id: str, *, since: datetime | None = None) -> Iterator[StoredEvent]:
        """The outputs and failures of the unit's decisions in the trial (from `since` on), by the time of the decision;
        may lag a write by a moment."""
        ...

    def iterate_pending(self, tenant_id: str, skill: str, *, since: datetime | None = None) -> Iterator[StoredEvent]:
        """The skill's pending events by the time they were received, from `since` on; may lag a write by a moment."""
        ...


class SkillSource(Protocol):
    """Knows a tenant's skills."""

    def has_skill(self, tenant_id: str, skill: str) -> bool:
        """Whether the tenant has the skill."""
        ...

    def get_metrics(self, tenant_id: str, skill: str) -> Mapping[str, Metric]:
        """The skill's registered metrics by name, as of now. Raises: NotFound."""
        ...
