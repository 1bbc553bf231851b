"""OpenAI's chat completions on loopback: an answer, a tool call, a stream with or without usage, or an error, as the
prompt says."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": '{"order": 7}'}}
USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


class StubOpenAI:
    """Keeps the bodies of the requests in `requests`."""

    def __init__(self) -> None:
        self.requests: list[dict[str, object]] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.server.daemon_threads = True
        self.server.stub = self  # type: ignore[attr-defined]
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
        self.server.stub.requests.append(request)  # type: ignore[attr-defined]
        prompt = str(request["messages"][-1]["content"])
        if prompt == "fail":
            self._send(400, "application/json", json.dumps({"error": {"message": "no", "code": "bad"}}))
        elif request.get("stream"):
            self._send(200, "text/event-stream", "".join(f"data: {data}\n\n" for data in [*_build_chunks(request, prompt), "[DONE]"]))
        else:
            self._send(200, "application/json", json.dumps(_build_completion(request, prompt)))

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
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": request["model"], "choices": choices, "usage": USAGE}


def _build_chunks(request: dict[str, object], prompt: str) -> list[str]:
    def build_chunk(choices: list[dict[str, object]], **more: object) -> str:
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": request["model"]}
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
