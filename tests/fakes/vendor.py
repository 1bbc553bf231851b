"""A vendor of OpenAI's chat API over real HTTP whose model needs no script: it calls the tools that it is given, reads
their results, fills schemas in, sees images, counts, and knows its limits."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.fakes.loopback import QuietHandler, serve_handler

Json = dict[str, Any]
MODEL = "stand-in-1"
CONTEXT = 100_000
"""Characters that fit into the model's context."""
CITIES = ("Oslo", "Rome", "Lima")
PERSON = {"string": "Ada Park", "integer": 36, "number": 36.5, "boolean": True, "null": None}
"""What the model puts where a schema says no more than a type."""


@contextmanager
def vendor_server() -> Iterator[str]:
    """The base URL of a vendor on a free port of the loopback, until the block ends."""
    with serve_handler(_Completions) as url:
        yield f"{url}/v1"


class _Completions(QuietHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        refused = _refuse(body)
        if refused is not None:
            self.answer(refused[0], json.dumps({"error": refused[1]}).encode())
        elif body.get("stream"):
            _send_stream(self, body)
        else:
            message = _answer(body)
            finish_reason = "tool_calls" if "tool_calls" in message else "stop"
            choice = {"index": 0, "message": message, "finish_reason": finish_reason, "logprobs": None}
            whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
            self.answer(200, json.dumps({**whole, "usage": _count(body, message)}).encode())


def _refuse(body: Json) -> tuple[int, Json] | None:
    """Status and error for a request that the vendor does not answer."""
    if body["model"] != MODEL:
        message = f"The model `{body['model']}` does not exist or you do not have access to it."
        return 404, {"message": message, "type": "invalid_request_error", "param": None, "code": "model_not_found"}
    size = len(json.dumps(body["messages"]))
    if size > CONTEXT:
        message = f"This model's maximum context length is {CONTEXT // 4} tokens. However, your messages resulted in {size // 4} tokens."
        error = {"message": f"{message} Please reduce the length of the messages.", "type": "invalid_request_error"}
        return 400, {**error, "param": "messages", "code": "context_length_exceeded"}
    return None


def _send_stream(request: BaseHTTPRequestHandler, body: Json) -> None:
    message = _answer(body)
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    request.send_response(200)
    for name, value in {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", "Connection": "close"}.items():
        request.send_header(name, value)
    request.end_headers()

    def send(data: str) -> None:
        event = f"data: {data}\n\n".encode()
        request.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    for delta, finish_reason in _pieces(message):
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        send(json.dumps({**head, "choices": [choice], "usage": None}))
    if (body.get("stream_options") or {}).get("include_usage"):
        send(json.dumps({**head, "choices": [], "usage": _count(body, message)}))
    send("[DONE]")
    request.wfile.write(b"0\r\n\r\n")


def _pieces(message: Json) -> Iterator[tuple[Json, str | None]]:
    """The message in deltas: a text word by word, each call's head and then its arguments in two halves."""
    yield {"role": "assistant", "content": None if "tool_calls" in message else ""}, None
    for word in re.findall(r"\s*\S+", message["content"] or ""):
        yield {"content": word}, None
    for index, call in enumerate(message.get("tool_calls", ())):
        arguments = call["function"]["arguments"]
        yield {"tool_calls": [{**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}]}, None
        for half in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": half}}]}, None
    yield {}, "tool_calls" if "tool_calls" in message else "stop"


def _answer(body: Json) -> Json:
    """The model's message."""
    asked = max(at for at, message in enumerate(body["messages"]) if message["role"] == "user")
    question = _text(body["messages"][asked])
    results = [_text(message) for message in body["messages"][asked + 1 :] if message["role"] == "tool"]
    functions = _call_functions(body, question, results)
    if functions:
        calls = [{"id": f"call_{at}_{len(body['messages'])}", "type": "function", "function": one} for at, one in enumerate(functions)]
        return {"role": "assistant", "content": None, "refusal": None, "tool_calls": calls}
    return {"role": "assistant", "content": _say(body, question, results), "refusal": None}


def _call_functions(body: Json, question: str, results: list[str]) -> list[Json]:
    """The functions that the model calls: the one that it must; else, before it has results, that for the weather of
    each city in the question."""
    functions = {tool["function"]["name"]: tool["function"] for tool in body.get("tools") or ()}
    choice = body.get("tool_choice", "auto")
    if choice == "none" or not functions:
        return []
    weather = next((name for name in functions if "weather" in name.lower()), None)
    cities = [city for city in CITIES if city in question]
    if weather and cities and not results and not isinstance(choice, dict):
        called = cities if body.get("parallel_tool_calls", True) else cities[:1]
        return [{"name": weather, "arguments": json.dumps({"city": city})} for city in called]
    if isinstance(choice, dict) or choice == "required":
        name = (
            choice["function"]["name"] if isinstance(choice, dict) else next(name for name in functions if name != weather or not results)
        )
        return [{"name": name, "arguments": json.dumps(_fill(functions[name].get("parameters") or {}))}]
    return []


def _say(body: Json, question: str, results: list[str]) -> str:
    """The model's text, in the form that was asked for."""
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return json.dumps(_fill(form["json_schema"]["schema"]))
    if form.get("type") == "json_object":
        return json.dumps({"name": PERSON["string"], "age": PERSON["integer"]})
    text = " ".join(results) if results else _describe(body["messages"])
    fields = re.findall(r"`\[\[ ## (\w+) ## \]\]`", question)  # how DSPy asks for several fields in one text
    if fields:
        schemas = re.findall(r"\{(\w+)\} +# note: .*JSON schema: (\{.*\})", "\n".join(map(_text, body["messages"])))
        values = {name: json.dumps(_fill(json.loads(schema))) for name, schema in schemas}
        return "\n\n".join(f"[[ ## {name} ## ]]\n{values.get(name, text) if name != 'completed' else ''}" for name in fields)
    return text


def _describe(messages: list[Json]) -> str:
    parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
    if any(part["type"] == "image_url" for part in parts):
        return "I see an image."
    if any(message["role"] == "assistant" for message in messages):
        return "As I said, your refund is on its way."
    return "Dear Ada, we are on it."


def _fill(schema: Json, root: Json | None = None) -> Any:
    """A value that fits a JSON schema."""
    root = schema if root is None else root
    if "$ref" in schema:
        target = root
        for step in schema["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        return _fill(target, root)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return _fill(schema[several][0], root)
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: _fill(one, root) for name, one in schema.get("properties", {}).items()}
    return [_fill(schema.get("items", {"type": "string"}), root)] if kind == "array" else PERSON[kind]


def _text(message: Json) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def _count(body: Json, message: Json) -> Json:
    """Usage, four characters a token."""
    prompt, said = len(json.dumps(body["messages"])) // 4, max(1, len(json.dumps(message)) // 4)
    return {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}
