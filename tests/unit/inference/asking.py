"""What the tests of answering share: a gateway on stores in memory, whole answers and streams, what they spent."""

import json
from collections.abc import Iterator
from itertools import count
from typing import Any

from rlaas.chat import (
    ChatCall,
    Completion,
    Delta,
)
from rlaas.inference.circuit_breakers import CircuitBreakers
from rlaas.inference.decide import Asker, InferRequest
from rlaas.inference.gateway import Gateway
from rlaas.inference.infer import AnswerStream, infer, infer_stream
from rlaas.inference.record import Answer
from rlaas.inference.spending import Spending
from rlaas.metering.budgets import Budget, Budgets
from rlaas.metering.prices import Price, PriceTable
from rlaas.policies.backend import Backend, BackendSpec, OpenAIBackend
from rlaas.policies.guardrails.guardrail_list import Guardrails
from rlaas.telemetry.events import GuardrailActed, OutputProduced
from tests.fakes.backend import EchoBackend
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, SKILL, TENANT, clock, furnish_registry, make_policy, make_route

ASKER = Asker(TENANT, "key1")
PRICES = PriceTable(version=3, prices={"v1": Price(input=1.0, output=2.0)})
BLOCK_LIST = {"kind": "block_list", "terms": ["parcel bomb"], "action": "block"}
SCHEMA = {"type": "object", "required": ["a"]}


def gateway(
    *,
    registry: MemoryRegistry | None = None,
    backend: Backend | None = None,
    store: MemoryEventStore | None = None,
    spending: Spending | None = None,
) -> Gateway:
    ticks = count()

    def timer() -> float:
        return float(next(ticks))

    return Gateway(
        routes=registry or furnish_registry(),
        backend=backend or EchoBackend(),
        store=store if store is not None else MemoryEventStore(),
        scrubber=AS_IT_IS,
        spending=spending or Spending(MemoryCounters(), Budgets(), PriceTable()),
        clock=clock,
        whole_s=27.0,
        stream_s=110.0,
        timer=timer,
        pause=lambda _: None,
        breakers=CircuitBreakers(timer),
    )


def ask(
    store: MemoryEventStore,
    *,
    registry: MemoryRegistry | None = None,
    backend: EchoBackend | None = None,
    email: str = "where is my parcel?",
    key: str | None = None,
    spending: Spending | None = None,
    **fields: object,
) -> Answer:
    request = InferRequest.model_validate_json(json.dumps({"skill": SKILL, "inputs": {"email": email}, **fields}))
    return infer(request, ASKER, gateway(registry=registry, backend=backend, store=store, spending=spending), idempotency_key=key)


def openai_model(model: str, **fields: Any) -> OpenAIBackend:
    return OpenAIBackend(model=model, base_url="https://models.example.com/v1", **fields)


def with_fallbacks(*models: str) -> MemoryRegistry:
    """Policy 1 asks the first model, then the others."""
    registry = MemoryRegistry()
    first, *others = map(openai_model, models)
    changed_policy = make_policy(1).model_copy(update={"backend": first, "fallbacks": tuple(others)})
    registry.put_policy(changed_policy, CHANGE)
    registry.put_policy(make_policy(2), CHANGE)
    registry.write_route(make_route(), expected_version=0)
    return registry


def ask_stream(store: MemoryEventStore, *, email: str = "where is it", **options: Any) -> AnswerStream:
    return infer_stream(InferRequest(skill=SKILL, inputs={"email": email}), ASKER, gateway(store=store, **options))


def find_output(store: MemoryEventStore) -> OutputProduced:
    """The one output in the store."""
    [output] = [event for stored in store.events.values() if isinstance(event := stored.event(), OutputProduced)]
    return output


def limit_spending(counters: MemoryCounters, limit: float, measure: str = "requests") -> Spending:
    budget = Budget.model_validate({"name": "all", "measure": measure, "limit": limit, "window": "day"})
    return Spending(counters, Budgets(budgets=(budget,)), PRICES)


class Failing(EchoBackend):
    """Raises `error`, in a stream after `pieces` of it; or answers with `completion` in the place of what it would."""

    def __init__(self, error: BaseException | None = None, *, pieces: int = 0, completion: Completion | None = None) -> None:
        super().__init__()
        self.error, self.pieces, self.completion = error, pieces, completion

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        if self.error is not None:
            raise self.error
        return self.completion or super().complete(backend, call, timeout_s=timeout_s)

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        yield from [Delta(text="Dear ")] * self.pieces
        if self.error is not None:
            raise self.error


def read_spent(counters: MemoryCounters) -> int:
    """What the one budget has spent; nothing is set aside any more."""
    [item] = counters.items.values()
    assert not [name for name in item if name.startswith("open")]
    [spent] = [value for name, value in item.items() if name.startswith("spent")]
    assert isinstance(spent, int)
    return spent


def guard_policy(**config: object) -> MemoryRegistry:
    registry = MemoryRegistry()
    guardrails = Guardrails.model_validate_json(json.dumps(config))
    registry.put_policy(make_policy(1).model_copy(update={"guardrails": guardrails}), CHANGE)
    registry.write_route(make_route(), expected_version=0)
    return registry


def list_actions(store: MemoryEventStore) -> list[tuple[str, str, str]]:
    """Stage, kind and action of what guardrails did, in order."""
    events = [stored.event() for stored in store.events.values()]
    done = sorted((event for event in events if isinstance(event, GuardrailActed)), key=lambda event: event.position)
    return [(event.stage, event.kind, event.action) for event in done]
