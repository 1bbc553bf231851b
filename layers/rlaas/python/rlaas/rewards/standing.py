"""The standing of an output: the edit and the action that arrived last, whatever came before.

It is kept beside the events, so that following one event up takes a few reads of bounded size however many came before
it.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

from pydantic import Field

from rlaas.telemetry.events import FeedbackSubmitted
from rlaas.telemetry.store import EventStore, StoredEvent
from rlaas.wire import WireModel

StandingKind = Literal["edit", "action", "waiting"]


class EventArrival(NamedTuple):
    """An event, by when it arrived."""

    received_at: datetime
    event_id: str


Latest = Mapping[StandingKind, EventArrival]


class Standing(WireModel):
    """The latest of each kind. `n` counts how often that changed: of two standings of one output the higher one is the
    later.

    Events may come in any order, twice, or after their successors: the standing that results is the same.
    """

    latest: dict[StandingKind, EventArrival] = Field(default_factory=dict)
    n: int = 0

    def after(self, latest: Latest) -> "Standing":
        """The standing with `latest` added; itself when that is nothing new."""
        newer = {kind: one for kind, one in latest.items() if kind not in self.latest or one > self.latest[kind]}
        return Standing(latest={**self.latest, **newer}, n=self.n + 1) if newer else self


class Arrivals(WireModel):
    """What arrived in one interaction, for following it up: no more than its latest, however much it was.

    `said` is by the output that it is about, `""` for feedback that names none. `landed` are the interaction and the
    outputs, `pending` what waited for one of these when it was stored.
    """

    tenant_id: str
    interaction_id: str
    said: dict[str, dict[StandingKind, EventArrival]] = Field(default_factory=dict)
    landed: tuple[str, ...] = ()
    pending: dict[str, EventArrival] = Field(default_factory=dict)


class StandingStore(EventStore, Protocol):
    """Events with the standings beside them."""

    def read_standing(self, tenant_id: str, interaction_id: str, output_id: str) -> Standing:
        """The standing of the output, `""` for feedback that names none; strongly consistent. Raises:
        DependencyUnavailable."""
        ...

    def put_standing(self, tenant_id: str, interaction_id: str, output_id: str, standing: Standing, *, before: int) -> bool:
        """Replace the standing whose `n` is `before`, 0 for none, in one conditional write; whether it still stood.

        Raises: DependencyUnavailable.
        """
        ...


def collect_arrivals(events: Sequence[StoredEvent]) -> Arrivals:
    """What arrived with `events`, one or more of one interaction."""
    standings: dict[str, Standing] = {}
    for event in events:
        about = event.output_id or ""
        standings[about] = standings.get(about, Standing()).after(find_latest([event]))
    return Arrivals(
        tenant_id=events[0].tenant_id,
        interaction_id=events[0].interaction_id or "",
        said={about: standing.latest for about, standing in standings.items() if standing.latest},
        landed=tuple(event.event_id for event in events if event.event_type in ("interaction", "output")),
        pending={event.event_id: EventArrival(event.received_at, event.event_id) for event in events if event.pending},
    )


def find_latest(events: Iterable[StoredEvent]) -> Latest:
    """The latest edit and action among `events`."""
    standing = Standing()
    for event in events:
        feedback = event.event() if event.event_type == "feedback" else None
        if isinstance(feedback, FeedbackSubmitted) and feedback.kind in ("edit", "action"):
            standing = standing.after({feedback.kind: EventArrival(event.received_at, event.event_id)})
    return standing.latest
