"""Where items lie in DynamoDB: the partition and sort keys of all tables, and the partitions of their indexes.

The rooms that keep records in the registry define the sort keys of these (`skill_key`, `route_key`, `BUDGETS`). Two
prefixes are repeated in the templates, which import no adapter: the authorizer may read only `KEY#`, and the audit's
stream is filtered by `T#`.
"""

import zlib
from datetime import date, datetime
from typing import TYPE_CHECKING

from rlaas.clock import rfc3339
from rlaas.ids import find_interaction_id

if TYPE_CHECKING:
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef

    Key = dict[str, AttributeValueTypeDef]

_TENANT = "T#"
TENANT_PARTITION = _TENANT + "[a-z0-9-]+"
"""A regular expression for the partitions of tenants."""


def item_key(partition: str, sort_key: str) -> "Key":
    """The key of one item."""
    return {"pk": {"S": partition}, "sk": {"S": sort_key}}


def tenant_partition(tenant_id: str) -> str:
    """Where a tenant's items lie in the registry, the audit and the counters."""
    return f"{_TENANT}{tenant_id}"


def find_tenant_id(partition: str) -> str:
    """The tenant whose partition it is; the empty text where it is no tenant's."""
    return partition.removeprefix(_TENANT) if partition.startswith(_TENANT) else ""


# The registry

SEQUENCE_PREFIX = "SEQ#"
"""The prefix of the sort keys of sequences of numbers."""
AUTHORIZER_SORT_KEY = "KEY"
TRIALS_INDEX = "trials"
"""The index that lists routes on trial: only their items have its attribute `gsi_trial`, the kind of the trial."""
BANDITS, ROLLOUTS = "BANDIT", "ROLLOUT"
"""Its two partitions."""


def sequence_key(tenant_id: str, skill: str, what: str) -> "Key":
    """The item with the last number of a skill's sequence."""
    return item_key(tenant_partition(tenant_id), f"{SEQUENCE_PREFIX}{skill}#{what}")


def authorizer_partition(key_id: str) -> str:
    """Where the authorizer's copy of an API key lies, under `AUTHORIZER_SORT_KEY`."""
    return f"KEY#{key_id}"


# The audit

LAST_ENTRY = 10**12 - 1
"""The highest number that an entry can have."""


def entry_sort_key(seq: int) -> str:
    """Entries sort by number, and before the marks."""
    return f"{seq:012d}"


def entry_mark_key(tenant_id: str, registry_event_id: str) -> "Key":
    """The mark that shows that a change of the registry has its entry."""
    return item_key(tenant_partition(tenant_id), f"EVENT#{registry_event_id}")


# The counters: budgets, rates, usage and the states of trials

_MILLISECOND = len("2026-03-01T12:00:00.000")


def page_partition(tenant_id: str, key_id: str) -> str:
    """Where the rates of one publishable key are counted."""
    return f"{tenant_partition(tenant_id)}#PAGE#{key_id}"


def rate_key(partition: str, second: int) -> "Key":
    """The count of one second (of the Unix epoch)."""
    return item_key(partition, f"RATE#{second}")


def usage_mark_partition(tenant_id: str, received_at: datetime) -> str:
    """The partition of the mark that outputs received in one millisecond share."""
    return f"{tenant_partition(tenant_id)}#{rfc3339(received_at)[:_MILLISECOND]}"


def usage_mark_key(mark: str) -> "Key":
    """The mark with the ids of the outputs that were counted."""
    return item_key(mark, "COUNTED")


def usage_sort_key(day: date, skill: str, policy_id: str, key_id: str) -> str:
    """Tallies sort by day."""
    return f"USAGE#{day.isoformat()}#{skill}#{policy_id}#{key_id}"


def parse_usage_sort_key(sort_key: str) -> tuple[date, str, str, str]:
    """The day, skill, policy and API key that a `usage_sort_key` is made of."""
    _, day, skill, policy_id, key_id = sort_key.split("#")
    return date.fromisoformat(day), skill, policy_id, key_id


def usage_range(first: date, last: date) -> tuple[str, str]:
    """The lowest and the highest sort key of the tallies from `first` to `last`."""
    return f"USAGE#{first.isoformat()}#", f"USAGE#{last.isoformat()}#~"


def bandit_sort_key(skill: str) -> str:
    """A bandit's statistics."""
    return f"BANDIT#{skill}"


def trial_sort_key(skill: str, rollout_id: str) -> str:
    """The state of a rollout's trial."""
    return f"TRIAL#{skill}#{rollout_id}"


# Events


def events_partition(tenant_id: str, name: str) -> str:
    """Where the events of the interaction `name` lie, and a link to each event that has a partition of its own."""
    return f"{tenant_partition(tenant_id)}#{name}"


def event_key(tenant_id: str, event_id: str) -> "Key":
    """An event's key: under the interaction that its id names, else under its own id."""
    return item_key(events_partition(tenant_id, find_interaction_id(event_id) or event_id), event_id)


def standing_key(tenant_id: str, interaction_id: str, output_id: str) -> "Key":
    """An output's standing: the latest edit of it and action on it."""
    return item_key(events_partition(tenant_id, interaction_id), f"STANDING#{output_id}")


def day_partition(tenant_id: str, skill: str, event_type: str, day: date) -> str:
    """A day (UTC) of the index `by_day`."""
    return f"{tenant_partition(tenant_id)}#{skill}#{event_type}#{day.isoformat()}"


def pending_partition(tenant_id: str, skill: str) -> str:
    """A skill's pending events in the index `by_day`."""
    return f"{tenant_partition(tenant_id)}#{skill}#pending"


def trial_partition(tenant_id: str, skill: str, trial: str, day: date) -> str:
    """A day's (UTC) decisions in the index `by_trial`."""
    return f"{tenant_partition(tenant_id)}#{skill}#{trial}#{day.isoformat()}"


def unit_partition(tenant_id: str, skill: str, trial: str, unit_id: str) -> str:
    """A unit's decisions in the index `by_unit`."""
    return f"{tenant_partition(tenant_id)}#{skill}#{trial}#unit#{unit_id}"


# Shadows

_SHADOW_SHARDS = 8
"""Partitions of the ledger: a partition takes 1,000 writes a second."""


def shadow_key(tenant_id: str, shadow_id: str) -> "Key":
    """The ledger's entry of a mirrored request."""
    name = f"{tenant_id}#{shadow_id}"
    return item_key(_shadow_partition(zlib.crc32(name.encode()) % _SHADOW_SHARDS), name)


def shadow_partitions() -> list[str]:
    """All partitions of the ledger."""
    return [*map(_shadow_partition, range(_SHADOW_SHARDS))]


def _shadow_partition(shard: int) -> str:
    return f"SHADOW#{shard}"
