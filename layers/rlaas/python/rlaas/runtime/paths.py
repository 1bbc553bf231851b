"""The paths that API Gateway routes to functions, each with its methods, and what pages may read of answers."""

import re
from collections.abc import Mapping

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
EXPOSED_HEADERS = "Retry-After, X-Request-Id, Request-Id"
"""What pages may read of an answer's headers, apart from those that browsers show anyway."""


def tidy_path(path: str) -> str:
    """`path` without slashes in a row and at the end, which API Gateway does not mind."""
    return "/" + "/".join(part for part in path.split("/") if part)


def find_methods(path: str) -> tuple[str, ...]:
    """The methods of the operation at `path`; none where there is no operation."""
    sent_path = tidy_path(path)
    patterns = {re.sub(r"\{\w+\}", "[^/]+", template): methods for template, methods in METHODS.items()}
    return next((methods for pattern, methods in patterns.items() if re.fullmatch(pattern, sent_path)), ())
