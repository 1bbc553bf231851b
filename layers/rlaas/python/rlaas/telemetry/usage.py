"""Who used what: requests, tokens and cost of each day (UTC) by skill, policy and key, counted from the stored outputs
and broken answers, each once."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, date
from typing import Literal, Protocol

from rlaas.metering.prices import to_nano_usd
from rlaas.telemetry.events import OutputProduced, RequestFailed
from rlaas.telemetry.store import StoredEvent

Group = Literal["day", "skill", "policy", "key"]
"""What usage is grouped by."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What was used. `cached_tokens`, and `cache_write_tokens`, are some of `input_tokens`."""

    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    cache_write_tokens: int = 0
    cost_nano_usd: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Tally)))


@dataclass(frozen=True, slots=True)
class Account:
    """What a tally is kept for. `policy_id` and `key_id` are empty for an output that names none."""

    tenant_id: str
    day: date
    skill: str
    policy_id: str
    key_id: str


class UsageStore(Protocol):
    """The tallies. Both raise DependencyUnavailable."""

    def count(self, events: Sequence[StoredEvent]) -> None:
        """Add each of `events` that used a model to its account, unless it was counted before.

        Those of one account are added together.
        """
        ...

    def iterate_between(self, tenant_id: str, first: date, last: date) -> Iterable[tuple[Account, Tally]]:
        """The tenant's accounts from day `first` to day `last`, both included, by day."""
        ...


def count_usage(stored: StoredEvent) -> tuple[Account, Tally] | None:
    """The account that an output or a broken answer counts for, by the day it was received, and what it used.

    None where no model was used.
    """
    event = stored.event()
    if not isinstance(event, OutputProduced | RequestFailed) or event.dryrun:
        return None
    usage = event.estimated_usage if isinstance(event, RequestFailed) else event.usage or event.estimated_usage
    if usage is None:
        return None
    account = Account(stored.tenant_id, stored.received_at.astimezone(UTC).date(), stored.skill, stored.policy_id or "", event.key_id or "")
    return account, Tally(
        requests=1,
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        cost_nano_usd=to_nano_usd(event.cost_usd or 0.0),
    )


def group_tallies(accounts: Iterable[tuple[Account, Tally]], by: Sequence[Group]) -> list[tuple[dict[Group, str | None], Tally]]:
    """The tallies added up by `by`, in its order; one sum when it is empty."""
    sums: dict[tuple[str, ...], Tally] = defaultdict(Tally)
    for account, tally in accounts:
        names: dict[Group, str] = {
            "day": account.day.isoformat(),
            "skill": account.skill,
            "policy": account.policy_id,
            "key": account.key_id,
        }
        sums[tuple(names[group] for group in by)] += tally
    return [({group: name or None for group, name in zip(by, names, strict=True)}, sums[names]) for names in sorted(sums)]
