"""A skill's events that wait for others to land, its rewards, and the report on them."""

from collections.abc import Iterator
from datetime import date, datetime
from itertools import islice

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, JsonValue

from rlaas.api.admin.answers import ListPage, answer, answer_page
from rlaas.api.admin.call import AdminCall, FirstDay, LastDay, PageLimit, check_days
from rlaas.api.admin.operations import operation
from rlaas.clock import Timestamp, rfc3339
from rlaas.errors import InvalidInput
from rlaas.evaluation.reward_report import RewardReport, report_rewards
from rlaas.skills.put_skill import find_skill
from rlaas.telemetry.events import EventType, RewardComputed
from rlaas.telemetry.pending import find_orphan_time, iterate_pending
from rlaas.telemetry.store import StoredEvent
from rlaas.tenancy.registry import decode_cursor, encode_cursor
from rlaas.wire import WireModel

router = APIRouter(prefix="/v1/admin/skills/{skill}")


class PendingEvent(WireModel):
    """Feedback or a task result whose interaction or output has not landed; `orphaned` once its attribution window
    has ended."""

    event_type: EventType
    event_id: str
    interaction_id: str | None
    output_id: str | None
    received_at: Timestamp
    orphaned_at: Timestamp
    orphaned: bool


class PendingPage(ListPage[PendingEvent]):
    """Some of the events that wait, the oldest first."""


def _make_nulls_optional(schema: dict[str, JsonValue]) -> None:
    schema["required"] = [name for name, field in RewardComputed.model_fields.items() if field.default is not None]


class Reward(RewardComputed):
    """A reward as it was computed. Fields without a value are left out."""

    model_config = ConfigDict(json_schema_extra=_make_nulls_optional)


class RewardPage(ListPage[Reward]):
    """Some of a day's rewards, the oldest first."""


@router.get("/pending", **operation(ok=PendingPage))
def list_pending(call: AdminCall, skill: str, limit: PageLimit = 100, cursor: str | None = None) -> JSONResponse:
    """Feedback and task results whose interaction or output has not landed, oldest first; `orphaned` after their
    attribution window."""
    here = call.services
    metrics = find_skill(here.records, call.tenant_id, skill).metrics
    since, last_id = _read_position(cursor)
    pending = iterate_pending(here.events, call.tenant_id, skill, since=since)
    events, more = _take_events(pending, since, last_id, limit)
    return answer_page((_build_pending(event, find_orphan_time(event, metrics), here.clock()) for event in events), more)


@router.get("/rewards", **operation(ok=RewardPage))
def list_rewards(call: AdminCall, skill: str, date: date, limit: PageLimit = 100, cursor: str | None = None) -> JSONResponse:
    """Every reward computed on a day (UTC), oldest first; of an output's rewards the one with the highest `n`
    counts."""
    find_skill(call.services.records, call.tenant_id, skill)
    since, last_id = _read_position(cursor)
    rewards = call.services.events.iterate_day(call.tenant_id, skill, "reward", date, since=since)
    events, more = _take_events(rewards, since, last_id, limit)
    return answer_page((event.event().model_dump(mode="json", exclude_none=True) for event in events), more)


@router.get("/rewards/report", **operation(ok=RewardReport))
def report_of_rewards(call: AdminCall, skill: str, first: FirstDay, last: LastDay) -> JSONResponse:
    """The mean reward of each policy over the days (UTC) `from` to `to`, both included. Each unit counts once, and no
    person counts for more than a bounded share."""
    find_skill(call.services.records, call.tenant_id, skill)
    check_days(first, last)
    unit = call.services.records.get_route(call.tenant_id, skill).unit
    return answer(200, report_rewards(call.services.events, call.tenant_id, skill, first=first, last=last, unit=unit))


def _take_events(events: Iterator[StoredEvent], since: datetime | None, last_id: str, limit: int) -> tuple[list[StoredEvent], str | None]:
    """The next `limit` of `events`, which come by time, after the cursor's; and the cursor that continues."""
    after = (event for event in events if since is None or (event.received_at, event.event_id) > (since, last_id))
    page = list(islice(after, limit))
    return page, encode_cursor(f"{rfc3339(page[-1].received_at)} {page[-1].event_id}") if len(page) == limit else None


def _build_pending(event: StoredEvent, window_end: datetime, now: datetime) -> dict[str, JsonValue]:
    return {
        "event_type": event.event_type,
        "event_id": event.event_id,
        "interaction_id": event.interaction_id,
        "output_id": event.output_id,
        "received_at": rfc3339(event.received_at),
        "orphaned_at": rfc3339(window_end),
        "orphaned": now >= window_end,
    }


def _read_position(cursor: str | None) -> tuple[datetime | None, str]:
    """The time and the id of the event that a page ended with."""
    if cursor is None:
        return None, ""
    position = decode_cursor(cursor, pattern=r"20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d\.\d{6}Z [A-Za-z0-9_-]+")
    moment, _, event_id = position.partition(" ")
    try:
        return datetime.fromisoformat(moment), event_id
    except ValueError:
        raise InvalidInput("the cursor is not one this list gave out", param="cursor") from None
