"""Every kind of backend, each over its own wire, and the fake: what inference relies on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event

import pytest

from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.adapters.models.backends import Backends
from rlaas.chat import BackendFailed, CalledFunction, ChatCall, Delta, Message, ToolCall, Usage
from rlaas.errors import DependencyUnavailable, InvalidInput, TranslationRefused
from rlaas.policies.backend import AnthropicBackend, Backend, BackendSpec, BedrockBackend, OpenAIBackend, SageMakerBackend
from tests.fakes.backend import EchoBackend
from tests.fakes.model_server import ModelServer

MODEL = "acme--reply--v1"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CALL = ChatCall(
    messages=(Message(role="system", content="Be kind."), Message(role="user", content="grüß dich, 世界")),
    parameters={"max_tokens": 20},
    tenant_id="acme",
    traceparent=TRACE,
)
ANSWER = f"{MODEL}: grüß dich, 世界"


class Keys(VendorKeys):
    """Every tenant's key says whose it is."""

    def key(self, tenant_id: str, name: str, **_: str) -> str:
        return f"{tenant_id}-{name}"


@dataclass
class Answering:
    backend: Backend
    spec: BackendSpec
    down: set[str]
    refuses: set[str]


SPECS: dict[str, Callable[[str], BackendSpec]] = {
    "sagemaker": lambda url: SageMakerBackend(endpoint="rlaas-local", component=MODEL),
    "openai": lambda url: OpenAIBackend(model=MODEL, base_url=f"{url}/v1", secret="openai"),
    "anthropic": lambda url: AnthropicBackend(model=MODEL, base_url=f"{url}/v1", secret="anthropic"),
    "bedrock": lambda url: BedrockBackend(model=MODEL),
}


@pytest.fixture(params=["fake", *SPECS])
def answering(request: pytest.FixtureRequest) -> Answering:
    if request.param == "fake":
        fake = EchoBackend(refuses={"banana"})
        return Answering(fake, SageMakerBackend(endpoint="rlaas-local", component=MODEL), fake.down, fake.refuses)
    server: ModelServer = request.getfixturevalue("server")
    server.refuses.add("banana")
    return Answering(Backends(Keys(None), private_addresses=True), SPECS[request.param](server.url), server.down, server.refuses)


def test_the_model_named_answers(answering: Answering) -> None:
    completion = answering.backend.complete(answering.spec, CALL, timeout_s=5)
    (choice,) = completion.choices
    assert (choice.text, choice.finish_reason, choice.tool_calls, choice.refusal) == (ANSWER, "stop", (), None)
    assert completion.usage == Usage(input_tokens=7, output_tokens=4)
    assert completion.model == MODEL


def test_a_stream_says_the_same_and_its_usage_last(answering: Answering) -> None:
    *pieces, last = answering.backend.stream(answering.spec, CALL, timeout_s=5)
    assert "".join(piece.text for piece in pieces) == ANSWER
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == ["stop"]
    assert last == Delta(usage=Usage(input_tokens=7, output_tokens=4), model=MODEL)
    assert len([piece for piece in pieces if piece.text]) == 4


def test_a_model_that_is_down_is_a_dependency_unavailable_and_not_safe_to_ask_again(answering: Answering) -> None:
    answering.down.add(MODEL)
    for ask in (
        lambda: answering.backend.complete(answering.spec, CALL, timeout_s=5),
        lambda: list(answering.backend.stream(answering.spec, CALL, timeout_s=5)),
    ):
        with pytest.raises(DependencyUnavailable) as failed:
            ask()
        assert isinstance(failed.value, BackendFailed)
        assert not failed.value.safe_to_repeat


def test_a_parameter_that_is_not_taken_is_the_callers_to_mend(answering: Answering) -> None:
    call = ChatCall(messages=CALL.messages, parameters={"max_tokens": 20, "banana": 1}, tenant_id="acme")
    for ask in (
        lambda: answering.backend.complete(answering.spec, call, timeout_s=5),
        lambda: list(answering.backend.stream(answering.spec, call, timeout_s=5)),
    ):
        with pytest.raises(InvalidInput) as refused:
            ask()
        assert refused.value.param == "banana"


@pytest.fixture(params=list(SPECS))
def spec(request: pytest.FixtureRequest, server: ModelServer) -> BackendSpec:
    return SPECS[request.param](server.url)


BACKENDS = Backends(Keys(None), private_addresses=True)


@pytest.mark.parametrize("nonsense", ["not json", "{}", '{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'])
def test_an_answer_that_is_no_completion_is_a_failure(server: ModelServer, spec: BackendSpec, nonsense: str) -> None:
    server.nonsense = nonsense
    with pytest.raises(BackendFailed):
        BACKENDS.complete(spec, CALL, timeout_s=5)
    with pytest.raises(BackendFailed):
        list(BACKENDS.stream(spec, CALL, timeout_s=5))


def test_a_model_that_does_not_answer_in_time_is_asked_once_and_given_up(server: ModelServer, spec: BackendSpec) -> None:
    server.silent = Event()
    with pytest.raises(BackendFailed) as late:
        BACKENDS.complete(spec, CALL, timeout_s=0.2)
    assert not late.value.safe_to_repeat
    assert len(server.requests) == 1


def test_a_server_that_cannot_be_reached_may_be_asked_again(
    monkeypatch: pytest.MonkeyPatch, server: ModelServer, spec: BackendSpec
) -> None:
    closed = "http://127.0.0.1:9"
    for service in ("SAGEMAKER", "BEDROCK"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}_RUNTIME", closed)
    away = spec if isinstance(spec, SageMakerBackend | BedrockBackend) else spec.model_copy(update={"base_url": closed})
    with pytest.raises(BackendFailed, match="could not be reached") as unreached:
        BACKENDS.complete(away, CALL, timeout_s=0.9)
    assert unreached.value.safe_to_repeat


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("kind", ["openai", "sagemaker"])
def test_a_history_that_was_changed_for_the_server_is_not_the_callers_where_the_server_refuses_it(
    server: ModelServer, kind: str, streams: bool
) -> None:
    def ask(arguments: str) -> type[Exception]:
        tool_call = ToolCall(id="call_1", function=CalledFunction(name="f", arguments=arguments))
        answered = (
            Message(role="assistant", content="", tool_calls=(tool_call,)),
            Message(role="tool", content="7", tool_call_id="call_1"),
        )
        call = replace(CALL, messages=(*CALL.messages, *answered, CALL.messages[-1]))
        backends, spec = Backends(Keys(None), private_addresses=True), SPECS[kind](server.url)
        with pytest.raises(InvalidInput) as refused:
            _ = [*backends.stream(spec, call, timeout_s=5)] if streams else backends.complete(spec, call, timeout_s=5)
        assert refused.value.param == "messages"
        return type(refused.value)

    server.refuses.add("messages")
    assert ask('{"n": 1}') is InvalidInput
    assert ask("{broken") is TranslationRefused


def test_the_trace_travels_to_the_vendor(server: ModelServer, spec: BackendSpec) -> None:
    BACKENDS.complete(spec, CALL, timeout_s=5)
    list(BACKENDS.stream(spec, CALL, timeout_s=5))
    for request in server.requests:
        headers = (request.headers.get("traceparent"), request.headers.get("x-amzn-sagemaker-custom-attributes"))
        assert TRACE in str((*headers, request.body.get("requestMetadata")))


def test_a_server_that_a_policy_names_hears_how_many_gateways_the_request_has_passed(server: ModelServer, spec: BackendSpec) -> None:
    BACKENDS.complete(spec, replace(CALL, hops=1), timeout_s=5)
    assert server.requests[0].headers.get("x-rlaas-hops") == ("2" if isinstance(spec, OpenAIBackend | AnthropicBackend) else None)


def test_what_is_no_trace_context_does_not_travel(server: ModelServer, spec: BackendSpec) -> None:
    forged = ChatCall(messages=CALL.messages, parameters=CALL.parameters, tenant_id="acme", traceparent="00-\r\nx-api-key: forged")
    BACKENDS.complete(spec, forged, timeout_s=5)
    assert "forged" not in str((server.requests[0].headers, server.requests[0].body))


def test_a_stream_is_not_begun_before_its_first_piece_is_asked_for_and_may_be_left(server: ModelServer, spec: BackendSpec) -> None:
    stream = BACKENDS.stream(spec, CALL, timeout_s=5)
    assert server.requests == []
    next(stream)
    stream.close()
    assert len(server.requests) == 1
