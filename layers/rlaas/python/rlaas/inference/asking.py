"""Models asked on behalf of one request: what that has come to, and whatever a backend does or says instead of answering.

Backends are servers that tenants name. What they answer may be of any shape, so that everything that their adapters raise is the failure of
a backend here, and every answer is looked at before anybody works with it. And what was sent to them may be charged for, so that a call
counts as the most that it can come to from the moment it is made, until it is known what it cost or that nothing was done: no exception,
foreseen or not, makes it free.
"""

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace

from rlaas.chat import BackendFailed, ChatCall, Completion, Delta
from rlaas.errors import InvalidInput
from rlaas.inference.collect import Collected
from rlaas.inference.spending import Spending, is_believable
from rlaas.metering.budgets import NOTHING, Amount
from rlaas.policies.backend import Backend, BackendSpec
from rlaas.policies.bundle import Policy

_MOST_TOOL_CALLS = 128
_LONGEST_NAME = 256
_LONGEST_REASON = 128
"""As events have room for."""


@dataclass(slots=True)
class _Call:
    """A call of a model, and what it cost once that is known."""

    policy: Policy
    model: str
    call: ChatCall
    begun: bool = False
    """Whether a piece of the answer is there."""
    cost: Amount | None = None


@dataclass(slots=True)
class Asking:
    """The calls of one request. Both ways to ask raise BackendFailed and InvalidInput as `Backend` says, and nothing else."""

    backend: Backend
    spending: Spending
    _calls: list[_Call] = field(default_factory=list)

    def spent(self) -> Amount:
        """What all calls so far have come to: the request once, and the tokens of each of them."""
        costs = [call.cost or self.spending.most(call.policy, call.model, call.call) for call in self._calls]
        spending = [cost for cost in costs if cost is not NOTHING]
        return Amount(
            tokens=sum(cost.tokens for cost in spending), nano_usd=sum(cost.nano_usd for cost in spending), requests=int(bool(spending))
        )

    def leaves(self, policy: Policy, backend: BackendSpec, call: ChatCall) -> None:
        """The asker makes the call himself: nobody will tell what it cost."""
        self._calls.append(_Call(policy, backend.model, call))

    def complete(self, policy: Policy, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        """The whole answer of `backend`, one of `policy`'s, within `timeout_s` seconds."""
        with self._called(policy, backend, call) as called:
            completion = self.backend.complete(backend, call, timeout_s=timeout_s)
            _check(completion, call)
        return self._told(called, completion)

    def stream(
        self, policy: Policy, backend: BackendSpec, call: ChatCall, *, timeout_s: float, within_s: float
    ) -> Generator[Delta, None, None]:
        """The same piece by piece: `timeout_s` seconds for each, `within_s` for all. One that is left or breaks off counts in full unless
        its usage was told."""
        collected = Collected()
        with self._called(policy, backend, replace(call, ends_at=time.monotonic() + within_s)) as called:
            deltas = self.backend.stream(backend, called.call, timeout_s=timeout_s)
            with closing(_closable(deltas)) as pieces:
                for delta in pieces:
                    called.begun = True
                    _check_piece(delta, call)
                    if delta.usage is not None and not is_believable(delta.usage, call):
                        delta = replace(delta, usage=None)
                    collected.add(delta)
                    if delta.usage is not None:
                        called.cost = self._cost(called, collected.completion())
                    yield delta
        if called.cost is None:
            called.cost = self._cost(called, collected.completion())

    @contextmanager
    def _called(self, policy: Policy, backend: BackendSpec, call: ChatCall) -> Iterator[_Call]:
        called = _Call(policy, backend.model, call)
        self._calls.append(called)
        try:
            yield called
        except BackendFailed as error:
            if error.nothing_done and not called.begun:
                called.cost = NOTHING
            raise
        except InvalidInput as error:  # what the backend does not take or refuses: nobody has worked on it
            if called.begun:
                raise BackendFailed("the backend failed in mid-answer") from error
            called.cost = NOTHING
            raise
        except Exception as error:
            raise BackendFailed(f"the backend's answer cannot be read: {type(error).__name__}") from error

    def _told(self, called: _Call, completion: Completion) -> Completion:
        """The completion with its cost noted; counts that cannot be are left out, and the call counts in full."""
        if completion.usage is not None and not is_believable(completion.usage, called.call):
            return replace(completion, usage=None)
        called.cost = self._cost(called, completion)
        return completion

    def _cost(self, called: _Call, completion: Completion) -> Amount:
        return self.spending.spent(called.policy, called.model, called.call, completion).amount


def _closable(deltas: Iterator[Delta]) -> Generator[Delta, None, None]:
    """`deltas`, which end with this."""
    try:
        yield from deltas
    finally:
        close = getattr(deltas, "close", None)
        if close is not None:
            close()


def _check(completion: Completion, call: ChatCall) -> None:
    """Raises: BackendFailed where the answer has choices that nobody asked for, or what has no room in an output."""
    if not 1 <= len(completion.choices) <= _choices(call):
        raise BackendFailed("the backend answered with another number of choices than it was asked for")
    for choice in completion.choices:
        if len(choice.tool_calls) > _MOST_TOOL_CALLS or len(choice.finish_reason or "") > _LONGEST_REASON:
            raise BackendFailed("the backend's answer has more than there is room for")


def _check_piece(delta: Delta, call: ChatCall) -> None:
    """The same for a piece, so that the pieces make an answer."""
    if not 0 <= delta.index < _choices(call):
        raise BackendFailed("the backend's stream has a choice that was not asked for")
    named = (text for piece in delta.tool_calls for text in (piece.id or "", piece.name or ""))
    if not all(0 <= piece.index < _MOST_TOOL_CALLS for piece in delta.tool_calls) or max(map(len, named), default=0) > _LONGEST_NAME:
        raise BackendFailed("the backend's stream has a tool call beyond all bounds")
    if len(delta.finish_reason or "") > _LONGEST_REASON:
        raise BackendFailed("the backend's answer has more than there is room for")


def _choices(call: ChatCall) -> int:
    asked = call.parameters.get("n")
    return asked if isinstance(asked, int) else 1
