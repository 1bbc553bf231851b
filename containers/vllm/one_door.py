"""The only way to the model: SageMaker's hosting route, which answers with the adapter that SageMaker names in a
header, or with none.

On AWS only SageMaker reaches the container. Where others can reach its port too, RLAAS_HOSTING_KEY is set, and every
request must carry it: vLLM by itself would answer every page in every browser on the machine.

vLLM's own chat route answers with the model that the body names, which may be any tenant's loaded adapter. AWS does not
say which of the two routes its OpenAI-compatible path uses, so this middleware sends the chat route to the hosting
route.

All tenants of a stage share this server, through the gateway and through the grants of `/v1/decide`, and wait for each
other's requests. So a chat may have only those of vLLM's many fields that are named here. A schema or a tool's
arguments are compiled, so there are bounds on the parts that take llguidance long, as `make bench-grammars` measures:
counts of items and properties, divisors of numbers (`multipleOf`), and long texts. Patterns and lengths of texts take
it no time.
"""

import hmac
import json
import os
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from decimal import Decimal
from typing import Any

AsgiScope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[AsgiScope, Receive, Send], Awaitable[None]]

CHAT = "/v1/chat/completions"
INVOCATIONS = "/invocations"
KEY_HEADER = b"x-rlaas-hosting-key"
FIELDS = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "user", "safety_identifier", "metadata", "store", "service_tier"),
        *("max_tokens", "max_completion_tokens", "n", "stop", "seed", "logprobs", "top_logprobs", "logit_bias", "prompt_cache_key"),
        *("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"),
        *("tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort"),
    }
)
MOST = {"n": 16, "top_logprobs": 20}
MAX_BODY_BYTES = 6 * 1024 * 1024
"""The largest body that InvokeEndpoint takes."""
MAX_TOOLS = 128
MAX_STOPS = 16
MAX_BIASES = 300
MAX_SCHEMA_BYTES = 64 * 1024
"""The most bytes of all schemas of a request together, as JSON."""
MAX_COUNTED = 20_000
"""The most for all schemas together of the counts of items and properties, and the digits of each `multipleOf` read as
a whole number, added up."""
MAX_TEXT = 1_000
"""The most characters of a value, a name or a pattern in a schema."""
MAX_DEPTH = 64
_FORMATS = ("text", "json_object", "json_schema")
_COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties")
_NOT_COMPILED = frozenset({"description", "title", "$comment"})


class NotTaken(Exception):
    """A request has something that this server does not accept; `param` is the field."""

    def __init__(self, param: str | None, reason: str) -> None:
        super().__init__(reason)
        self.param = param


class ChatByInvocations:
    """ASGI middleware, for `vllm serve --middleware`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._key = os.environ.get("RLAAS_HOSTING_KEY", "").encode()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass the request on, a chat to the hosting route; answer 403 when the key is required and missing or wrong,
        and 400 to a chat that is not accepted."""
        if self._key and scope["type"] != "lifespan" and not hmac.compare_digest(dict(scope["headers"]).get(KEY_HEADER, b""), self._key):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["type"] != "http" or scope["path"] not in (CHAT, INVOCATIONS):
            await self._app(scope, receive, send)
            return
        scope = {**scope, "path": INVOCATIONS, "raw_path": INVOCATIONS.encode()}
        try:
            body = check_chat(await _read_body(receive))
        except NotTaken as refusal:
            await _refuse(send, refusal)
            return
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive_checked() -> Any:
            return pending.pop() if pending else await receive()

        await self._app(scope, receive_checked, send)


def check_chat(body: bytes) -> bytes:
    """The chat in `body` (a JSON object), written anew without fields that are null, so that vLLM reads what was
    checked and nothing else. Raises: NotTaken, naming the field, for one that is not in `FIELDS` and for a value beyond
    its bound."""
    try:
        chat = json.loads(body)
    except (ValueError, RecursionError):
        raise NotTaken(None, "the body is not valid JSON") from None
    if not isinstance(chat, dict):
        raise NotTaken(None, "the body must be an object")
    chat = {name: value for name, value in chat.items() if value is not None}
    for name in chat:
        if name not in FIELDS:
            raise NotTaken(name[:64], "the stage's endpoint does not accept it")
    if not isinstance(chat.get("messages"), list):
        raise NotTaken("messages", "must be a list")
    for name, most in MOST.items():
        value = chat.get(name, 1)
        if type(value) is not int or not 0 <= value <= most:
            raise NotTaken(name, f"is a whole number up to {most}")
    _check_lists(chat)
    _check_schemas(chat)
    return json.dumps(chat, ensure_ascii=False).encode(errors="surrogatepass")


def _check_lists(chat: Mapping[str, Any]) -> None:
    for name, kind, most in (("stop", str | list, MAX_STOPS), ("tools", list, MAX_TOOLS), ("logit_bias", dict, MAX_BIASES)):
        value = chat.get(name)
        if value is None:
            continue
        if not isinstance(value, kind) or (len(value) > most and not isinstance(value, str)):
            raise NotTaken(name, f"has at most {most} entries")
    stops = chat.get("stop", [])
    if not all(isinstance(stop, str) and len(stop) <= 256 for stop in ([stops] if isinstance(stops, str) else stops)):
        raise NotTaken("stop", "may only have texts of at most 256 characters")


def _check_schemas(chat: Mapping[str, Any]) -> None:
    form = chat.get("response_format", {})
    if not isinstance(form, dict) or form.get("type", "text") not in _FORMATS:
        raise NotTaken("response_format", f"its type is one of {', '.join(_FORMATS)}")
    schemas = [("response_format", form)] + [("tools", tool) for tool in chat.get("tools", [])]
    size = count = 0
    for name, schema in schemas:
        size += len(json.dumps(schema))
        count += _count_things(schema, name)
        if size > MAX_SCHEMA_BYTES or count > MAX_COUNTED:
            raise NotTaken(name, f"its schemas have more than {MAX_SCHEMA_BYTES} bytes, or count more than {MAX_COUNTED} things in all")


def _count_things(part: object, name: str, *, depth: int = 0) -> int:
    """The sum of the counts and divisors in a schema. Raises: NotTaken, naming `name`, for a schema that is too deep or
    has too long a text."""
    if depth > MAX_DEPTH:
        raise NotTaken(name, f"is nested deeper than {MAX_DEPTH}")
    if isinstance(part, list):
        return sum(_count_things(item, name, depth=depth + 1) for item in part)
    if isinstance(part, str) and len(part) > MAX_TEXT:
        raise NotTaken(name, f"has a text of more than {MAX_TEXT} characters")
    if not isinstance(part, dict):
        return 0
    count = sum(_count_things(key, name) for key in part)
    for key, value in part.items():
        if key in _COUNTS and type(value) in (int, float):
            count += min(MAX_COUNTED + 1, abs(value))
        elif key == "multipleOf" and type(value) in (int, float):
            digits = "".join(map(str, Decimal(str(value)).as_tuple().digits)).rstrip("0")
            count += int(digits[:9] or "0")
        elif not (key in _NOT_COMPILED and isinstance(value, str)):
            count += _count_things(value, name, depth=depth + 1)
    return int(count)


async def _read_body(receive: Receive) -> bytes:
    content: bytes = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise NotTaken(None, "the request was broken off")
        content += message.get("body", b"")
        if len(content) > MAX_BODY_BYTES:
            raise NotTaken(None, f"the body is larger than {MAX_BODY_BYTES} bytes")
        if not message.get("more_body"):
            return content


async def _refuse(send: Send, refusal: NotTaken) -> None:
    error = {
        "message": f"{refusal.param or 'the request'}: {refusal}",
        "type": "invalid_request_error",
        "param": refusal.param,
        "code": None,
    }
    content = json.dumps({"error": error}).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 400,
            "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": content})
