"""OpenAI's chat completions and Responses API on loopback: an answer, a tool call, a stream with or without usage, or
an error, as the prompt says."""

import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": '{"order": 7}'}}
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


class StubOpenAI:
    """Keeps the bodies of the requests in `requests`."""

    def __init__(self) -> None:
        self.requests: list[dict[str, object]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.stub = self
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.stub.requests.append(request)
        messages = request.get("messages") or request["input"]
        prompt = messages if isinstance(messages, str) else str(messages[-1].get("content"))
        if prompt == "fail":
            self._send(400, "application/json", json.dumps({"error": {"message": "no", "code": "bad"}}))
        elif self.path.startswith("/v1/responses"):
            self._send_response(request, prompt)
        elif prompt == "break":
            self._send(200, "text/event-stream", f"data: {_build_chunks(request, prompt)[1]}\n\ndata: {{broken\n\n")
        elif request.get("stream"):
            self._send(200, "text/event-stream", "".join(f"data: {data}\n\n" for data in [*_build_chunks(request, prompt), "[DONE]"]))
        else:
            self._send(200, "application/json", json.dumps(_build_completion(request, prompt)))

    def _send_response(self, request: dict[str, object], prompt: str) -> None:
        response = _build_response(request, prompt)
        if not request.get("stream"):
            self._send(200, "application/json", json.dumps(response))
            return
        events = _build_events(response)
        self._send(200, "text/event-stream", "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events))

    def _send(self, status: int, kind: str, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


def _build_completion(request: dict[str, object], prompt: str) -> dict[str, object]:
    has_tools = prompt == "tool"
    message = {"role": "assistant", "content": None if has_tools else "Dear customer", **({"tool_calls": [TOOL_CALL]} if has_tools else {})}
    choices = [
        {"index": index, "finish_reason": "tool_calls" if has_tools else "stop", "message": message}
        for index in range(int(str(request.get("n", 1))))
    ]
    if prompt == "long":
        choices[0]["finish_reason"] = "length"
    return {
        "id": _make_id("chatcmpl"),
        "object": "chat.completion",
        "created": 1,
        "model": request["model"],
        "choices": choices,
        "usage": USAGE,
    }


def _build_chunks(request: dict[str, object], prompt: str) -> list[str]:
    identifier = "chatcmpl-1" if prompt == "same id" else _make_id("chatcmpl")

    def build_chunk(choices: list[dict[str, object]], **more: object) -> str:
        head = {"id": identifier, "object": "chat.completion.chunk", "created": 1, "model": request["model"]}
        return json.dumps({**head, "choices": choices, **more})

    def build_delta(**delta: object) -> str:
        return build_chunk([{"index": 0, "delta": delta, "finish_reason": None}])

    function = TOOL_CALL["function"]
    assert isinstance(function, dict)
    parts = [build_delta(role="assistant", content=""), build_delta(content="Dear "), build_delta(content="customer")]
    if prompt == "tool":
        parts = [
            build_delta(role="assistant", tool_calls=[{"index": 0, **TOOL_CALL, "function": {"name": "find_order", "arguments": ""}}]),
            build_delta(tool_calls=[{"index": 0, "function": {"arguments": function["arguments"]}}]),
        ]
    parts.append(build_chunk([{"index": 0, "delta": {}, "finish_reason": "tool_calls" if prompt == "tool" else "stop"}]))
    options = request.get("stream_options")
    return [*parts, build_chunk([], usage=USAGE)] if isinstance(options, dict) and options.get("include_usage") else parts


def _build_response(request: dict[str, object], prompt: str) -> dict[str, object]:
    call = {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", **TOOL_CALL["function"]}
    content = [{"type": "output_text", "text": "Dear customer", "annotations": []}]
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}
    is_long, is_running = prompt == "long", prompt == "later"
    return {
        "id": _make_id("resp"),
        "object": "response",
        "created_at": 1,
        "model": request["model"],
        "status": "incomplete" if is_long else "queued" if is_running else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if is_long else None,
        "output": [] if is_running else [{"id": "rs_1", "type": "reasoning", "summary": []}, call if prompt == "tool" else message],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 11,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 3,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 14,
        },
    }


def _build_events(response: dict[str, object]) -> list[dict[str, object]]:
    reasoning, item = response["output"]
    place = {"output_index": 1, "item_id": item["id"]}
    empty_item = {**item, "content": []} if item["type"] == "message" else {**item, "arguments": ""}
    events = [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": [], "usage": None}},
        {"type": "response.output_item.added", "output_index": 0, "item": reasoning},
        {"type": "response.output_item.done", "output_index": 0, "item": reasoning},
        {"type": "response.output_item.added", "output_index": 1, "item": empty_item},
    ]
    if item["type"] == "message":
        part = {"content_index": 0, **place}
        events += [
            {"type": "response.content_part.added", **part, "part": {"type": "output_text", "text": "", "annotations": []}},
            {"type": "response.output_text.delta", **part, "delta": "Dear ", "logprobs": []},
            {"type": "response.output_text.delta", **part, "delta": "customer", "logprobs": []},
            {"type": "response.output_text.done", **part, "text": "Dear customer", "logprobs": []},
        ]
    else:
        events.append({"type": "response.function_call_arguments.delta", **place, "delta": item["arguments"]})
    events.append({"type": "response.output_item.done", "output_index": 1, "item": item})
    events.append({"type": f"response.{response['status']}", "response": response})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _make_id(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"
