"""A client of a stream that leaves after its first event, its second, and so on, at each door: what the model did is
counted, and nothing stays set aside."""

from typing import Any

import pytest

from functions.chat.handler import DOORS
from rlaas.adapters.aws.counters import DynamoCounters
from rlaas.api import web
from rlaas.clock import utc_now
from rlaas.metering.budget_usage import read_window_usage
from rlaas.metering.budgets import BUDGETS, Budget, Budgets
from tests.fakes.gateway import make_proxy_event
from tests.fakes.model_server import ModelServer
from tests.fakes.worlds import CHANGE, SKILL, TENANT
from tests.unit.functions.conftest import Stage

MODEL = f"rlaas::{SKILL}"
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "one"}], "stream_options": {"include_usage": True}},
    "/v1/responses": {"input": "one"},
    "/v1/messages": {"messages": [{"role": "user", "content": "one"}], "max_tokens": 64},
}


MANY = Budget(name="many", measure="requests", limit=1000, window="month")


def open_stream(path: str) -> web.Stream:
    answer = DOORS[path].respond(make_proxy_event(path, {**BODIES[path], "model": MODEL, "stream": True}))
    assert not isinstance(answer, dict)
    return answer


@pytest.mark.parametrize("path", BODIES)
def test_a_client_that_leaves_at_any_event_is_counted_once(furnished_stage: Stage, model: ModelServer, path: str) -> None:
    furnished_stage.registry.put(TENANT, BUDGETS, Budgets(budgets=(MANY,)), CHANGE)
    parts = len([*open_stream(path)])
    assert parts > 3
    for left_after in range(1, parts):
        stream = open_stream(path)
        for _ in range(left_after):
            next(stream)
        stream.close()
    outputs = [item for item in furnished_stage.items("events") if item["event_type"] == {"S": "output"}]
    assert len(outputs) == len(model.requests) == parts
    window = read_window_usage(MANY, MANY.counter, DynamoCounters("counters").read(TENANT), now=utc_now())
    assert (window.spent, window.set_aside) == (parts, 0)
