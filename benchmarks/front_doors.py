"""What `/v1/responses` and `/v1/messages` cost beside chat completions: CPU of the function `chat` for the same
requests.

Stores are in memory and the model answers at once, so that everything counted is ours: the body in, the decision, what
is stored, the body or the events out. Requests by the three APIs take turns, and of each its least seconds count: what
else the machine does only adds to them.
"""

import contextlib
import io
import json
import time
from types import SimpleNamespace
from typing import Any

from benchmarks.gateway import VARIABLES
from benchmarks.result import report
from functions.chat.handler import chat, messages, responses
from rlaas.inference.spending import Spending
from rlaas.metering.budgets import Budgets
from rlaas.metering.ceilings import TenantLimits
from rlaas.metering.prices import PriceTable
from rlaas.runtime.stage import Stage, replace_stage
from tests.fakes.backend import EchoBackend
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.gateway import make_proxy_event
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.worlds import SKILL, furnish_registry, make_canary_route

TEXT = "where is my parcel? " * 20
TOOLS = 15
CALLS = 20
ROUNDS = {"short": 200, "agent": 30}
AT_ONCE = 5
"""Requests of a round."""


def short(door: str) -> dict[str, Any]:
    """A question of 400 characters."""
    if door == "responses":
        return {"input": TEXT}
    return {"messages": [{"role": "user", "content": TEXT}]}


def agent(door: str) -> dict[str, Any]:
    """A coding agent's request in the middle of its work: a long system prompt, tools, calls with their results."""
    schema = {"type": "object", "properties": {f"field_{number}": {"type": "string", "description": TEXT[:40]} for number in range(6)}}
    tools = [(f"tool_{number}", TEXT, schema) for number in range(TOOLS)]
    turns: list[dict[str, Any]] = [{"role": "user", "content": TEXT}]
    for number in range(CALLS):
        call_id, arguments, result = f"call_{number}", {"field_1": TEXT}, TEXT * 2
        if door == "responses":
            turns.append({"role": "assistant", "content": "Let me look."})
            turns.append({"type": "function_call", "call_id": call_id, "name": "tool_1", "arguments": json.dumps(arguments)})
            turns.append({"type": "function_call_output", "call_id": call_id, "output": result})
        elif door == "chat":
            function = {"name": "tool_1", "arguments": json.dumps(arguments)}
            call = {"id": call_id, "type": "function", "function": function}
            turns.append({"role": "assistant", "content": "Let me look.", "tool_calls": [call]})
            turns.append({"role": "tool", "tool_call_id": call_id, "content": result})
        else:
            use = {"type": "tool_use", "id": call_id, "name": "tool_1", "input": arguments}
            turns.append({"role": "assistant", "content": [{"type": "text", "text": "Let me look."}, use]})
            turns.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": call_id, "content": result}]})
    if door == "responses":
        functions = [
            {"type": "function", "name": name, "description": description, "parameters": schema} for name, description, schema in tools
        ]
        return {"instructions": TEXT * 12, "input": turns, "tools": functions}
    if door == "chat":
        functions = [{"name": name, "description": description, "parameters": schema} for name, description, schema in tools]
        system = {"role": "system", "content": TEXT * 12}
        return {"messages": [system, *turns], "tools": [{"type": "function", "function": function} for function in functions]}
    own = [{"name": name, "description": description, "input_schema": schema} for name, description, schema in tools]
    return {"system": [{"type": "text", "text": TEXT * 12}], "messages": turns, "tools": own}


def cpu_ms(door: str, body: dict[str, Any], stage: Stage) -> float:
    """Milliseconds of CPU of one request, as the mean of a round."""
    vars(stage)["events"] = MemoryEventStore()
    respond = {"chat": chat, "messages": messages, "responses": responses}[door]
    events = [make_proxy_event("/", body) for _ in range(AT_ONCE)]
    started = time.process_time()
    for event in events:
        answer = respond(event)
        for part in [answer] if isinstance(answer, dict) else answer:
            json.dumps(part)
    return (time.process_time() - started) * 1000 / AT_ONCE


def in_memory() -> Stage:
    """A stage whose stores are in memory and whose model answers at once."""
    stage, spending = Stage(VARIABLES), Spending(MemoryCounters(), Budgets(), PriceTable())
    parts = {
        "registry": furnish_registry((make_canary_route(2, 0.5),)),
        "backends": EchoBackend(),
        "scrubbers": SimpleNamespace(of=lambda tenant_id: AS_IT_IS),
        "spendings": SimpleNamespace(of=lambda tenant_id: spending),
        "limits": SimpleNamespace(of=lambda tenant_id: TenantLimits()),
        "rates": SimpleNamespace(take=lambda tenant_id, at_most: None),
    }
    vars(stage).update(parts)
    return stage


def figures() -> dict[str, float]:
    """Milliseconds by each API, and the other two as multiples of the chat's."""
    measured: dict[str, float] = {}
    stage = in_memory()
    with replace_stage(stage), contextlib.redirect_stdout(io.StringIO()):
        for size, make in (("short", short), ("agent", agent)):
            for way, stream in (("whole", False), ("streamed", True)):
                least = dict.fromkeys(("chat", "responses", "messages"), float("inf"))
                for _ in range(ROUNDS[size]):
                    for door in least:
                        limit = "max_output_tokens" if door == "responses" else "max_tokens"
                        body = {"model": f"rlaas::{SKILL}", limit: 64, "stream": stream, **make(door)}
                        least[door] = min(least[door], cpu_ms(door, body, stage))
                measured |= {f"{door}_{size}_{way}_cpu_ms": milliseconds for door, milliseconds in least.items()}
                measured |= {f"{door}_{size}_{way}_ratio": least[door] / least["chat"] for door in ("responses", "messages")}
    return measured


if __name__ == "__main__":
    report("front_doors", "make bench-front-doors", figures())
