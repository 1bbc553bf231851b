"""Answers from a SageMaker endpoint: the OpenAI chat body to the base model or to an adapter's inference component."""

import math
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import boto3
from botocore.config import Config
from botocore.eventstream import ParserError
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError, HTTPClientError
from botocore.parsers import ResponseParserError
from pydantic_core import to_json
from urllib3.exceptions import HTTPError

from rlaas.adapters.models.openai_answers import read_completion, read_deltas
from rlaas.adapters.models.openai_chat import chat_body, count_choices, read_refusal
from rlaas.adapters.models.server_sent_events import event_data
from rlaas.adapters.models.trace_context import traceparent
from rlaas.adapters.models.vendor_failures import retry_after_s
from rlaas.adapters.models.vendor_http import MAX_ANSWER_BYTES, MAX_STREAM_BYTES
from rlaas.adapters.models.vendor_parts import check_texts
from rlaas.chat import BackendFailed, ChatCall, Completion, Delta, NoCapacity
from rlaas.errors import RlaasError
from rlaas.policies.backend import SageMakerBackend

if TYPE_CHECKING:
    from types_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from types_boto3_sagemaker_runtime.type_defs import ResponseStreamTypeDef

VENDOR = "the model endpoint"
_DID_NO_WORK = frozenset({"ThrottlingException", "ServiceUnavailable", "ServiceUnavailableException", "ModelNotReadyException"})
_REFUSED = frozenset({"ValidationError", "AccessDeniedException"})
_ASLEEP = "has no capacity to process this request"
"""In InvokeEndpoint's message for an inference component without copies; wrong requests have the same code."""


class SageMakerEndpoints:
    """`Backend` for `SageMakerBackend`, by InvokeEndpoint and its streaming form. Every parameter is passed on. One
    attempt for each call.

    `runtime` is a client with other credentials than the process's; its own time-out applies (`runtime_client`).
    """

    def __init__(self, runtime: "SageMakerRuntimeClient | None" = None) -> None:
        self._client = runtime

    def complete(self, backend: SageMakerBackend, call: ChatCall, *, timeout_s: float) -> Completion:
        """The whole answer, within `timeout_s` seconds. Raises: BackendFailed, NoCapacity while no copy runs,
        InvalidInput naming the parameter that the model server refuses."""
        until = time.monotonic() + timeout_s
        with aws_failures(VENDOR):
            answer = self._runtime(timeout_s).invoke_endpoint(
                EndpointName=backend.endpoint,
                ContentType="application/json",
                Accept="application/json",
                Body=_body(call, stream=False),
                **_component(backend),
                **_trace(call),
            )
            with closing(answer["Body"]) as body:
                body.set_socket_timeout(max(0.001, until - time.monotonic()))
                content = body.read(MAX_ANSWER_BYTES + 1)
        if len(content) > MAX_ANSWER_BYTES:
            raise BackendFailed(f"{VENDOR}'s answer is larger than {MAX_ANSWER_BYTES} bytes")
        return read_completion(VENDOR, content)

    def stream(self, backend: SageMakerBackend, call: ChatCall, *, timeout_s: float) -> Generator[Delta, None, None]:
        """The answer piece by piece, `timeout_s` seconds between pieces. Raises: as `complete`."""
        with aws_failures(VENDOR):
            answer = self._runtime(timeout_s).invoke_endpoint_with_response_stream(
                EndpointName=backend.endpoint,
                ContentType="application/json",
                Accept="text/event-stream",
                Body=_body(call, stream=True),
                **_component(backend),
                **_trace(call),
            )
            with closing(answer["Body"]) as parts:
                yield from read_deltas(VENDOR, event_data(_payloads(parts, call.ends_at)), choices=count_choices(call.parameters))

    def _runtime(self, timeout_s: float) -> "SageMakerRuntimeClient":
        return self._client or _runtime(whole_seconds(timeout_s))


def _body(call: ChatCall, *, stream: bool) -> bytes:
    check_texts(VENDOR, call.messages)
    return to_json(chat_body(call, stream=stream))


def _component(backend: SageMakerBackend) -> dict[str, str]:
    return {"InferenceComponentName": backend.component} if backend.component else {}


def _trace(call: ChatCall) -> dict[str, str]:
    """The trace context, in the one header that SageMaker passes on to the container."""
    trace = traceparent(call)
    return {"CustomAttributes": f"traceparent={trace}"} if trace else {}


def _payloads(parts: "Iterable[ResponseStreamTypeDef]", ends_at: float | None) -> Iterator[bytes]:
    size = 0
    for part in parts:
        if ends_at is not None and time.monotonic() > ends_at:
            raise BackendFailed(f"{VENDOR} did not finish in time")
        payload = part.get("PayloadPart", {}).get("Bytes", b"")
        size += len(payload)
        if size > MAX_STREAM_BYTES:
            raise BackendFailed(f"{VENDOR}'s answer is larger than {MAX_STREAM_BYTES} bytes")
        yield payload


@contextmanager
def aws_failures(vendor: str) -> Iterator[None]:
    """Turn what botocore raises inside into BackendFailed, or InvalidInput where the model server refused the
    request."""
    try:
        yield
    except ClientError as error:
        raise _read_error(vendor, error) from error
    except (EndpointConnectionError, ConnectTimeoutError) as error:
        detail = f"{vendor} could not be reached: {type(error).__name__}"
        raise BackendFailed(detail, safe_to_repeat=True, nothing_done=True) from error
    except (BotoCoreError, HTTPClientError, ParserError, ResponseParserError, HTTPError, OSError) as error:
        raise BackendFailed(f"{vendor} broke off: {type(error).__name__}") from error


def _read_error(vendor: str, error: ClientError) -> RlaasError:
    """The error to raise: a ModelError carries the model server's own answer; any other error is SageMaker's, about the
    policy."""
    code = error.response["Error"]["Code"]
    wait = retry_after_s(error.response["ResponseMetadata"]["HTTPHeaders"]) if "ResponseMetadata" in error.response else None
    response = cast(Mapping[str, object], error.response)
    status, message = response.get("OriginalStatusCode"), response.get("OriginalMessage")
    if code == "ModelError" and isinstance(status, int):
        return read_refusal(vendor, status, message if isinstance(message, str) else "", retry_after_s=wait)
    if code == "ValidationError" and _ASLEEP in error.response["Error"].get("Message", ""):
        return NoCapacity(f"{vendor} has no copy of the model running; one is being started, which takes five to ten minutes")
    return BackendFailed(
        f"{vendor} answered {code}",
        safe_to_repeat=code in _DID_NO_WORK,
        nothing_done=code in _DID_NO_WORK | _REFUSED,
        retry_after_s=wait,
    )


def whole_seconds(timeout_s: float) -> float:
    """`timeout_s` rounded up to whole seconds, but under one second as it is: a client has one time-out, so this keeps
    the number of clients small."""
    return timeout_s if timeout_s < 1 else float(math.ceil(timeout_s))


def runtime_client(timeout_s: float, session: boto3.Session | None = None) -> "SageMakerRuntimeClient":
    """A client that waits `timeout_s` seconds for an answer, with the session's credentials or the process's own."""
    config = Config(connect_timeout=1, read_timeout=timeout_s, retries={"total_max_attempts": 1}, max_pool_connections=50)
    runtime: SageMakerRuntimeClient = (session or boto3).client("sagemaker-runtime", config=config)
    return runtime


_runtime = lru_cache(maxsize=32)(runtime_client)
