"""Each vendor's wire, in the formats of its public API reference: what is sent, and how its answers, streams and errors
are read.

A wire (`wires/<vendor>/<name>.json`) has the call, the request that must be sent (none: nothing may be), the response,
and the expected result.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from pydantic import TypeAdapter

from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.adapters.models import bedrock as bedrock_backend
from rlaas.adapters.models import sagemaker as sagemaker_backend
from rlaas.adapters.models.backends import Backends
from rlaas.chat import UNKNOWN_PROCESSING, BackendFailed, ChatCall, Completion, Delta, Message, Processing
from rlaas.errors import InvalidInput, RlaasError
from rlaas.policies.backend import AnthropicBackend, BackendSpec, BedrockBackend, OpenAIBackend, SageMakerBackend
from tests.fakes.event_stream import encode_event, encode_exception
from tests.fakes.loopback import QuietHandler, serve_handler

WIRES = Path(__file__).parent / "wires"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Wire = dict[str, Any]


class Keys(VendorKeys):
    """Every tenant's key says whose it is."""

    def key(self, tenant_id: str, name: str, **_: str) -> str:
        return f"{tenant_id}-{name}"


BACKENDS = Backends(Keys(None), private_addresses=True)


def spec(vendor: str, url: str) -> BackendSpec:
    specs: dict[str, BackendSpec] = {
        "openai": OpenAIBackend(model="gpt-5.4", base_url=f"{url}/v1", secret="vendor"),
        "anthropic": AnthropicBackend(model="claude-sonnet-4-5", base_url=f"{url}/v1", secret="vendor"),
        "bedrock": BedrockBackend(model="eu.anthropic.claude-sonnet-4-5-20250929-v1:0", region="eu-central-1"),
        "sagemaker": SageMakerBackend(endpoint="rlaas-prod", component="acme--reply--v3"),
    }
    return specs[vendor]


@dataclass
class Vendor:
    """A server that answers with `response` and keeps the requests."""

    url: str = ""
    response: Wire = field(default_factory=dict)
    folder: Path = WIRES
    requests: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def content(self) -> tuple[str, list[bytes]]:
        """The response's content type and its content, in pieces as they are sent."""
        response = self.response
        if "file" in response:
            content = (self.folder / response["file"]).read_bytes()
            return "text/event-stream; charset=utf-8", [content[at : at + 37] for at in range(0, len(content), 37)]
        if "parts" in response or "events" in response:
            content = (self.folder / response["parts"]).read_bytes() if "parts" in response else b""
            parts = [
                encode_event("PayloadPart", content[at : at + 37], content_type="application/octet-stream")
                for at in range(0, len(content), 37)
            ]
            events = [encode_event(name, json.dumps(payload).encode()) for name, payload in response.get("events", [])]
            ends = [encode_exception(*response["exception"])] if "exception" in response else []
            return "application/vnd.amazon.eventstream", [*parts, *events, *ends]
        return "application/json", [response["text"].encode() if "text" in response else json.dumps(response["body"]).encode()]


@contextmanager
def serving() -> Iterator[Vendor]:
    vendor = Vendor()

    class Answers(QuietHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            vendor.requests.append((unquote(self.path), {name.lower(): value for name, value in self.headers.items()}, body))
            content_type, pieces = vendor.content()
            self.send_response(vendor.response.get("status", 200))
            self.send_header("Content-Type", content_type)
            for name, value in vendor.response.get("headers", {}).items():
                self.send_header(name, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in pieces:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

    with serve_handler(Answers) as vendor.url:
        yield vendor


@pytest.fixture(scope="module")
def server() -> Iterator[Vendor]:
    with serving() as vendor, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for service in ("SAGEMAKER", "BEDROCK"):
            patch.setenv(f"AWS_ENDPOINT_URL_{service}_RUNTIME", vendor.url)
        for client in (sagemaker_backend._runtime, bedrock_backend.runtime):
            client.cache_clear()
        yield vendor
        for client in (sagemaker_backend._runtime, bedrock_backend.runtime):
            client.cache_clear()


@pytest.mark.parametrize("path", sorted(WIRES.glob("*/*.json")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_wire(server: Vendor, path: Path) -> None:
    wire: Wire = json.loads(path.read_text())
    vendor = path.parent.name
    server.response, server.folder, server.requests = wire.get("response", {}), path.parent, []
    call = ChatCall(
        messages=tuple(Message.model_validate_json(json.dumps(message)) for message in wire["call"]["messages"]),
        parameters=wire["call"].get("parameters", {}),
        tenant_id="acme",
        traceparent=TRACE,
    )

    result, deltas = ask(spec(vendor, server.url), call, streams="deltas" in wire)

    if "request" in wire:
        ((sent_to, headers, body),) = server.requests
        assert body == wire["request"]["body"]
        assert sent_to == wire["request"]["path"]
        assert {name: headers.get(name) for name in wire["request"]["headers"]} == wire["request"]["headers"]
    else:
        assert server.requests == []
    if "deltas" in wire:
        actual = TypeAdapter(list[Delta]).dump_python(deltas, mode="json", exclude_defaults=True)
        assert [{name: value for name, value in delta.items() if name not in ("model", "processing")} for delta in actual] == wire["deltas"]
        assert {delta.model for delta in deltas} <= {wire.get("model")}
        assert {delta.processing for delta in deltas} <= {UNKNOWN_PROCESSING, Processing(**wire.get("processing", {}))}
    if "completion" in wire:
        assert isinstance(result, Completion)
        assert TypeAdapter(Completion).dump_python(result, mode="json", exclude_defaults=True) == wire["completion"]
    if "invalid" in wire:
        assert isinstance(result, InvalidInput)
        assert result.param == wire["invalid"]["param"]
        check_words(result, wire["invalid"])
    elif "failed" in wire:
        assert isinstance(result, BackendFailed)
        assert result.safe_to_repeat is wire["failed"]["safe_to_repeat"]
        assert result.retry_after_s == wire["failed"].get("retry_after_s")
        check_words(result, wire["failed"])
    else:
        assert not isinstance(result, RlaasError)


def check_words(error: RlaasError, expected: Wire) -> None:
    """Check what the error says, as far as the wire has expectations."""
    for name in ("detail", "code", "quote"):
        assert getattr(error, name) == expected.get(name, getattr(error, name))


def ask(spec: BackendSpec, call: ChatCall, *, streams: bool) -> tuple[Completion | RlaasError | None, list[Delta]]:
    deltas: list[Delta] = []
    try:
        if not streams:
            return BACKENDS.complete(spec, call, timeout_s=5), []
        deltas.extend(BACKENDS.stream(spec, call, timeout_s=5))
    except RlaasError as error:
        return error, deltas
    return None, deltas


@pytest.mark.parametrize("host", ["api.openai.com", "eu.api.openai.com", "acme.openai.azure.com"])
def test_openai_itself_is_told_max_tokens_by_its_new_name(server: Vendor, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    here = [(2, 1, 6, "", ("127.0.0.1", int(server.url.rpartition(":")[2])))]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: here)
    wire = json.loads((WIRES / "openai" / "text.json").read_text())
    server.response, server.requests = wire["response"], []
    openai = OpenAIBackend(model="gpt-5.4", base_url=f"http://{host}:{server.url.rpartition(':')[2]}/v1")
    call = ChatCall(messages=(Message(role="user", content="Hello!"),), parameters={"max_tokens": 9}, tenant_id="acme")
    BACKENDS.complete(openai, call, timeout_s=5)
    ((_, headers, body),) = server.requests
    assert body == {"model": "gpt-5.4", "messages": [{"role": "user", "content": "Hello!"}], "max_completion_tokens": 9}
    assert "authorization" not in headers
