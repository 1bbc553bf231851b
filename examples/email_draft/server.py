"""The back end: serves the page, gets drafts from RLaaS, and takes the replies, which a real back end would mail.
Standard library only.

RLAAS_API_URL=... RLAAS_API_KEY=rlk_... python examples/email_draft/server.py [--port 8080]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from drafting import SKILL, Refused, Rlaas

HERE = Path(__file__).resolve().parent
FILES = {"/": "index.html", "/app.js": "app.js", "/app.css": "app.css", "/app.js.map": "app.js.map"}
TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".map": "application/json"}
MAX_BODY_BYTES = 64 * 1024


class Inbox(ThreadingHTTPServer):
    """The server of the inbox; it listens on 127.0.0.1 only."""

    def __init__(self, port: int, rlaas: Rlaas) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.rlaas = rlaas
        self.emails = {email["id"]: email for email in json.loads((HERE / "emails.json").read_text())}
        self.replies: dict[str, str] = {}
        rlaas.prepare()
        self.hosts = [f"{host}:{self.server_port}" for host in ("127.0.0.1", "localhost")]
        here = [f"http://{host}" for host in self.hosts]
        # Everyone may read these, unlike the secret key.
        self.page_config = {"apiUrl": rlaas.api_url, "apiKey": rlaas.publishable_key(here), "skill": SKILL}


class Handler(BaseHTTPRequestHandler):
    """GET the page and `/api/inbox`; POST `/api/drafts` and `/api/replies`."""

    server: Inbox

    def parse_request(self) -> bool:
        """Refuse requests of other pages, which would get drafts at this inbox's cost: the `Origin` tells them, and the
        `Host` where another name was made to lead here (DNS rebinding)."""
        if not super().parse_request():
            return False
        origin = self.headers.get("Origin", f"http://{self.headers.get('Host')}")
        if self.headers.get("Host") in self.server.hosts and origin.removeprefix("http://") in self.server.hosts:
            return True
        self.close_connection = True
        self._answer(HTTPStatus.FORBIDDEN, {"error": "not a request of this page"})
        return False

    def do_GET(self) -> None:
        """Serve the page's files and, as JSON, what it shows."""
        if self.path == "/api/inbox":
            emails = [{**email, "reply": self.server.replies.get(id_)} for id_, email in self.server.emails.items()]
            self._answer(HTTPStatus.OK, {**self.server.page_config, "emails": emails})
        elif self.path in FILES:
            file = HERE / "dist" / FILES[self.path]
            self._send(HTTPStatus.OK, TYPES[file.suffix], file.read_bytes())
        else:
            self._answer(HTTPStatus.NOT_FOUND, {"error": "no such page"})

    def do_POST(self) -> None:
        """Get a draft for an email, or take the reply to it."""
        body = self._body()
        email = self.server.emails.get(str(body.get("email_id")))
        if email is None:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": "email_id must name an email"})
        elif self.path == "/api/drafts":
            try:
                self._answer(HTTPStatus.OK, self.server.rlaas.draft(email))
            except Refused as refusal:
                self.log_error("no draft: %s %s", refusal.status, refusal)
                self._answer(HTTPStatus.BAD_GATEWAY, {"error": "There is no draft right now."})
        elif self.path == "/api/replies" and isinstance(body.get("text"), str):
            self.server.replies[email["id"]] = body["text"]
            self._answer(HTTPStatus.CREATED, {})
        else:
            self._answer(HTTPStatus.BAD_REQUEST, {"error": "not a request of this page"})

    def _body(self) -> dict[str, Any]:
        """The request's JSON object; an empty one where the body is none or is longer than `MAX_BODY_BYTES`."""
        try:
            size = int(self.headers.get("Content-Length", "0"))
            body = json.loads(self.rfile.read(size)) if 0 < size <= MAX_BODY_BYTES else None
        except ValueError:
            body = None
        return body if isinstance(body, dict) else {}

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing: only errors are logged."""

    def log_error(self, format: str, *args: object) -> None:
        """Write to standard error."""
        print(format % args, file=sys.stderr)

    def _answer(self, status: HTTPStatus, body: object) -> None:
        self._send(status, "application/json", json.dumps(body).encode())

    def _send(self, status: HTTPStatus, content_type: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)


def main() -> int:
    """Serve until Ctrl-C; returns the process's exit status."""
    parser = argparse.ArgumentParser(description="An inbox whose replies RLaaS drafts.")
    parser.add_argument("--port", type=int, default=8080, help="8080; 0 for any that is free")
    parser.add_argument("--cloud", type=Path, help="the laptop cloud's record, in place of RLAAS_API_URL and RLAAS_API_KEY")
    arguments = parser.parse_args()
    try:
        cloud = json.loads(arguments.cloud.read_text()) if arguments.cloud else {}
        url, key = cloud.get("api_url") or os.environ["RLAAS_API_URL"], cloud.get("api_key") or os.environ["RLAAS_API_KEY"]
        server = Inbox(arguments.port, Rlaas(url.rstrip("/"), key))
    except KeyError as missing:
        print(f"set {missing.args[0]}; `make example` does", file=sys.stderr)
        return 2
    except (Refused, OSError) as problem:
        print(f"cannot start: {problem}", file=sys.stderr)
        return 1
    print(f"The email example is at http://127.0.0.1:{server.server_port} (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
