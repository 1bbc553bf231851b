"""The events' stream into rewards, and outputs into usage."""

from collections.abc import Mapping
from functools import cache, partial

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.aws.events import DynamoEventStore, stored_event
from rlaas.aws.registry import DynamoRegistry
from rlaas.aws.usage import DynamoUsage
from rlaas.clock import utc_now
from rlaas.errors import DependencyUnavailable
from rlaas.rewards.reading import OneReading
from rlaas.rewards.record import record_reward
from rlaas.runtime.environment import CountersEnvironment, EventsEnvironment, environment
from rlaas.runtime.log import logger
from rlaas.runtime.streams import BatchResponse, StreamRecord, begin_again_at, each, new_image, records_of
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


def follow(record: StreamRecord, *, reading: OneReading) -> None:
    """Join what waited for one new event, and bring the rewards it touches up to date."""
    if record["eventName"] != "INSERT":
        return
    event = stored_event(new_image(record))
    join_waiting(event, store=reading)
    record_reward(event, store=reading, specs=reading, clock=utc_now)


def handler(event: Mapping[str, object], _: LambdaContext) -> BatchResponse:
    """The Lambda entry point. Usage is counted and interactions are read a batch at a time: it costs a fraction of doing so for each."""
    outputs = [record for record in records_of(event) if record["eventName"] == "INSERT" and _type_of(record) == "output"]
    if outputs:
        try:
            usage().count([stored_event(new_image(record)) for record in outputs])
        except DependencyUnavailable as error:
            logger.error("usage not counted", detail=error.detail)
            return begin_again_at(records_of(event)[0])
    return each(event, partial(follow, reading=OneReading(*stores())))


def _type_of(record: StreamRecord) -> object:
    return new_image(record).get("event_type", {}).get("S")
