"""API Gateway's response streaming: a Lambda proxy integration with `responseTransferMode` STREAM.

Stock ministack (services/apigateway_v1.py) drops the mode, cannot read such an integration's URI, and answers when the
function is done. Here the client gets the answer while the function writes it. As on AWS, a client that leaves does not
stop the function.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

from ministack.core import responses
from ministack.services import apigateway_v1
from ministack.services.cloudformation import provisioners

from local.emulator.lambda_runtime import streaming_to

STREAM = "STREAM"
JsonObject = dict[str, Any]


async def _invoke_proxy(integration: JsonObject, *arguments: Any, **options: Any) -> Any:
    """apigateway_v1._invoke_lambda_proxy_v1; a streaming integration's answer is sent on in parts, as they arrive."""
    if integration.get("responseTransferMode") != STREAM:
        return await _stock_invoke_proxy(integration, *arguments, **options)
    account, region = options.pop("owner_account_id"), options.pop("owner_region")
    event = apigateway_v1._build_lambda_event_v1(*arguments, **options)
    parts: asyncio.Queue[JsonObject | None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def put(part: JsonObject) -> None:
        loop.call_soon_threadsafe(parts.put_nowait, part)

    token = streaming_to.set(put)
    try:
        work = asyncio.create_task(apigateway_v1._call_lambda_raw(_function(integration["uri"]), event, account_id=account, region=region))
    finally:
        streaming_to.reset(token)
    work.add_done_callback(lambda _: parts.put_nowait(None))
    head = await parts.get()
    if head is None:
        return _nothing_streamed(*work.result())

    async def send_all(send: Callable[[JsonObject], Awaitable[None]], receive: object) -> None:
        while (part := await parts.get()) is not None:  # where no end comes, the client sees an answer that was cut off
            if part["status"] == "end":
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            await send({"type": "http.response.body", "body": base64.b64decode(part["data"]), "more_body": True})

    return head["statusCode"], head["headers"], responses.StreamingResponse(send_all)


def _nothing_streamed(result: JsonObject | None, error: str | None) -> Any:
    """The answer to an invocation that failed, or was refused, before it streamed anything."""
    if result is None:
        return apigateway_v1._gw_error("API_CONFIGURATION_ERROR", error or "Internal server error")
    answer, failure = apigateway_v1._lambda_proxy_response(result)
    if answer is None:
        return 502, {"Content-Type": "application/json"}, json.dumps({"message": failure}).encode()
    return answer["statusCode"], answer.get("headers") or {}, answer["body"].encode()


def _function(uri: str) -> str:
    """The function that a streaming integration's URI names."""
    return uri.partition("/functions/")[2].partition("/response-streaming-invocations")[0]


def _put_integration(api_id: str, resource_id: str, http_method: str, data: JsonObject) -> Any:
    """Stock's PutIntegration, which keeps the transfer mode."""
    answer = _stock_put_integration(api_id, resource_id, http_method, data)
    if answer[0] != 201:
        return answer
    integration = apigateway_v1._resources[api_id][resource_id]["resourceMethods"][http_method]["methodIntegration"]
    integration["responseTransferMode"] = data.get("responseTransferMode", "BUFFERED")
    return apigateway_v1._v1_response(integration, 201)


def _with_transfer_mode(provision: Callable[..., Any]) -> Callable[..., Any]:
    """CloudFormation's create or update of a method, with its integration's transfer mode."""

    def provision_with_mode(*arguments: Any) -> Any:
        answer = provision(*arguments)
        properties: JsonObject = arguments[-2]
        mode = (properties.get("Integration") or {}).get("ResponseTransferMode")
        if mode:
            methods = apigateway_v1._resources[properties["RestApiId"]][properties["ResourceId"]]["resourceMethods"]
            methods[properties["HttpMethod"]]["methodIntegration"]["responseTransferMode"] = mode
        return answer

    return provision_with_mode


def _invoke_mock(integration: JsonObject) -> Any:
    """Stock's answer of a mock integration, with an id in the place of `context.requestId`, which stock sends as a
    word."""
    status, headers, body = _stock_invoke_mock(integration)
    return status, {name: responses.new_uuid() if value == "context.requestId" else value for name, value in headers.items()}, body


_stock_invoke_mock = apigateway_v1._invoke_mock_v1
_stock_invoke_proxy = apigateway_v1._invoke_lambda_proxy_v1
_stock_put_integration = apigateway_v1._put_integration


def install() -> None:
    """Hook in."""
    apigateway_v1._invoke_lambda_proxy_v1 = _invoke_proxy
    apigateway_v1._put_integration = _put_integration
    apigateway_v1._invoke_mock_v1 = _invoke_mock
    handlers = provisioners._RESOURCE_HANDLERS["AWS::ApiGateway::Method"]
    handlers |= {way: _with_transfer_mode(handlers[way]) for way in ("create", "update")}
