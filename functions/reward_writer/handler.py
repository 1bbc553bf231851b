"""The events' stream into rewards, and the rewards of a rollout into the metric its alarm watches."""

from collections.abc import Mapping
from functools import cache

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.aws.events import DynamoEventStore, stored_event
from rlaas.aws.registry import DynamoRegistry
from rlaas.clock import utc_now
from rlaas.rewards.record import record_reward
from rlaas.rewards.reward import complete
from rlaas.runtime.environment import EventsEnvironment, environment
from rlaas.runtime.metrics import emit
from rlaas.runtime.streams import BatchResponse, StreamRecord, each, new_image
from rlaas.telemetry.pending import join_waiting


@cache
def stores() -> tuple[DynamoEventStore, DynamoRegistry]:
    """The events and the registry, made on first use."""
    settings = environment(EventsEnvironment)
    return DynamoEventStore(settings.events_table, ttl_days=settings.event_ttl_days), DynamoRegistry(settings.registry_table)


def follow(record: StreamRecord) -> None:
    """Join what waited for one new event, and bring the rewards it touches up to date."""
    if record["eventName"] != "INSERT":
        return
    store, specs = stores()
    event = stored_event(new_image(record))
    join_waiting(event, store=store)
    reward = record_reward(event, store=store, specs=specs, clock=utc_now)
    if reward is None or reward.rollout_id is None or reward.arm is None or reward.fallback or not complete(reward):
        return
    emit(
        {"Reward": (reward.reward, "None")},
        dimensions={"stage": environment(EventsEnvironment).stage, "rollout": reward.rollout_id, "arm": reward.arm},
        at=utc_now(),
        properties={"tenant_id": event.tenant_id, "skill": event.skill, "output_id": reward.output_id},
    )


def handler(event: Mapping[str, object], _: LambdaContext) -> BatchResponse:
    """The Lambda entry point."""
    return each(event, follow)
