"""A server of OpenAI's chat API over real HTTP that answers by a script."""

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.loopback import QuietHandler, serve_handler

Part = dict[str, Any] | threading.Event
WAIT_S = 60.0
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


@dataclass
class Script:
    """The answers: `whole`, or `parts` one after the other; at an event among them the server waits until it is set. A
    `status` other than 200 refuses; with `breaks` the connection closes before the stream's end."""

    url: str
    whole: dict[str, Any] = field(default_factory=dict)
    parts: Sequence[Part] = ()
    status: int = 200
    breaks: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)

    def answer_with(self, *choices: dict[str, Any]) -> None:
        """From now on answer whole with these choices."""
        self.whole = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE}
        self.whole["choices"] = [{"index": index, "finish_reason": "stop", **choice} for index, choice in enumerate(choices)]

    def stream_parts(self, *parts: Part, breaks: bool = False) -> None:
        """From now on stream these choices, one a chunk, then the usage."""
        last: dict[str, Any] = {"choices": [], "usage": USAGE}
        chunks = [
            part if isinstance(part, threading.Event) else {"choices": [{"index": 0, "finish_reason": None, **part}]} for part in parts
        ]
        self.parts, self.breaks = (chunks if breaks else [*chunks, last]), breaks


@contextmanager
def serve_openai() -> Iterator[Script]:
    """Serve on a free port of the loopback until the block ends."""
    script = Script(url="")

    class Completions(QuietHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            script.requests.append(body)
            if script.status != 200:
                error = {"message": "not now", "type": "server_error", "param": None, "code": None}
                self.answer(script.status, json.dumps({"error": error}).encode())
            elif body.get("stream"):
                self._stream()
            else:
                self.answer(200, json.dumps(script.whole).encode())

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.send_header("Connection", "close")
            self.end_headers()
            for part in script.parts:
                if isinstance(part, threading.Event):
                    part.wait(WAIT_S)
                else:
                    self._event(json.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", **part}))
            if not script.breaks:
                self._event("[DONE]")
                self.wfile.write(b"0\r\n\r\n")

        def _event(self, data: str) -> None:
            event = f"data: {data}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

    with serve_handler(Completions) as url:
        script.url = f"{url}/v1"
        try:
            yield script
        finally:
            for part in script.parts:
                if isinstance(part, threading.Event):
                    part.set()
