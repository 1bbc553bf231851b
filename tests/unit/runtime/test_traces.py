import json
from dataclasses import replace
from typing import Any

import pytest

from rlaas.chat import BackendFailed, ChatCall, Choice, Completion, Message
from rlaas.policies.backend import BackendSpec, OpenAIBackend
from rlaas.runtime.traces import Trace, TracedBackend
from tests.fakes.backend import EchoBackend

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
MODEL = OpenAIBackend(model="gpt", base_url="https://models.example.com/v1")
CALL = ChatCall(
    messages=(Message(role="user", content="secret words"),), parameters={"temperature": 0.5, "stop": "x", "n": 2}, tenant_id="t"
)


def spans(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert "secret" not in json.dumps(lines)
    return [line["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for line in lines if "resourceSpans" in line]


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {attribute["key"]: next(iter(attribute["value"].values())) for attribute in span["attributes"]}


def test_a_call_is_a_client_span_of_the_genai_conventions_under_the_request(capsys: pytest.CaptureFixture[str]) -> None:
    trace, echo = Trace.of(PARENT, stage="test"), EchoBackend()
    TracedBackend(echo, trace).complete(MODEL, CALL, timeout_s=1)
    [span] = spans(capsys)
    assert (span["traceId"], span["parentSpanId"], span["kind"]) == ("0af7651916cd43dd8448eb211c80319c", trace.span_id, 3)
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt",
        "gen_ai.response.model": "gpt",
        "gen_ai.response.finish_reasons": {"values": [{"stringValue": "stop"}]},
        "gen_ai.usage.input_tokens": "7",
        "gen_ai.usage.output_tokens": "3",
        "gen_ai.request.choice.count": "2",
        "gen_ai.request.temperature": 0.5,
        "server.address": "models.example.com",
    }
    assert echo.calls[0].traceparent == f"00-0af7651916cd43dd8448eb211c80319c-{span['spanId']}-01"


def test_a_failed_call_says_what_kind_of_error_and_a_stream_ends_its_span_whenever_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    traced = TracedBackend(EchoBackend(down={"gpt"}), Trace.of(None, stage="test"))
    with pytest.raises(BackendFailed):
        traced.complete(MODEL, CALL, timeout_s=1)
    streams = [TracedBackend(EchoBackend(), Trace.of(None, stage="test")).stream(MODEL, CALL, timeout_s=1) for _ in range(2)]
    list(streams[0])
    next(streams[1])
    streams[1].close()
    failed, whole, left = spans(capsys)
    assert (failed["status"], attributes(failed)["error.type"]) == ({"code": 2}, "BackendFailed")
    assert [attributes(span)["gen_ai.response.finish_reasons"] for span in (whole, left)] == [
        {"values": [{"stringValue": "stop"}]},
        {"values": [{"stringValue": "cancelled"}]},
    ]


@pytest.mark.parametrize("header", ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"])
def test_what_the_caller_does_not_sample_is_not_told_and_travels_on_so(header: str, capsys: pytest.CaptureFixture[str]) -> None:
    echo = EchoBackend()
    TracedBackend(echo, Trace.of(header, stage="test")).complete(MODEL, CALL, timeout_s=1)
    assert spans(capsys) == []
    assert str(echo.calls[0].traceparent).endswith("-00")


@pytest.mark.parametrize("header", [None, "", "nonsense", f"00-{'0' * 32}-b7ad6b7169203331-01", "00-ABC-b7ad6b7169203331-01"])
def test_a_header_that_is_none_begins_a_new_trace(header: str | None) -> None:
    trace = Trace.of(header, stage="test")
    assert (trace.parent_id, trace.sampled, len(trace.trace_id)) == (None, True, 32)


def test_a_trace_holds_nothing_that_a_caller_or_a_vendor_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    class Talkative(EchoBackend):
        def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
            return Completion((Choice("hi", "ada@example.com wrote"),), usage=None, model="gpt-4111111111111111" + "x" * 5000)

    call = replace(CALL, parameters={"stop": ["secret"], "seed": 4111111111111111, "temperature": 447911123456.0})
    TracedBackend(Talkative(), Trace.of(None, stage="test")).complete(MODEL, call, timeout_s=1)
    [span] = spans(capsys)
    text = json.dumps(span["attributes"])
    assert not [part for part in ("ada@", "1111", "4479", "x" * 300) if part in text]
    assert attributes(span)["gen_ai.response.finish_reasons"] == {"values": [{"stringValue": "other"}]}
