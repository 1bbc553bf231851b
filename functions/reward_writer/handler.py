"""The events' stream into rewards, and outputs into usage."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.aws.events import DynamoEventStore, stored_event
from rlaas.aws.failures import SetAside
from rlaas.aws.registry import DynamoRegistry
from rlaas.aws.usage import COUNTABLE, DynamoUsage
from rlaas.clock import utc_now
from rlaas.errors import DependencyUnavailable
from rlaas.rewards.reading import OneReading
from rlaas.rewards.record import record_reward
from rlaas.runtime.environment import CountersEnvironment, EventsEnvironment, FailuresEnvironment, environment
from rlaas.runtime.log import logger
from rlaas.runtime.streams import BatchResponse, StreamRecord, begin_again_at, each, is_redrive, new_image, records_of
from rlaas.telemetry.pending import join_waiting


@cache
def stores() -> tuple[DynamoEventStore, DynamoRegistry]:
    """The events and the registry, made on first use."""
    settings = environment(EventsEnvironment)
    return DynamoEventStore(settings.events_table, ttl_days=settings.event_ttl_days), DynamoRegistry(settings.registry_table)


@cache
def usage() -> DynamoUsage:
    """The tallies of usage, made on first use."""
    return DynamoUsage(environment(CountersEnvironment).counters_table)


def follow(record: StreamRecord, *, reading: OneReading, count_since: datetime | None) -> None:
    """Join what waited for one new event, bring the rewards it touches up to date, and count an output received since `count_since`."""
    if record["eventName"] != "INSERT":
        return
    event = stored_event(new_image(record))
    join_waiting(event, store=reading)
    record_reward(event, store=reading, specs=reading, clock=utc_now)
    if event.event_type == "output" and count_since is not None and event.received_at >= count_since:
        usage().count([event])


def handler(event: Mapping[str, object], context: LambdaContext) -> BatchResponse:
    """The Lambda entry point. Usage is counted and interactions are read a batch at a time: it costs a fraction of doing so for each."""
    count_since = utc_now() - COUNTABLE if is_redrive(event) else None
    try:
        if count_since is None and not _count_together(records_of(event)):
            count_since = datetime.min.replace(tzinfo=UTC)
    except DependencyUnavailable as error:
        logger.error("usage not counted", detail=error.detail)
        return begin_again_at(records_of(event)[0])
    keeper = SetAside(environment(FailuresEnvironment).failures_bucket, context.invoked_function_arn)
    return each(event, partial(follow, reading=OneReading(*stores()), count_since=count_since), keeper=keeper)


def _count_together(records: Sequence[StreamRecord]) -> bool:
    """Whether the outputs among `records` were counted: not when one of them cannot be read. Raises: DependencyUnavailable."""
    try:
        outputs = [stored_event(new_image(one)) for one in records if one["eventName"] == "INSERT" and _type_of(one) == "output"]
        if outputs:
            usage().count(outputs)
    except (ValueError, LookupError, TypeError) as error:
        logger.warning("outputs are counted one by one", error=type(error).__name__)
        return False
    return True


def _type_of(record: StreamRecord) -> object:
    return new_image(record).get("event_type", {}).get("S")
