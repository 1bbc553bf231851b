"""Answers of servers that speak OpenAI's chat API loosely, from the wire to the caller and to what is stored."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.adapters.models.backends import Backends
from rlaas.api.answering import infer_body
from rlaas.chat import BackendFailed, Choice, Completion, Delta, Usage
from rlaas.inference.collect import Collected
from rlaas.inference.decide import InferRequest
from rlaas.inference.infer import infer, infer_stream
from rlaas.inference.record import Answer
from rlaas.inference.spending import Spending
from rlaas.metering.budgets import Budgets
from rlaas.metering.prices import Price, PriceTable
from rlaas.policies.backend import OpenAIBackend
from rlaas.telemetry.events import OutputProduced
from tests.declared_answers import check_answer
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.loopback import QuietHandler, serve_handler
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, SKILL, make_policy, make_route
from tests.unit.inference.asking import ASKER, Failing, ask, gateway

BACKENDS = Backends(VendorKeys(None), private_addresses=True)
COUNTS = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
SIGNED = {"google": {"thought_signature": "EqQCCqECAVSoXO4kXr0Kx2y9Q7sYh3nB5lT8wZ1pJmRfVuGdAeLoNtPiQw=="}}
WEB_PAGE = "<!doctype html>\n<html><title>502</title><body>data: bad gateway</body></html>"


@contextmanager
def vendor(content: str, content_type: str = "application/json") -> Iterator[OpenAIBackend]:
    """A server that answers 200 with `content`."""

    class Answers(QuietHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(content.encode())))
            self.end_headers()
            self.wfile.write(content.encode())

    with serve_handler(Answers) as url:
        yield OpenAIBackend(model="loose", base_url=f"{url}/v1")


def whole(message: dict[str, Any] | None = None, finish_reason: str = "stop", **fields: Any) -> str:
    choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": "ok", **(message or {})}}
    return json.dumps({"model": "loose-1", "choices": [choice], "usage": COUNTS, **fields})


def piece(delta: dict[str, Any] | None = None, finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta or {}, "finish_reason": finish_reason}], **fields}


def events(*chunks: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


ROLE = piece({"role": "assistant", "content": ""})
OTHER = events(ROLE, piece({"content": "ok"}), piece({}, "stop", usage=COUNTS))


class Asking:
    """A gateway whose one policy asks `backends` in turn, and what came of it."""

    def __init__(self, *backends: OpenAIBackend, price: Price | None = None) -> None:
        registry, self.store = MemoryRegistry(), MemoryEventStore()
        first, *others = backends
        registry.put_policy(make_policy(1).model_copy(update={"backend": first, "fallbacks": tuple(others)}), CHANGE)
        registry.write_route(make_route(), expected_version=0)
        prices = PriceTable(version=1, prices={"loose": price} if price else {})
        spending = Spending(MemoryCounters(), Budgets(), prices)
        self._gateway = gateway(registry=registry, store=self.store, backend=BACKENDS, spending=spending)
        self._request = InferRequest(skill=SKILL, inputs={"email": "where is it"})

    def whole(self) -> Answer:
        return infer(self._request, ASKER, self._gateway)

    def stream(self) -> tuple[list[Delta], Completion]:
        pieces = Collected()
        deltas = [pieces.add(delta) for delta in infer_stream(self._request, ASKER, self._gateway).deltas]
        return deltas, pieces.completion()

    def outputs(self) -> list[OutputProduced]:
        stored = (event.event() for event in self.store.events.values())
        return [event for event in stored if isinstance(event, OutputProduced)]


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (whole({"content": '{"events": [{"title": "partial'}, "error"), "application/json"),
        (json.dumps({"error": {"code": 502, "message": "Provider returned error"}}), "application/json"),
        (json.dumps({"error": "overloaded"}), "application/json"),
        (WEB_PAGE, "text/html"),
        ("", "application/json"),
    ],
)
def test_what_is_no_answer_of_a_model_is_asked_of_the_next_backend(content: str, content_type: str) -> None:
    with vendor(content, content_type) as first, vendor(whole()) as second:
        asking = Asking(first, second)
        answer = asking.whole()
    assert (answer.text, answer.finish_reason, answer.decision.fallback) == ("ok", "stop", True)
    assert [output.text for output in asking.outputs()] == ["ok"]


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (events(ROLE, piece({}, "error")), "text/event-stream"),
        (events(ROLE, {"error": {"code": 502, "message": "Provider returned error"}, "choices": []}), "text/event-stream"),
        (json.dumps({"error": {"code": 502, "message": "no"}}), "application/json"),
        (events(ROLE), "text/event-stream"),
        (WEB_PAGE, "text/html"),
    ],
)
def test_a_stream_that_fails_before_it_says_anything_is_asked_of_the_next_backend(content: str, content_type: str) -> None:
    with vendor(content, content_type) as first, vendor(OTHER, "text/event-stream") as second:
        asking = Asking(first, second)
        _, completion = asking.stream()
    assert (completion.choices[0].text, completion.choices[0].finish_reason) == ("ok", "stop")
    assert [output.decision.fallback for output in asking.outputs() if output.decision] == [True]


@pytest.mark.parametrize("end", [[piece({}, "error")], [{"error": {"message": "no"}}], []])
def test_a_stream_that_fails_after_it_said_something_ends_in_an_error_and_is_no_answer(end: list[dict[str, Any]]) -> None:
    with vendor(events(ROLE, piece({"content": "Dear Ada"}), *end), "text/event-stream") as first, vendor(OTHER) as second:
        asking = Asking(first, second)
        with pytest.raises(BackendFailed):
            asking.stream()
    assert asking.outputs() == []


def test_a_stream_with_the_wrong_content_type_and_a_whole_answer_in_place_of_one_are_read() -> None:
    for content, content_type in ((OTHER, "text/plain"), (whole(), "application/json")):
        with vendor(content, content_type) as server:
            _, completion = Asking(server).stream()
        assert (completion.choices[0].text, completion.choices[0].finish_reason) == ("ok", "stop")
        assert completion.usage == Usage(input_tokens=7, output_tokens=2)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 0}])
def test_an_answer_without_counts_is_given_and_its_cost_estimated(usage: Any) -> None:
    price = Price(input=1.0, output=2.0)
    with vendor(whole({"reasoning_content": "Hm. " * 100}, usage=usage)) as server:
        asking = Asking(server, price=price)
        answer = asking.whole()
    with vendor(whole(usage=usage)) as server:
        without_thoughts = Asking(server, price=price).whole()
    assert (answer.text, answer.usage) == ("ok", None)
    assert answer.cost_usd is not None
    assert without_thoughts.cost_usd is not None
    assert answer.cost_usd > without_thoughts.cost_usd > 0


@pytest.mark.parametrize("streams", [False, True])
def test_tokens_that_deepseek_read_from_its_cache_are_priced_as_such(streams: bool) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_cache_hit_tokens": 900, "prompt_cache_miss_tokens": 100}
    content = events(piece({"content": "ok"}), piece({}, "stop"), {"choices": [], "usage": usage}) if streams else whole(usage=usage)
    with vendor(content, "text/event-stream" if streams else "application/json") as server:
        asking = Asking(server, price=Price(input=0.28, output=0.42, cached_input=0.028))
        asking.stream() if streams else asking.whole()
    [output] = asking.outputs()
    assert output.usage == Usage(input_tokens=1000, output_tokens=10, cached_tokens=900)
    assert output.cost_usd == pytest.approx(0.0000574, abs=1e-9)


@pytest.mark.parametrize("index", [{"index": 0}, {}])
def test_parallel_calls_of_one_index_are_two_calls_for_the_caller_and_in_the_store(index: dict[str, int]) -> None:
    calls = [
        {**index, "id": f"call_{n}", "type": "function", "function": {"name": "add_event", "arguments": f'{{"day": {n}}}'}} for n in (1, 2)
    ]
    with vendor(events(*(piece({"tool_calls": [call]}) for call in calls), piece({}, "stop", usage=COUNTS)), "text/event-stream") as server:
        asking = Asking(server)
        deltas, completion = asking.stream()
    [output] = asking.outputs()
    assert [piece.index for delta in deltas for piece in delta.tool_calls] == [0, 1]
    for stored in (completion.choices[0].tool_calls, output.tool_calls):
        assert [(call.id, call.function.arguments) for call in stored] == [("call_1", '{"day": 1}'), ("call_2", '{"day": 2}')]
    assert (completion.choices[0].finish_reason, output.finish_reason) == ("tool_calls", "tool_calls")


@pytest.mark.parametrize("streams", [False, True])
def test_an_id_that_holds_a_signature_reaches_the_caller_and_the_store(streams: bool) -> None:
    call_id = "call_1__thought__" + "c2ln" * 1000
    call = {"index": 0, "id": call_id, "type": "function", "function": {"name": "find", "arguments": "{}"}}
    content = events(piece({"tool_calls": [call]}), piece({}, "tool_calls")) if streams else whole({"tool_calls": [call]}, "tool_calls")
    with vendor(content, "text/event-stream" if streams else "application/json") as server:
        asking = Asking(server)
        choice = asking.stream()[1].choices[0] if streams else asking.whole().choices[0]
    [output] = asking.outputs()
    assert [one.id for one in (*choice.tool_calls, *output.tool_calls)] == [call_id, call_id]


@pytest.mark.parametrize("streams", [False, True])
def test_what_the_vendor_must_get_back_reaches_the_caller_and_the_store(streams: bool) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "find", "arguments": "{}"}, "extra_content": SIGNED}
    words: dict[str, Any] = {"content": None, "reasoning_content": "Hm.", "tool_calls": [call]}
    content = events(piece(words), piece({}, "tool_calls", usage=COUNTS)) if streams else whole(words, "tool_calls")
    with vendor(content, "text/event-stream" if streams else "application/json") as server:
        asking = Asking(server)
        choice = asking.stream()[1].choices[0] if streams else asking.whole().choices[0]
    [output] = asking.outputs()
    assert (choice.reasoning_content, choice.tool_calls[0].extra_content) == ("Hm.", SIGNED)
    assert (output.reasoning_content, output.tool_calls[0].extra_content) == ("Hm.", SIGNED)


def test_what_the_model_thought_is_in_infers_answer_where_it_says_so() -> None:
    store = MemoryEventStore()
    thought = Failing(completion=Completion((Choice("ok", "stop", reasoning_content="Hm."),), usage=None))
    for _ in ("asked", "asked again"):
        body = infer_body(ask(store, backend=thought, interaction_id="int_1"))
        check_answer("POST", "/v1/infer", 200, body)
        assert body["reasoning_content"] == "Hm."
    assert "reasoning_content" not in infer_body(ask(MemoryEventStore()))
