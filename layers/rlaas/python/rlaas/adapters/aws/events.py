"""The hot store of events on DynamoDB: an item for each event, addressed by its id."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, cast

from botocore.exceptions import ClientError
from pydantic import JsonValue

from rlaas.adapters.aws.clients import CONNECTIONS, client, condition_failed, dependency, read_failed_item
from rlaas.adapters.aws.dynamodb_items import AttributeValue, from_item, to_item
from rlaas.adapters.aws.item_keys import (
    day_partition,
    event_key,
    events_partition,
    item_key,
    pending_partition,
    standing_key,
    trial_partition,
    unit_partition,
)
from rlaas.adapters.aws.pages import read_items
from rlaas.clock import Clock, rfc3339, utc_now
from rlaas.errors import DependencyUnavailable
from rlaas.rewards.standing import Standing
from rlaas.telemetry.events import EventType
from rlaas.telemetry.store import ShadowRole, StoredEvent, Trial

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, KeysAndAttributesTypeDef, QueryInputTypeDef, UpdateItemInputTypeDef

_LISTED_BY_DAY = ("reward", "guardrail")
_SHADOW_ROLES: tuple[ShadowRole, ...] = ("mirrored", "shadow")
_LINK, _STANDING = "link", "standing"
_BATCH_ATTEMPTS = 5
_READ_TOGETHER = 100
"""Keys that one BatchGetItem takes."""
_PAGES = 4
"""Pages of 1 MB that are read of one interaction."""
_LINKED_CHARACTERS, _LINKED_TOGETHER = 4_000_000, 20
"""Characters of linked events that are read of one interaction, and linked events that are read in one call."""
_NO_PAYLOAD = (
    *("pk", "sk", "event_type", "event_id", "tenant_id", "skill", "interaction_id", "output_id", "thread_id", "policy_id"),
    *("occurred_at", "received_at", "payload_sha256", "pending", "expires_at", *_SHADOW_ROLES),
)
_NAMES = {f"#{name}": name for name in _NO_PAYLOAD}
_PROJECTION = ", ".join(_NAMES)


class DynamoEventStore:
    """`EventStore` on one table.

    An event lies under its interaction when its id names the interaction (see `make_bound_id`), so that one write
    stores it and one query finds all events of an interaction. Any other event lies under its own id, which keeps that
    id unique too, and a link under its interaction leads to it. Events expire after `ttl_days`; DynamoDB deletes them
    late, so reads leave expired ones out.
    """

    def __init__(self, table: str, *, ttl_days: int = 365, dynamodb: "DynamoDBClient | None" = None, clock: Clock = utc_now) -> None:
        self._table = table
        self._lifetime = timedelta(days=ttl_days)
        self._dynamodb = dynamodb or client("dynamodb")
        self._clock = clock

    def put_new(self, event: StoredEvent) -> StoredEvent | None:
        """Store `event` by one conditional PutItem, after its link if it needs one; `None` when it was new, else the
        event that has its id. Raises: DependencyUnavailable."""
        expires_at = event.received_at + self._lifetime
        if event.interaction_id is not None and event_key(event.tenant_id, event.event_id) != _link_key(event):
            with dependency("DynamoDB"):
                self._dynamodb.put_item(TableName=self._table, Item=_build_link(event, expires_at=expires_at))
        try:
            with dependency("DynamoDB"):
                self._dynamodb.put_item(
                    TableName=self._table,
                    Item=build_item(event, expires_at=expires_at),
                    ConditionExpression="attribute_not_exists(pk)",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
        except ClientError as error:
            return read_stored_event(read_failed_item(error))
        return None

    def put_each(self, events: Sequence[StoredEvent]) -> list[StoredEvent | DependencyUnavailable | None]:
        """`put_new` of each, up to 16 at a time; in place of an event that was not stored, its error."""
        if len(events) <= 1:
            return [self._try_to_put(event) for event in events]
        with ThreadPoolExecutor(min(CONNECTIONS, len(events))) as writers:
            return list(writers.map(self._try_to_put, events))

    def _try_to_put(self, event: StoredEvent) -> StoredEvent | DependencyUnavailable | None:
        try:
            return self.put_new(event)
        except DependencyUnavailable as error:
            return error

    def get_many(self, tenant_id: str, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        """The events with these ids, by id, by consistent BatchGetItems of 100. Raises: DependencyUnavailable."""
        return {event.event_id: event for event in self._read(tenant_id, event_ids)}

    def read_heads(self, tenant_id: str, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        """As `get_many`, without payloads."""
        return {event.event_id: event for event in self._read(tenant_id, event_ids, payloads=False)}

    def _read(self, tenant_id: str, event_ids: Iterable[str], *, payloads: bool = True) -> Iterator[StoredEvent]:
        keys = [event_key(tenant_id, event_id) for event_id in dict.fromkeys(event_ids)]
        for start in range(0, len(keys), _READ_TOGETHER):
            for item in self._get(keys[start : start + _READ_TOGETHER], payloads=payloads):
                if self._is_live(item) and is_event(item):
                    yield read_stored_event(item)

    def _get(self, keys: "list[dict[str, AttributeValueTypeDef]]", *, payloads: bool) -> list[Mapping[str, AttributeValue]]:
        items: list[Mapping[str, AttributeValue]] = []
        for _ in range(_BATCH_ATTEMPTS):
            if not keys:
                return items
            request: KeysAndAttributesTypeDef = {"Keys": keys, "ConsistentRead": True}
            if not payloads:
                request |= {"ProjectionExpression": _PROJECTION, "ExpressionAttributeNames": _NAMES}
            with dependency("DynamoDB"):
                answer = self._dynamodb.batch_get_item(RequestItems={self._table: request})
            items += answer["Responses"].get(self._table, [])
            keys = [to_item(from_item(key)) for key in answer["UnprocessedKeys"].get(self._table, {"Keys": []})["Keys"]]
        raise DependencyUnavailable("DynamoDB left keys unread")

    def read_interaction(self, tenant_id: str, interaction_id: str) -> list[StoredEvent]:
        """The events of an interaction in the order received: up to 4 MB of its own partition, by consistent queries,
        and up to 4 million characters of linked events. Both are read from the last id down, so that feedback
        (`fbk_...`) is left out before rewards and outputs. Raises: DependencyUnavailable."""
        query: QueryInputTypeDef = {**self._build_query(tenant_id, interaction_id), "ScanIndexForward": False}
        items = list(read_items(self._dynamodb, "query", query, most_pages=_PAGES))
        linked_ids = [item["sk"]["S"] for item in items if item["event_type"] == {"S": _LINK}]
        events = {event.event_id: event for event in (read_stored_event(item) for item in items if is_event(item) and self._is_live(item))}
        characters = 0
        while linked_ids and characters < _LINKED_CHARACTERS:
            next_ids, linked_ids = linked_ids[:_LINKED_TOGETHER], linked_ids[_LINKED_TOGETHER:]
            linked_events = self.get_many(tenant_id, next_ids)
            events |= linked_events
            characters += sum(len(event.payload) for event in linked_events.values())
        own_events = (event for event in events.values() if event.interaction_id == interaction_id)
        return sorted(own_events, key=lambda event: (event.received_at, event.event_id))

    def read_outline(self, tenant_id: str, interaction_id: str) -> list[StoredEvent]:
        """As `read_interaction`, without payloads: one consistent query of up to 1 MB, and up to a hundred linked
        events. Raises: DependencyUnavailable."""
        query: QueryInputTypeDef = {
            **self._build_query(tenant_id, interaction_id),
            "ScanIndexForward": False,
            "ProjectionExpression": _PROJECTION,
            "ExpressionAttributeNames": _NAMES,
        }
        items = list(read_items(self._dynamodb, "query", query, most_pages=1))
        linked_ids = [item["sk"]["S"] for item in items if item["event_type"] == {"S": _LINK}]
        events = [read_stored_event(item) for item in items if is_event(item) and self._is_live(item)]
        events += self.read_heads(tenant_id, linked_ids[:_READ_TOGETHER]).values()
        own_events = (event for event in events if event.interaction_id == interaction_id)
        return sorted(own_events, key=lambda event: (event.received_at, event.event_id))

    def _build_query(self, tenant_id: str, interaction_id: str) -> "QueryInputTypeDef":
        return {
            "TableName": self._table,
            "ConsistentRead": True,
            "KeyConditionExpression": "pk = :partition",
            "ExpressionAttributeValues": to_item({":partition": events_partition(tenant_id, interaction_id)}),
        }

    def read_standing(self, tenant_id: str, interaction_id: str, output_id: str) -> Standing:
        """The output's standing, by one consistent GetItem; an empty one where there is none. Raises:
        DependencyUnavailable."""
        with dependency("DynamoDB"):
            answer = self._dynamodb.get_item(
                TableName=self._table, Key=standing_key(tenant_id, interaction_id, output_id), ConsistentRead=True
            )
        item = answer.get("Item")
        return Standing.model_validate_json(item["standing"]["S"]) if item and self._is_live(item) else Standing()

    def put_standing(self, tenant_id: str, interaction_id: str, output_id: str, standing: Standing, *, before: int) -> bool:
        """Store the standing by one PutItem if `n` is still `before`; whether it was stored. Raises:
        DependencyUnavailable."""
        values: dict[str, JsonValue] = {
            "event_type": _STANDING,
            "n": standing.n,
            "standing": standing.model_dump_json(),
            "expires_at": int((self._clock() + self._lifetime).timestamp()),
        }
        try:
            with dependency("DynamoDB"):
                self._dynamodb.put_item(
                    TableName=self._table,
                    Item={**standing_key(tenant_id, interaction_id, output_id), **to_item(values)},
                    ConditionExpression="n = :n" if before else "attribute_not_exists(pk) OR expires_at < :now",
                    ExpressionAttributeValues=to_item({":n": before} if before else {":now": int(self._clock().timestamp())}),
                )
        except ClientError as error:
            if not condition_failed(error):
                raise
            return False
        return True

    def iterate_day(
        self, tenant_id: str, skill: str, event_type: EventType, day: date, *, since: datetime | None = None
    ) -> Iterator[StoredEvent]:
        """Rewards or guardrail events of one day (UTC) by time, by the index `by_day`.

        Raises: ValueError for another type of event, DependencyUnavailable.
        """
        if event_type not in _LISTED_BY_DAY:
            raise ValueError(f"{event_type} events are not listed by day, only {' and '.join(_LISTED_BY_DAY)} events")
        return self._list(day_partition(tenant_id, skill, event_type, day), since=since)

    def iterate_trial(self, tenant_id: str, skill: str, trial: str, *, after: datetime, until: datetime) -> Iterator[StoredEvent]:
        """The trial's outputs and failures by the time of their decision, `after` < time <= `until`, by the index
        `by_trial`: a query for each day (UTC). Raises: DependencyUnavailable."""
        day, last = after.astimezone(UTC).date(), until.astimezone(UTC).date()
        while day <= last:
            query: QueryInputTypeDef = {
                "TableName": self._table,
                "IndexName": "by_trial",
                "KeyConditionExpression": "gsi_trial = :partition AND decided_at BETWEEN :after AND :until",
                "ExpressionAttributeValues": to_item(
                    {":partition": trial_partition(tenant_id, skill, trial, day), ":after": rfc3339(after), ":until": rfc3339(until)}
                ),
            }
            events = (read_stored_event(item) for item in read_items(self._dynamodb, "query", query) if self._is_live(item))
            yield from (event for event in events if event.trial is not None and event.trial.decided_at > after)
            day += timedelta(days=1)

    def iterate_unit(self, tenant_id: str, skill: str, trial: str, unit_id: str, *, since: datetime | None = None) -> Iterator[StoredEvent]:
        """The outputs and failures of the unit's decisions in the trial, by the index `by_unit`: five a query, since
        callers need few. Raises: DependencyUnavailable."""
        query: QueryInputTypeDef = {
            "TableName": self._table,
            "IndexName": "by_unit",
            "KeyConditionExpression": "gsi_unit = :partition" + (" AND decided_at >= :since" if since else ""),
            "ExpressionAttributeValues": to_item(
                {":partition": unit_partition(tenant_id, skill, trial, unit_id), ":since": rfc3339(since) if since else None}
            ),
            "Limit": 5,
        }
        return (read_stored_event(item) for item in read_items(self._dynamodb, "query", query) if self._is_live(item))

    def iterate_pending(self, tenant_id: str, skill: str, *, since: datetime | None = None) -> Iterator[StoredEvent]:
        """The skill's pending events by time, by the index `by_day`. Raises: DependencyUnavailable."""
        return self._list(pending_partition(tenant_id, skill), since=since)

    def mark_landed(self, event: StoredEvent) -> None:
        """Take `event` off the list of pending events; its payload stays as it is. An event that is gone is not written
        anew. Raises: DependencyUnavailable."""
        partition = _find_day_partition(event)
        update: UpdateItemInputTypeDef = {
            "TableName": self._table,
            "Key": event_key(event.tenant_id, event.event_id),
            "ConditionExpression": "attribute_exists(pk)",
            "UpdateExpression": "SET gsi_day = :day REMOVE #pending" if partition else "REMOVE gsi_day, #pending",
            "ExpressionAttributeNames": {"#pending": "pending"},
        }
        if partition:
            update["ExpressionAttributeValues"] = to_item({":day": partition})
        with suppress(ClientError), dependency("DynamoDB"):  # only a failed condition gets through as a ClientError
            self._dynamodb.update_item(**update)

    def _list(self, partition: str, *, since: datetime | None) -> Iterator[StoredEvent]:
        query: QueryInputTypeDef = {
            "TableName": self._table,
            "IndexName": "by_day",
            "KeyConditionExpression": "gsi_day = :partition" + (" AND received_at >= :since" if since else ""),
            "ExpressionAttributeValues": to_item({":partition": partition, ":since": rfc3339(since) if since else None}),
        }
        return (read_stored_event(item) for item in read_items(self._dynamodb, "query", query) if self._is_live(item))

    def _is_live(self, item: Mapping[str, AttributeValue]) -> bool:
        return float(cast(str, item["expires_at"]["N"])) > self._clock().timestamp()


def is_event(item: Mapping[str, AttributeValue]) -> bool:
    """Whether an item or a stream image of the table is an event, and no link to one and no output's standing."""
    return item.get("event_type") not in ({"S": _LINK}, {"S": _STANDING})


def read_stored_event(item: Mapping[str, AttributeValue]) -> StoredEvent:
    """The event in an item or a stream image of the table."""
    values = cast(dict[str, str], from_item(item))
    return StoredEvent(
        event_type=cast(EventType, values["event_type"]),
        event_id=values["event_id"],
        tenant_id=values["tenant_id"],
        skill=values["skill"],
        interaction_id=values.get("interaction_id"),
        output_id=values.get("output_id"),
        thread_id=values.get("thread_id"),
        policy_id=values.get("policy_id"),
        occurred_at=datetime.fromisoformat(values["occurred_at"]),
        received_at=datetime.fromisoformat(values["received_at"]),
        payload_sha256=values.get("payload_sha256"),
        payload=values.get("payload", ""),
        pending="pending" in values,
        shadow_roles=tuple(role for role in _SHADOW_ROLES if role in values),
        trial=Trial(values["trial"], values["unit"], datetime.fromisoformat(values["decided_at"])) if "trial" in values else None,
    )


def _link_key(event: StoredEvent) -> "dict[str, AttributeValueTypeDef]":
    return item_key(events_partition(event.tenant_id, str(event.interaction_id)), event.event_id)


def _build_link(event: StoredEvent, *, expires_at: datetime) -> "dict[str, AttributeValueTypeDef]":
    return {
        **_link_key(event),
        **to_item({"event_type": _LINK, "expires_at": int(expires_at.timestamp())}),
    }


def _find_day_partition(event: StoredEvent) -> str | None:
    """The partition of `by_day` that lists `event` when it is not pending; `None` for types that are not listed."""
    if event.event_type not in _LISTED_BY_DAY:
        return None
    return day_partition(event.tenant_id, event.skill, event.event_type, event.received_at.astimezone(UTC).date())


def _build_trial_values(event: StoredEvent, trial: Trial) -> dict[str, JsonValue]:
    return {
        "trial": trial.name,
        "unit": trial.unit_id,
        "decided_at": rfc3339(trial.decided_at),
        "gsi_trial": trial_partition(event.tenant_id, event.skill, trial.name, trial.decided_at.astimezone(UTC).date()),
        "gsi_unit": unit_partition(event.tenant_id, event.skill, trial.name, trial.unit_id),
    }


def build_item(event: StoredEvent, *, expires_at: datetime) -> "dict[str, AttributeValueTypeDef]":
    """The item of `event`, which expires at `expires_at`."""
    partition = pending_partition(event.tenant_id, event.skill) if event.pending else _find_day_partition(event)
    values: dict[str, JsonValue] = {
        "event_type": event.event_type,
        "event_id": event.event_id,
        "tenant_id": event.tenant_id,
        "skill": event.skill,
        "interaction_id": event.interaction_id,
        "output_id": event.output_id,
        "thread_id": event.thread_id,
        "policy_id": event.policy_id,
        "occurred_at": rfc3339(event.occurred_at),
        "received_at": rfc3339(event.received_at),
        "payload_sha256": event.payload_sha256,
        "payload": event.payload,
        "pending": event.pending or None,
        "expires_at": int(expires_at.timestamp()),
        "gsi_day": partition,
        **dict.fromkeys(event.shadow_roles, True),
        **(_build_trial_values(event, event.trial) if event.trial is not None else {}),
    }
    return {**event_key(event.tenant_id, event.event_id), **to_item(values)}
