"""Budgets: how much a tenant, a skill or a key may spend in a window of time, and what one request asks of each of
them.

What is counted is named by a counter, such as `skill/reply:usd:day`: two budgets of a tenant never share one, and a
budget that gets another name or limit goes on counting where it was. The counting itself is in `rlaas.metering.ledger`.
"""

import math
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from rlaas.ids import PolicyId, SkillName
from rlaas.metering.prices import to_nano_usd
from rlaas.wire import WireModel

BUDGETS = "BUDGETS"
"""The sort key of a tenant's budgets in the registry, and of what it spent of them in the counters."""

Measure = Literal["requests", "tokens", "usd"]
Window = Literal["second", "minute", "hour", "day", "month"]
BudgetScope = Literal["tenant", "skill", "key", "shadow"]
"""Everything a tenant's users ask, what they ask of one skill or with one key; or the mirrored requests, which spend
from these alone."""

_WORDS = (string.ascii_letters + string.whitespace).encode()
_ASCII = bytes(range(128))
_SECONDS: dict[Window, int] = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


class Limit(WireModel):
    """At most `limit` requests, tokens (read and written) or US dollars in each calendar window (UTC)."""

    measure: Measure
    limit: float = Field(ge=0, le=1e12)
    window: Window

    @model_validator(mode="after")
    def _counts_whole_things(self) -> Self:
        if self.measure != "usd" and self.limit != int(self.limit):
            raise ValueError(f"a limit in {self.measure} is a whole number")
        return self

    @property
    def most(self) -> int:
        """The limit in requests, tokens or nano-USD."""
        return _convert_limit(self.measure, self.limit)


class Budget(Limit):
    """A limit of what a tenant's users ask in all, of one skill or with one key, or of the mirrored requests."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=64)]
    scope: BudgetScope = "tenant"
    skill: SkillName | None = None
    key_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-z]{26}$")] | None = None

    @model_validator(mode="after")
    def _names_what_its_scope_needs(self) -> Self:
        names = {name for name in ("skill", "key_id") if getattr(self, name) is not None}
        needed = {"skill": {"skill"}, "key": {"key_id"}}.get(self.scope, set())
        if names != needed:
            raise ValueError(f"a budget of scope {self.scope!r} names {' and '.join(needed) or 'neither skill nor key_id'}")
        return self

    @property
    def counter(self) -> str:
        """What it counts."""
        return name_counter(self.scope, self.skill or self.key_id or "", self.measure, self.window)

    def covers(self, request: "SpendingRequest") -> bool:
        """Whether `request` spends from it."""
        if request.mirrored or self.scope == "shadow":
            return request.mirrored and self.scope == "shadow"
        return self.skill in (None, request.skill) and self.key_id in (None, request.key_id)


class Budgets(WireModel):
    """A tenant's budgets. They are counted in one item, so there are at most 32."""

    budgets: tuple[Budget, ...] = Field(default=(), max_length=32)

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [budget.name for budget in self.budgets]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two budgets are named {twice!r}")
        by_counter: dict[str, str] = {}
        for budget in self.budgets:
            if (other := by_counter.setdefault(budget.counter, budget.name)) != budget.name:
                raise ValueError(f"{other!r} and {budget.name!r} both limit {budget.measure} per {budget.window} of the same requests")
        return self


class Cap(WireModel):
    """How much one arm of a route may spend in a day (UTC) before its share goes back to the control. What is left out
    is not capped."""

    requests: Annotated[int, Field(ge=0)] | None = None
    tokens: Annotated[int, Field(ge=0)] | None = None
    usd: Annotated[float, Field(ge=0, le=1e9)] | None = None

    @model_validator(mode="after")
    def _caps_something(self) -> Self:
        if not self.most:
            raise ValueError("a cap needs requests, tokens or usd")
        return self

    @property
    def most(self) -> dict[Measure, int]:
        """The caps that are set, in requests, tokens or nano-USD."""
        limits: dict[Measure, float | None] = {"requests": self.requests, "tokens": self.tokens, "usd": self.usd}
        return {measure: _convert_limit(measure, limit) for measure, limit in limits.items() if limit is not None}


@dataclass(frozen=True, slots=True)
class Amount:
    """What one request spends: tokens read and written, nano-USD. As an estimate it should be the most that the request
    can come to."""

    tokens: int = 0
    nano_usd: int = 0
    requests: int = 1

    def of(self, measure: Measure) -> int:
        """What is spent of `measure`: requests, tokens or nano-USD."""
        return {"requests": self.requests, "tokens": self.tokens, "usd": self.nano_usd}[measure]


NOTHING = Amount(requests=0)
"""What a request that no backend answered has spent."""


@dataclass(frozen=True, slots=True)
class SpendingRequest:
    """Who asks for what: it decides which budgets are spent from. `capped` is the policy of the chosen arm with its
    cap, when it has one."""

    skill: str
    key_id: str
    mirrored: bool = False
    capped: tuple[PolicyId, Cap] | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """A counter that a request spends from, and the most it may stand at; `most` None only counts."""

    counter: str
    measure: Measure
    window: Window
    start: int
    """The window's first second, since the epoch."""
    name: str
    """What refusals call it."""
    most: int | None


def list_charges(budgets: Budgets, request: SpendingRequest, *, now: datetime, ceilings: Iterable[Limit] = ()) -> tuple[Charge, ...]:
    """What `request` spends from now: each of the platform's `ceilings`, each budget that covers it, and its arm's cap
    (which is only counted: see `spent_arms`)."""
    entries = [
        Charge(
            name_ceiling_counter(limit),
            limit.measure,
            limit.window,
            find_window_start(limit.window, now),
            "the platform's ceiling",
            limit.most,
        )
        for limit in ceilings
    ]
    entries += [
        Charge(
            budget.counter, budget.measure, budget.window, find_window_start(budget.window, now), f"the budget {budget.name!r}", budget.most
        )
        for budget in budgets.budgets
        if budget.covers(request)
    ]
    if request.capped is not None:
        policy_id, cap = request.capped
        start = find_window_start("day", now)
        entries += [Charge(name_counter("arm", policy_id, measure, "day"), measure, "day", start, policy_id, None) for measure in cap.most]
    return tuple(entries)


def name_ceiling_counter(limit: Limit) -> str:
    """What a ceiling counts: everything that is asked for the tenant, mirrored requests too."""
    return name_counter("all", "", limit.measure, limit.window)


def name_counter(scope: BudgetScope | Literal["arm", "all"], target: str, measure: Measure, window: Window) -> str:
    """The name of what is counted: `skill/reply:usd:day`, `tenant:requests:second`."""
    return f"{scope}/{target}:{measure}:{window}" if target else f"{scope}:{measure}:{window}"


def find_window_start(window: Window, now: datetime) -> int:
    """The first second of the window that `now` is in, since the epoch."""
    if window == "month":
        return int(now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())
    return math.floor(now.timestamp()) // _SECONDS[window] * _SECONDS[window]


def find_window_end(window: Window, start: int) -> int:
    """The first second after the window that begins at `start`."""
    if window == "month":
        first = datetime.fromtimestamp(start, UTC)
        return int(first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1).timestamp())
    return start + _SECONDS[window]


def format_amount(measure: Measure, amount: int) -> str:
    """An amount in requests, tokens or nano-USD, for people: `12 requests`, `$0.50`."""
    if measure == "usd":
        return f"${amount / to_nano_usd(1):,.6f}".rstrip("0").rstrip(".")
    return f"{amount:,} {measure}"


def estimate_tokens(texts: Iterable[str]) -> int:
    """About how many tokens a prompt has at most: of three ASCII letters and spaces one, of any other ASCII character
    one, of three other bytes of UTF-8 two, and four for each text.

    Tokenizers differ twofold and more, above all on numbers and outside of English, and this is for the most wasteful
    of them: `tests/unit/metering/test_tokens.py` holds it against five. What it misses is the reservation error, which
    settling mends.
    """
    return sum(map(_estimate_tokens, texts))


def _estimate_tokens(text: str) -> int:
    data = text.encode(errors="replace")
    beyond_words = data.translate(None, _WORDS)
    beyond_ascii = len(beyond_words.translate(None, _ASCII))
    words, marks = len(data) - len(beyond_words), len(beyond_words) - beyond_ascii
    return -(-(words + 3 * marks + 2 * beyond_ascii) // 3) + 4


def list_capped_counters(caps: Mapping[PolicyId, Cap], *, now: datetime) -> list[tuple[PolicyId, str, int, int]]:
    """For each cap of each arm: the policy, its counter, the window's start (seconds since the epoch) and the cap in
    requests, tokens or nano-USD."""
    start = find_window_start("day", now)
    return [
        (policy_id, name_counter("arm", policy_id, measure, "day"), start, most)
        for policy_id, cap in caps.items()
        for measure, most in cap.most.items()
    ]


def _convert_limit(measure: Measure, limit: float) -> int:
    return to_nano_usd(limit) if measure == "usd" else int(limit)
