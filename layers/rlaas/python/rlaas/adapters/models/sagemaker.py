"""Answers from a SageMaker endpoint: the OpenAI chat body to the base model or to an adapter's inference component."""

import json
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
from urllib3.exceptions import HTTPError

from rlaas.adapters.models.openai_chat import chat_body, choices_asked, completion_of, deltas_of, refused
from rlaas.adapters.models.server_sent_events import event_data
from rlaas.adapters.models.trace_context import traceparent
from rlaas.adapters.models.vendor_failures import retry_after_s
from rlaas.adapters.models.vendor_http import MAX_ANSWER_BYTES, MAX_STREAM_BYTES
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
"""What InvokeEndpoint says of an inference component without copies, under the code it has for wrong requests too."""


class SageMakerEndpoints:
    """`Backend` for `SageMakerBackend`, by InvokeEndpoint and its streaming form. Every parameter passes through. One
    attempt a call.

    `runtime` asks in another name than the process's; its own time-out holds then (`runtime_client`).
    """

    def __init__(self, runtime: "SageMakerRuntimeClient | None" = None) -> None:
        self._given = runtime

    def complete(self, backend: SageMakerBackend, call: ChatCall, *, timeout_s: float) -> Completion:
        """The whole answer. Raises: BackendFailed, NoCapacity while no copy runs, InvalidInput naming what the model
        server refuses."""
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
        return completion_of(VENDOR, content)

    def stream(self, backend: SageMakerBackend, call: ChatCall, *, timeout_s: float) -> Generator[Delta, None, None]:
        """The answer piece by piece. Raises: as `complete`."""
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
                yield from deltas_of(VENDOR, event_data(_payloads(parts, call.ends_at)), choices=choices_asked(call.parameters))

    def _runtime(self, timeout_s: float) -> "SageMakerRuntimeClient":
        return self._given or _runtime(whole_seconds(timeout_s))


def _body(call: ChatCall, *, stream: bool) -> bytes:
    return json.dumps(chat_body(call, stream=stream), ensure_ascii=False).encode()


def _component(backend: SageMakerBackend) -> dict[str, str]:
    return {"InferenceComponentName": backend.component} if backend.component else {}


def _trace(call: ChatCall) -> dict[str, str]:
    """SageMaker passes one header on to the container; the trace context travels in it."""
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
        raise _answered(vendor, error) from error
    except (EndpointConnectionError, ConnectTimeoutError) as error:
        detail = f"{vendor} could not be reached: {type(error).__name__}"
        raise BackendFailed(detail, safe_to_repeat=True, nothing_done=True) from error
    except (BotoCoreError, HTTPClientError, ParserError, ResponseParserError, HTTPError, OSError) as error:
        raise BackendFailed(f"{vendor} broke off: {type(error).__name__}") from error


def _answered(vendor: str, error: ClientError) -> RlaasError:
    """ModelError carries what the model server itself answered; anything else is SageMaker's own word, which blames the
    policy."""
    code = error.response["Error"]["Code"]
    wait = retry_after_s(error.response["ResponseMetadata"]["HTTPHeaders"]) if "ResponseMetadata" in error.response else None
    response = cast(Mapping[str, object], error.response)
    status, message = response.get("OriginalStatusCode"), response.get("OriginalMessage")
    if code == "ModelError" and isinstance(status, int):
        return refused(vendor, status, message if isinstance(message, str) else "", retry_after_s=wait)
    if code == "ValidationError" and _ASLEEP in error.response["Error"].get("Message", ""):
        return NoCapacity(f"{vendor} has no copy of the model running; one is being started, which takes five to ten minutes")
    return BackendFailed(
        f"{vendor} answered {code}",
        safe_to_repeat=code in _DID_NO_WORK,
        nothing_done=code in _DID_NO_WORK | _REFUSED,
        retry_after_s=wait,
    )


def whole_seconds(timeout_s: float) -> float:
    """Time-outs belong to a client, so that there are as many clients as time-outs: rounded up, under a second they are
    as they are."""
    return timeout_s if timeout_s < 1 else float(math.ceil(timeout_s))


def runtime_client(timeout_s: float, session: boto3.Session | None = None) -> "SageMakerRuntimeClient":
    """A client that waits `timeout_s` for an answer, in the session's name or the process's own."""
    config = Config(connect_timeout=1, read_timeout=timeout_s, retries={"total_max_attempts": 1}, max_pool_connections=50)
    runtime: SageMakerRuntimeClient = (session or boto3).client("sagemaker-runtime", config=config)
    return runtime


_runtime = lru_cache(maxsize=32)(runtime_client)
