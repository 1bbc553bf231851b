"""What calls of models may cost and have cost, and a tenant's budgets that they are spent from."""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import JsonValue

from rlaas.chat import ChatCall, Choice, Completion, Usage
from rlaas.ids import PolicyId, encode_canonical_json
from rlaas.metering.budgets import NOTHING, Amount, Budgets, Limit, SpendingRequest, estimate_tokens, list_charges
from rlaas.metering.counters import Counters, Overloaded
from rlaas.metering.ledger import Reservation, find_spent_arms, reserve, settle
from rlaas.metering.prices import Price, PriceTable, compute_cost, compute_most
from rlaas.metering.shards import ShardChoice
from rlaas.policies.backend import BackendSpec, find_cache_writes
from rlaas.policies.bundle import Policy
from rlaas.routing.route import Route

_TOOLS_PROMPT_TOKENS = 530
"""What Anthropic puts in front of a request's tools, by its documentation, in the most talkative of its models."""
_VENDORS_INPUT_TOKENS = 200_000
_VENDORS_OUTPUT_TOKENS = 32_000
"""What is believed of a vendor beyond the call itself: instructions and search results that it puts before a prompt,
and thoughts that no `max_tokens` bounds."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What an answer cost. `priced` says that there was a price, `version` in which table (None: the policy's own).
    `usage` is what it is priced by: the backend's, or an estimate."""

    amount: Amount
    usage: Usage
    priced: bool
    version: int | None


@dataclass(frozen=True, slots=True)
class PossibleCall:
    """A call that a policy may make: of one of its `backends`, at most `times` times."""

    policy: Policy
    call: ChatCall
    backends: tuple[BackendSpec, ...]
    times: int = 1


@dataclass(frozen=True, slots=True)
class Spending:
    """A tenant's budgets and prices.

    What a process had set aside when it died is given back after `lifetime_s` to twice `lifetime_s` seconds.
    """

    counters: Counters
    budgets: Budgets
    prices: PriceTable
    lifetime_s: int = 60
    ceilings: tuple[Limit, ...] = ()
    """The platform's, beside the tenant's own budgets."""
    shards: ShardChoice = field(default_factory=ShardChoice)

    def spent_arms(self, route: Route, tenant_id: str, *, now: datetime) -> frozenset[PolicyId]:
        """The arms of `route` whose cap is spent; read only where a route has caps. Raises: DependencyUnavailable."""
        caps = {arm.policy_id: arm.cap for arm in route.arms if arm.live and arm.cap is not None}
        return find_spent_arms(self.counters.read(tenant_id), caps, now=now) if caps else frozenset()

    def begin(self, tenant_id: str, request: SpendingRequest, calls: Iterable[PossibleCall], *, now: datetime) -> Reservation | None:
        """Set aside the most that one of `calls` is expected to cost.

        None, and `calls` are not read, where nothing limits the request. Raises: QuotaExceeded, DependencyUnavailable.
        """
        due = list_charges(self.budgets, request, now=now, ceilings=self.ceilings)
        if not due:
            return None
        amounts = [amount for call in calls for amount in self._list_amounts(call)]
        most = Amount(tokens=max(amount.tokens for amount in amounts), nano_usd=max(amount.nano_usd for amount in amounts))

        def reserve_in(shard: int) -> Reservation | None:
            identifier = secrets.token_urlsafe(6)
            return reserve(self.counters, tenant_id, due, most, reservation_id=identifier, now=now, lifetime_s=self.lifetime_s, shard=shard)

        try:
            reservation = reserve_in(self.shards.choose(tenant_id, now=now))
        except Overloaded:
            return reserve_in(self.shards.note_overload(tenant_id, now=now))
        if reservation is not None and reservation.is_busy:
            self.shards.note_overload(tenant_id, now=now)
        return reservation

    def end(self, reservation: Reservation | None, spent: Amount = NOTHING, *, now: datetime) -> None:
        """Settle what was set aside. Raises: DependencyUnavailable; the reservation then expires."""
        if reservation is None:
            return
        try:
            settle(self.counters, reservation, spent, now=now)
        except Overloaded:
            self.shards.note_overload(reservation.tenant_id, now=now)
            raise

    def spent(self, policy: Policy, model: str, call: ChatCall, completion: Completion) -> Spent:
        """What `completion` by `model` cost; an estimate where the backend did not tell the usage to the end."""
        return self._price(policy, model, completion.usage or estimate_usage(call, completion))

    def price(self, policy: Policy, model: str, usage: Usage) -> Amount:
        """What `usage` of `model` costs."""
        return self._price(policy, model, usage).amount

    def most(self, policy: Policy, backend: BackendSpec, call: ChatCall, *, times: int = 1) -> Amount:
        """The most that `times` of `call` to `backend` may come to, as it is set aside for."""
        usage, (price, _) = _estimate_most(call, times=times), self._find_price(policy, backend.model)
        nano = compute_most(price, usage, writes_for=find_cache_writes(backend, call)) if price is not None else 0
        return Amount(tokens=usage.input_tokens + usage.output_tokens, nano_usd=nano)

    def _list_amounts(self, possible: PossibleCall) -> Iterator[Amount]:
        """What the call may come to, by each of its backends."""
        for backend in possible.backends:
            yield self.most(possible.policy, backend, possible.call, times=possible.times)

    def _price(self, policy: Policy, model: str, usage: Usage) -> Spent:
        price, version = self._find_price(policy, model)
        nano = compute_cost(price, usage) if price is not None else 0
        amount = Amount(tokens=usage.input_tokens + usage.output_tokens, nano_usd=nano)
        return Spent(amount, usage, priced=price is not None, version=version)

    def _find_price(self, policy: Policy, model: str) -> tuple[Price | None, int | None]:
        """The price of the model, and in which version of the table it stands; the policy's own is in none."""
        if policy.price is not None and model == policy.backend.model:  # its fallbacks are other models
            return policy.price, None
        price = self.prices.prices.get(model)
        return price, None if price is None else self.prices.version


def is_believable(usage: Usage, call: ChatCall) -> bool:
    """Whether a vendor may have counted so for `call`.

    At most ten times what is set aside for it is believed, beside what a vendor may add on its own, and nothing of a
    cache that was not read.
    """
    most_input = 10 * count_prompt_tokens(call) + _VENDORS_INPUT_TOKENS
    most_output = 10 * _bound_output_tokens(call.parameters) + _VENDORS_OUTPUT_TOKENS
    return usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens <= most_input and usage.output_tokens <= most_output


def estimate_usage(call: ChatCall, completion: Completion) -> Usage:
    """What an answer used of which the backend did not tell the usage to the end: what it told, and for the rest an
    estimate from what was read and written."""
    output_tokens = estimate_tokens(text for choice in completion.choices for text in _list_texts(choice))
    so_far = completion.usage_so_far
    if so_far is None:
        return Usage(input_tokens=count_prompt_tokens(call), output_tokens=output_tokens)
    return so_far.model_copy(update={"output_tokens": max(so_far.output_tokens, output_tokens)})


def _list_texts(choice: Choice) -> Iterator[str]:
    """What the model wrote."""
    yield choice.text
    if choice.refusal:
        yield choice.refusal
    if choice.reasoning_content:
        yield choice.reasoning_content
    for call in choice.tool_calls:
        yield f"{call.function.name}{call.function.arguments}"


def _estimate_most(call: ChatCall, *, times: int) -> Usage:
    return Usage(input_tokens=times * count_prompt_tokens(call), output_tokens=times * _bound_output_tokens(call.parameters))


def count_prompt_tokens(call: ChatCall) -> int:
    """About what the model reads: the messages, the images and calls of tools in them, the tools and the schema it is
    shown."""
    arguments = [tool.function.model_dump_json() for message in call.messages for tool in message.tool_calls]
    schemas = [encode_canonical_json(call.parameters[name]) for name in ("tools", "response_format") if name in call.parameters]
    vendors_own = _TOOLS_PROMPT_TOKENS if "tools" in call.parameters else 0
    thoughts = [message.reasoning_content for message in call.messages if message.reasoning_content]
    parts = sum(part.most_tokens for message in call.messages for part in message.parts)
    names = [message.name for message in call.messages if message.name]
    texts = [*(message.content for message in call.messages), *names, *thoughts, *arguments, *schemas]
    return estimate_tokens(texts) + parts + vendors_own


def _bound_output_tokens(parameters: Mapping[str, JsonValue]) -> int:
    """The most tokens of all choices together.

    Every call says how long an answer may be: its policy does where the request does not.
    """
    bounds = [bound for name in ("max_tokens", "max_completion_tokens") if isinstance(bound := parameters.get(name), int)]
    choices = parameters.get("n")
    return max(bounds) * (choices if isinstance(choices, int) else 1)
