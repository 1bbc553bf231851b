"""What a request may spend and has spent: set aside before the model is asked, settled after."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from rlaas.ids import PolicyId, canonical_json
from rlaas.inference.backend import ChatCall, Completion
from rlaas.routing.policy import Policy
from rlaas.routing.route import Route
from rlaas.telemetry.events import Usage
from rlaas.tenancy.budgets import NOTHING, Amount, Budgets, Request, charges, estimated_tokens
from rlaas.tenancy.counters import Counters, Reservation, reserve, settle, spent_arms
from rlaas.tenancy.prices import PriceTable, cost

_UNBOUNDED_TOKENS = 4096
"""What an answer is taken to come to where nothing bounds it."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What an answer cost; `priced` says that there was a price, and `version` which prices it stands in (None: the policy's own)."""

    amount: Amount
    priced: bool
    version: int | None


@dataclass(frozen=True, slots=True)
class Spending:
    """A tenant's budgets and prices. What a process that dies had set aside comes back after `lifetime_s` to twice that, in seconds."""

    counters: Counters
    budgets: Budgets
    prices: PriceTable
    lifetime_s: int = 60

    def spent_arms(self, route: Route, tenant_id: str, *, now: datetime) -> frozenset[PolicyId]:
        """The arms of `route` whose cap is spent; read only where a route has caps. Raises: DependencyUnavailable."""
        caps = {arm.policy_id: arm.cap for arm in route.arms if arm.live and arm.cap is not None}
        return spent_arms(self.counters.read(tenant_id), caps, now=now) if caps else frozenset()

    def begin(self, tenant_id: str, request: Request, policy: Policy, call: ChatCall, *, now: datetime) -> Reservation | None:
        """Set aside the most that the call is thought to come to, by the dearest of the policy's models; None where nothing limits it.

        Raises: QuotaExceeded, DependencyUnavailable.
        """
        due = charges(self.budgets, request, now=now)
        if not due:
            return None
        usage = Usage(input_tokens=_prompt_tokens(call), output_tokens=_most_written(call.parameters))
        models = [backend.model for backend in (policy.backend, *policy.fallbacks)]
        estimate = max((self._spent(policy, model, usage).amount for model in models), key=lambda amount: amount.nano_usd)
        return reserve(
            self.counters,
            tenant_id,
            due,
            estimate,
            reservation_id=secrets.token_urlsafe(6),
            now=now,
            lifetime_s=self.lifetime_s,
        )

    def end(self, reservation: Reservation | None, spent: Amount = NOTHING, *, now: datetime) -> None:
        """Settle what was set aside. Raises: DependencyUnavailable; then it comes back by itself."""
        if reservation is not None:
            settle(self.counters, reservation, spent, now=now)

    def spent(self, policy: Policy, model: str, call: ChatCall, completion: Completion) -> Spent:
        """What `completion` by `model` cost; of one that was cut off, about what it did."""
        usage = completion.usage
        if usage is None:
            written = estimated_tokens(choice.text for choice in completion.choices)
            usage = Usage(input_tokens=_prompt_tokens(call), output_tokens=written)
        return self._spent(policy, model, usage)

    def _spent(self, policy: Policy, model: str, usage: Usage) -> Spent:
        own = policy.price if model == policy.backend.model else None  # its fallbacks are other models
        price = own or self.prices.prices.get(model)
        nano = 0
        if price is not None:
            nano = cost(price, input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cached_tokens=usage.cached_tokens)
        amount = Amount(tokens=usage.input_tokens + usage.output_tokens, nano_usd=nano)
        return Spent(amount, priced=price is not None, version=None if own is not None or price is None else self.prices.version)


def _prompt_tokens(call: ChatCall) -> int:
    """About what the model reads: the messages, the calls of tools in them, the tools and the schema it is shown."""
    called = [tool.function.model_dump_json() for message in call.messages for tool in message.tool_calls]
    shown = [canonical_json(call.parameters[name]) for name in ("tools", "response_format") if name in call.parameters]
    return estimated_tokens([*(message.content for message in call.messages), *called, *shown])


def _most_written(parameters: Mapping[str, JsonValue]) -> int:
    most = parameters.get("max_completion_tokens", parameters.get("max_tokens"))
    choices = parameters.get("n", 1)
    return (most if isinstance(most, int) else _UNBOUNDED_TOKENS) * (choices if isinstance(choices, int) else 1)
