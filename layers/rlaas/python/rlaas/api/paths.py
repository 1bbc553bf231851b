"""The paths that API Gateway routes to functions, each with its methods, and what is said of every other request."""

import re
from collections.abc import Mapping
from typing import NoReturn

from rlaas.api.http import GatewayEvent
from rlaas.errors import MethodNotAllowed, NotFound

TELEMETRY_PATHS = (
    "/v1/interaction.create",
    "/v1/interaction.output",
    "/v1/feedback.submit",
    "/v1/feedback.token",
    "/v1/task_result",
    "/v1/events:batch",
)
INFERENCE_PATHS = ("/v1/infer", "/v1/decide", "/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/{key}")
MODEL_PATHS = ("/v1/models", "/v1/models/{model}")
CHAT_PATHS = ("/v1/chat/completions", "/v1/responses")
MESSAGES_PATHS = ("/v1/messages", "/v1/messages/count_tokens")
ABSENT_PATHS = ("/v1/responses/{proxy+}",)
"""What OpenAI's APIs have and RLaaS has not; a function says what there is."""
ADMIN_PATHS = ("/v1/admin/{proxy+}",)
OTHER_PATHS = ("/{proxy+}",)
"""Whatever no other path takes, and methods that a path does not have."""
READING, WRITING = ("GET", "HEAD"), ("POST",)
METHODS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((*TELEMETRY_PATHS, *INFERENCE_PATHS, *CHAT_PATHS, *MESSAGES_PATHS), WRITING),
    **dict.fromkeys(MODEL_PATHS, READING),
}
"""The methods of each path that is an operation, apart from those of the admin API."""
_PATTERNS = {path: re.compile(re.sub(r"\{\w+\}", "[^/]+", path)) for path in METHODS}


def tidy_path(path: str) -> str:
    """`path` without slashes in a row and at the end, which API Gateway does not mind."""
    return "/" + "/".join(part for part in path.split("/") if part)


def refuse_request(event: GatewayEvent) -> NoReturn:
    """Say why there is nothing to answer a request that came to `OTHER_PATHS`. Raises: MethodNotAllowed where its path
    has other methods, else NotFound naming the paths that there are."""
    sent_path = tidy_path(str(event.get("path")))
    for path, pattern in _PATTERNS.items():
        if pattern.fullmatch(sent_path) and event.get("httpMethod") not in METHODS[path]:
            raise MethodNotAllowed(METHODS[path])
    raise NotFound(f"there is nothing at this path, but at {', '.join((*METHODS, '/v1/admin/...'))}")
