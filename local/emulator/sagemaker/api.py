"""SageMaker's HTTP APIs: the control plane (JSON 1.1, checked against botocore's own model), the runtime's invocations,
and the OpenAI-compatible path."""

from __future__ import annotations

import asyncio
import base64
import datetime
import functools
import json
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import botocore.model
import botocore.session
import botocore.validate
import urllib3
from ministack import app
from ministack.core import concurrency, responses, router, sigv4
from ministack.services import lambda_svc

from local.emulator import door
from local.emulator.sagemaker import components, hosted, hosting, jobs
from local.emulator.sagemaker.errors import ApiError, describe_failure
from local.emulator.sagemaker.server import ADAPTER_HEADER, chunks

JsonObject = dict[str, Any]
Answer = tuple[int, dict[str, str], Any]

OPERATIONS: dict[str, Callable[[JsonObject], JsonObject]] = {
    **{
        f"{verb}{kind}Job": functools.partial(work, kind)
        for kind in ("Training", "Processing")
        for verb, work in (("Create", jobs.create), ("Describe", jobs.describe), ("Stop", jobs.stop), ("Delete", jobs.delete))
    },
    "ListTrainingJobs": functools.partial(jobs.list_summaries, "Training"),
    "ListProcessingJobs": functools.partial(jobs.list_summaries, "Processing"),
    "CreateModel": hosting.create_model,
    "DescribeModel": hosting.describe_model,
    "DeleteModel": hosting.delete_model,
    "CreateEndpointConfig": hosting.create_endpoint_config,
    "DescribeEndpointConfig": hosting.describe_endpoint_config,
    "DeleteEndpointConfig": hosting.delete_endpoint_config,
    "CreateEndpoint": hosting.create_endpoint,
    "DescribeEndpoint": hosting.describe_endpoint,
    "UpdateEndpoint": hosting.update_endpoint,
    "DeleteEndpoint": hosting.delete_endpoint,
    "ListEndpoints": hosting.list_endpoints,
    "CreateInferenceComponent": components.create_inference_component,
    "DescribeInferenceComponent": components.describe_inference_component,
    "ListInferenceComponents": components.list_inference_components,
    "UpdateInferenceComponent": components.update_inference_component,
    "UpdateInferenceComponentRuntimeConfig": components.update_inference_component_runtime_config,
    "DeleteInferenceComponent": components.delete_inference_component,
    "CreateModelPackageGroup": hosting.create_model_package_group,
    "DescribeModelPackageGroup": hosting.describe_model_package_group,
    "DeleteModelPackageGroup": hosting.delete_model_package_group,
}
INVOCATION = re.compile(r"^/endpoints/([^/]+)/(invocations|invocations-response-stream)$")
OPENAI = re.compile(r"^/endpoints/([^/]+)(?:/inference-components/([^/]+))?/openai/v1/chat/completions$")
TOKEN_PREFIX = "sagemaker-api-key-"
TOKEN_HOST = "sagemaker.amazonaws.com"
PASSED_ON = {"content-type": "Content-Type", "accept": "Accept", "x-amzn-sagemaker-custom-attributes": "X-Amzn-SageMaker-Custom-Attributes"}


@functools.cache
def _model() -> botocore.model.ServiceModel:
    return botocore.session.get_session().get_service_model("sagemaker")


def coerce(value: Any, shape: Any) -> Any:
    """`value` with the number types of the API's model: templates hold numbers as strings, JSONata makes every number a
    float."""
    if shape is None:
        return value
    if shape.type_name == "structure" and isinstance(value, Mapping):
        return {key: coerce(inner, shape.members.get(key)) for key, inner in value.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [coerce(inner, shape.member) for inner in value]
    if shape.type_name == "map" and isinstance(value, Mapping):
        return {key: coerce(inner, shape.value) for key, inner in value.items()}
    if shape.type_name in ("integer", "long") and isinstance(value, (str, float)) and float(value).is_integer():
        return int(float(value))
    if shape.type_name in ("float", "double") and isinstance(value, str):
        return float(value)
    if shape.type_name == "boolean" and value in ("true", "false"):
        return value == "true"
    return value


def find_input_shape(operation: str) -> Any:
    """botocore's model of the operation's input."""
    return _model().operation_model(operation).input_shape


def call(operation: str, request: JsonObject) -> JsonObject:
    """One control plane operation, in this process; also what CloudFormation and Step Functions call.

    Raises: ApiError.
    """
    work = OPERATIONS.get(operation)
    if work is None:
        raise ApiError("UnknownOperationException", f"{operation} is not an operation of the local SageMaker")
    shape = find_input_shape(operation)
    request = coerce(request, shape)
    report = botocore.validate.ParamValidator().validate(request, shape)
    if report.has_errors():
        raise ApiError("ValidationException", report.generate_report())
    _check_patterns(request, shape, "")
    try:
        return work(request)
    except ApiError:
        raise
    except Exception as problem:
        raise ApiError("InternalFailure", describe_failure(operation, problem), 500) from problem


def _check_patterns(value: object, shape: Any, path: str) -> None:
    """Check names and URIs against the model's patterns, which botocore does not. Raises: ApiError."""
    if shape.type_name == "structure" and isinstance(value, Mapping):
        for key, inner in value.items():
            if key in shape.members:
                _check_patterns(inner, shape.members[key], f"{path}.{key}")
    elif shape.type_name == "list" and isinstance(value, list):
        for inner in value:
            _check_patterns(inner, shape.member, path)
    elif shape.type_name == "string" and isinstance(value, str):
        pattern, longest = shape.metadata.get("pattern"), shape.metadata.get("max")
        member = path.lstrip(".")
        if longest is not None and len(value) > longest:
            raise _constraint(value, member, f"Member must have length less than or equal to {longest}")
        if pattern and pattern.isascii() and "\\p" not in pattern and not re.fullmatch(pattern, value):
            raise _constraint(value, member, f"Member must satisfy regular expression pattern: {pattern}")


def _constraint(value: str, member: str, constraint: str) -> ApiError:
    return ApiError(
        "ValidationException", f"1 validation error detected: Value '{value}' at '{member}' failed to satisfy constraint: {constraint}"
    )


def _control(headers: Mapping[str, str], body: bytes) -> Answer:
    operation = headers.get("x-amz-target", "").rpartition(".")[2]
    try:
        return 200, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(call(operation, json.loads(body or b"{}"))).encode()
    except ApiError as problem:
        return (
            problem.status,
            {"Content-Type": "application/x-amz-json-1.1"},
            json.dumps({"__type": problem.code, "message": problem.message}).encode(),
        )


def _runtime_error(problem: ApiError) -> Answer:
    body = {"ErrorCode": problem.code, "Message": problem.message, **problem.fields}
    # Lower case, or ministack takes the container's content type for its own envelope's and rewrites it.
    return problem.status, {"content-type": "application/json", "x-amzn-ErrorType": problem.code}, json.dumps(body).encode()


def _invoke(endpoint: str, headers: Mapping[str, str], body: bytes, stream: bool) -> tuple[urllib3.BaseHTTPResponse, str]:
    server, adapter, variant = hosted.find_target(endpoint, headers.get("x-amzn-sagemaker-inference-component"))
    forwarded_headers = {name: headers[key] for key, name in PASSED_ON.items() if headers.get(key)}
    if adapter:
        forwarded_headers[ADAPTER_HEADER] = adapter
    return server.invoke(body, forwarded_headers, stream=stream), variant


async def _invoke_endpoint(endpoint: str, headers: Mapping[str, str], body: bytes) -> Answer:
    answer, variant = await concurrency.run_reentrant(_invoke, endpoint, headers, body, False, thread_name="invoke-endpoint")
    return (
        200,
        {"content-type": answer.headers.get("Content-Type", "application/json"), "x-Amzn-Invoked-Production-Variant": variant},
        answer.data,
    )


async def _invoke_streaming(endpoint: str, headers: Mapping[str, str], body: bytes) -> Answer:
    answer, variant = await concurrency.run_reentrant(_invoke, endpoint, headers, body, True, thread_name="invoke-endpoint-stream")
    loop = asyncio.get_running_loop()
    parts: asyncio.Queue[bytes | None] = asyncio.Queue()

    def read() -> None:
        try:
            for chunk in chunks(answer):
                frame = lambda_svc._es_encode_message(
                    {":event-type": "PayloadPart", ":content-type": "application/octet-stream", ":message-type": "event"}, chunk
                )
                loop.call_soon_threadsafe(parts.put_nowait, frame)
        except urllib3.exceptions.HTTPError as problem:
            document = json.dumps({"Message": str(problem), "ErrorCode": "ModelInvocationTimeExceeded"}).encode()
            frame = lambda_svc._es_encode_message(
                {":exception-type": "ModelStreamError", ":content-type": "application/json", ":message-type": "exception"}, document
            )
            loop.call_soon_threadsafe(parts.put_nowait, frame)
        finally:
            loop.call_soon_threadsafe(parts.put_nowait, None)

    async def send_all(send: Callable[[JsonObject], Awaitable[None]], receive: object) -> None:
        concurrency.spawn_background(read, thread_name="read-endpoint-stream")
        while (frame := await parts.get()) is not None:
            await send({"type": "http.response.body", "body": frame, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    answer_headers = {
        "content-type": "application/vnd.amazon.eventstream",
        "x-Amzn-SageMaker-Content-Type": answer.headers.get("Content-Type", "application/json"),
        "x-Amzn-Invoked-Production-Variant": variant,
    }
    return 200, answer_headers, responses.StreamingResponse(send_all)


async def _openai(endpoint: str, component: str | None, headers: Mapping[str, str], body: bytes) -> Answer:
    """The OpenAI-compatible path: a bearer token in place of a signature; the container's answer as it is, streamed
    where it streams."""
    try:
        lender = _token_lender(headers.get("authorization", ""))
        door.check_allowed(lender, "sagemaker:CallWithBearerToken", ["*"])
        _check_may_invoke(lender, endpoint, component)
    except door.Refused as refusal:
        return _openai_error(403, refusal.message)
    all_headers = {**headers, "x-amzn-sagemaker-inference-component": component} if component else headers
    try:
        answer, _ = await concurrency.run_reentrant(_invoke, endpoint, all_headers, body, True, thread_name="invoke-endpoint-openai")
    except ApiError as problem:
        return _openai_error(int(str(problem.fields.get("OriginalStatusCode") or problem.status)), problem.message)
    loop = asyncio.get_running_loop()
    parts: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        try:
            for chunk in chunks(answer):
                loop.call_soon_threadsafe(parts.put_nowait, chunk)
        finally:
            loop.call_soon_threadsafe(parts.put_nowait, b"")

    async def send_all(send: Callable[[JsonObject], Awaitable[None]], receive: object) -> None:
        concurrency.spawn_background(read, thread_name="read-endpoint-openai")
        while chunk := await parts.get():
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return 200, {"content-type": answer.headers.get("Content-Type", "application/json")}, responses.StreamingResponse(send_all)


def _check_may_invoke(access_key_id: str, endpoint: str, component: str | None) -> None:
    """Raises: door.Refused unless the key's holder may invoke the endpoint and, if one is named, the component; IAM has
    both in lower case."""
    resources = [f"endpoint/{endpoint}", *([f"inference-component/{component}"] if component else [])]
    home = f"arn:aws:sagemaker:{responses.get_region()}:{responses.get_account_id()}"
    door.check_allowed(access_key_id, "sagemaker:InvokeEndpoint", [f"{home}:{name}".lower() for name in resources])


def _token_lender(authorization: str) -> str:
    """The access key id of the credentials that signed a bearer token.

    Raises: door.Refused for a token of another form or action, one that has expired, and a wrong signature.
    """
    try:
        text = base64.b64decode(authorization.removeprefix("Bearer ").removeprefix(TOKEN_PREFIX), validate=True).decode()
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(f"https://{text}").query))
        signed_at = datetime.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
        expires_at = signed_at + datetime.timedelta(seconds=int(query["X-Amz-Expires"]))
    except (ValueError, KeyError):
        raise _bad_token("is invalid") from None
    if expires_at < datetime.datetime.now(datetime.UTC):
        raise _bad_token("has expired")
    query.pop("Version", None)  # added to what was signed
    signature = sigv4.parse_query_signature(query)
    if query.get("Action") != "CallWithBearerToken" or isinstance(signature, tuple) or not signature.signature.isascii():
        raise _bad_token("is invalid")
    secret = door.find_secret(signature.access_key_id, query.get("X-Amz-Security-Token", ""))
    headers = {"host": TOKEN_HOST}
    if sigv4.header_signature_failure(signature, secret, "POST", "/", query, headers, b"", presigned=True):
        raise _bad_token("is invalid")
    return str(signature.access_key_id)


def _bad_token(fault: str) -> door.Refused:
    return door.Refused("AccessDeniedException", f"The bearer token {fault}.")


def _signer(headers: Mapping[str, str]) -> str:
    """The id of the access key that a request was signed with; the door has checked the signature."""
    signature = sigv4.parse_header_signature(headers)
    return "" if isinstance(signature, tuple) else str(signature.access_key_id)


def _openai_error(status: int, message: str) -> Answer:
    return status, {"content-type": "application/json"}, json.dumps({"error": {"message": message, "code": status}}).encode()


async def handle_request(method: str, path: str, headers: Mapping[str, str], body: bytes, query: Mapping[str, Any]) -> Answer:
    """Every API's entry; ministack's handler signature."""
    openai = OPENAI.match(path)
    if openai:
        component = urllib.parse.unquote(openai[2]) if openai[2] else None
        return await _openai(urllib.parse.unquote(openai[1]), component, headers, body)
    invocation = INVOCATION.match(path)
    if not invocation:
        answer: Answer = await concurrency.run_reentrant(_control, headers, body, thread_name="sagemaker")
        return answer
    endpoint = urllib.parse.unquote(invocation[1])
    try:
        _check_may_invoke(_signer(headers), endpoint, headers.get("x-amzn-sagemaker-inference-component"))
        if invocation[2] == "invocations":
            return await _invoke_endpoint(endpoint, headers, body)
        return await _invoke_streaming(endpoint, headers, body)
    except ApiError as problem:
        return _runtime_error(problem)
    except door.Refused as refusal:
        return _runtime_error(ApiError(refusal.code, refusal.message, 403))


def install() -> None:
    """Hook in. A bearer token names no service, so OpenAI's path decides by itself."""
    detect = app.detect_service

    def detect_service(method: str, path: str, headers: JsonObject, query_params: JsonObject) -> str:
        return "sagemaker" if OPENAI.match(path) else str(detect(method, path, headers, query_params))

    app.detect_service = detect_service
    app.SERVICE_HANDLERS["sagemaker"] = handle_request
    router.SERVICE_PATTERNS["sagemaker"] = {
        "target_prefixes": ["SageMaker"],
        "credential_scope": "sagemaker",
        "host_patterns": [r"sagemaker"],
    }


def stop_all() -> None:
    """End every process of jobs and endpoints."""
    jobs.stop_all()
    hosted.stop_all()
