from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event

import pytest

from rlaas.aws.sagemaker_backend import SageMakerEndpoints, _runtime
from rlaas.errors import DependencyUnavailable
from rlaas.inference.backend import Backend
from rlaas.routing.policy import SageMakerBackend, Sampling
from rlaas.telemetry.events import Message, Usage
from tests.fakes.backend import EchoBackend
from tests.fakes.model_server import ModelServer, model_server

TARGET = SageMakerBackend(endpoint="rlaas-local", component="acme--reply--v1")
MESSAGES = (Message(role="system", content="Be kind."), Message(role="user", content="hello"))


@dataclass
class Answering:
    backend: Backend
    down: set[str]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with model_server() as state:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", state.url)
        _runtime.cache_clear()
        yield state
        _runtime.cache_clear()


@pytest.fixture(params=["fake", "http"])
def answering(request: pytest.FixtureRequest) -> Answering:
    if request.param == "fake":
        fake = EchoBackend()
        return Answering(fake, fake.down)
    return Answering(SageMakerEndpoints(), request.getfixturevalue("server").down)


def test_the_component_named_answers(answering: Answering) -> None:
    completion = answering.backend.complete(TARGET, MESSAGES, Sampling(), timeout_s=5)
    assert completion.text == "acme--reply--v1: hello"
    assert completion.usage == Usage(input_tokens=7, output_tokens=2)
    assert completion.finish_reason == "stop"


def test_a_component_that_is_down_is_a_dependency_unavailable(answering: Answering) -> None:
    answering.down.add("acme--reply--v1")
    with pytest.raises(DependencyUnavailable):
        answering.backend.complete(TARGET, MESSAGES, Sampling(), timeout_s=5)


@pytest.mark.parametrize("nonsense", ["not json", "{}", '{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}'])
def test_an_answer_that_is_no_completion_is_a_dependency_unavailable(server: ModelServer, nonsense: str) -> None:
    server.nonsense = nonsense
    with pytest.raises(DependencyUnavailable, match="not a chat completion"):
        SageMakerEndpoints().complete(TARGET, MESSAGES, Sampling(), timeout_s=5)


def test_a_model_that_does_not_answer_in_time_is_asked_once_and_given_up(server: ModelServer) -> None:
    server.silent = Event()
    with pytest.raises(DependencyUnavailable, match="ReadTimeoutError"):
        SageMakerEndpoints().complete(TARGET, MESSAGES, Sampling(seed=3), timeout_s=0.2)
    assert [asked.body["seed"] for asked in server.asked] == [3]
