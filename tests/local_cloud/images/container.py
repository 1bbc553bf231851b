"""A container with SageMaker's hosting contract that answers with its request; it stands in for vLLM and starts at
once."""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

adapters = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *parts):
        pass

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200 if self.path == "/ping" else 404, {})

    def do_DELETE(self):
        self.answer(200 if adapters.pop(self.path.rpartition("/")[2], None) else 404, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/adapters":
            if Path(body["src"], "broken").exists():
                self.answer(400, {"error": "the adapter's rank is too large"})
                return
            adapters[body["name"]] = body["src"]
            self.answer(200, {})
        elif "exit" in body:
            print("no memory left for the cache", flush=True)
            os._exit(body["exit"])
        elif "fail" in body:
            self.answer(body["fail"], {"error": "asked to"})
        elif body.get("stream"):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (b"data: one\n\n", b"data: two\n\n", b"data: [DONE]\n\n"):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        else:
            adapter = self.headers.get("X-Amzn-SageMaker-Adapter-Identifier")
            model = sorted(path.name for path in Path(os.environ["SM_VLLM_MODEL"]).iterdir())
            self.answer(
                200,
                {"asked": body, "adapter": adapter, "loaded": sorted(adapters), "model": model, "settings": os.environ.get("SM_VLLM_X")},
            )


if os.environ.get("SM_VLLM_CRASH"):
    sys.exit("no memory left for the cache")
ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Handler).serve_forever()
