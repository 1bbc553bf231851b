"""The back end's calls to RLaaS: they make a skill and its policy, a publishable key for the page, and drafts. Standard
library only."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

SKILL = "email-example"
PROMPT = {
    "system": "You answer customers' emails. Reply in a few friendly sentences that solve the problem.",
    "user": "From: {{ name }}\n\n{{ email }}",
}
KEY_LIFETIME = timedelta(days=1)


class Refused(Exception):
    """RLaaS answered with an error, or not at all (`status` 0)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Rlaas(NamedTuple):
    """RLaaS at `api_url`, called with the secret key, which never leaves the back end."""

    api_url: str
    secret_key: str

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """Send one request; the JSON object that RLaaS answers. Raises: Refused."""
        request = urllib.request.Request(
            f"{self.api_url}/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            method=method,
            headers={"Authorization": f"Bearer {self.secret_key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                result: dict[str, Any] = json.load(answer)
                return result
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode(errors="replace")) from error
        except (OSError, ValueError) as error:
            raise Refused(0, str(error)) from error

    def prepare(self) -> None:
        """Make the skill, one policy and the skill's route, where there is no route yet. Raises: Refused."""
        try:
            self.call("GET", f"admin/skills/{SKILL}/route")
        except Refused as refusal:
            if refusal.status != 404:
                raise
            self.call("PUT", f"admin/skills/{SKILL}", {"description": "Replies to the email example's inbox"})
            policy = self.call("POST", f"admin/skills/{SKILL}/policies", {"prompt": PROMPT, "sampling": {"max_tokens": 96}})
            route = {"expected_version": 0, "control": policy["policy_id"], "reason": "the email example's first policy"}
            self.call("PUT", f"admin/skills/{SKILL}/route", route)

    def publishable_key(self, origins: list[str]) -> str:
        """A key for pages of `origins`, which gives feedback on drafts whose token the page has, and expires after
        `KEY_LIFETIME`. Raises: Refused."""
        expires_at = (datetime.now(UTC) + KEY_LIFETIME).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {"scopes": ["telemetry"], "origins": origins, "expires_at": expires_at, "reason": "the email example's page"}
        return str(self.call("POST", "admin/keys", body)["api_key"])

    def draft(self, email: dict[str, str]) -> dict[str, str]:
        """A draft of the reply to `email`, as the page's hook takes it: the text, its id, and the token with which the
        page gives feedback on it. Raises: Refused."""
        inputs = {"name": email["name"], "email": f"{email['subject']}\n\n{email['body']}"}
        answer = self.call("POST", "infer", {"skill": SKILL, "inputs": inputs, "thread_id": f"email-{email['id']}"})
        return {"skill": SKILL, **{name: answer[name] for name in ("output_id", "text", "feedback_token")}}
