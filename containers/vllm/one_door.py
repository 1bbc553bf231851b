"""One way to the model: SageMaker's hosting route, where the adapter is the one that SageMaker names in a header, or none.

vLLM's own chat route answers with whatever model the body names, which may be any tenant's adapter that is loaded. AWS does not say which
of the two its OpenAI-compatible path asks, so here the one leads to the other.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

CHAT = "/v1/chat/completions"
INVOCATIONS = "/invocations"


class ChatByInvocations:
    """ASGI middleware, for `vllm serve --middleware`."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        """Pass the request on, a chat's to the hosting route."""
        if scope["type"] == "http" and scope["path"] == CHAT:
            scope = {**scope, "path": INVOCATIONS, "raw_path": INVOCATIONS.encode()}
        await self._app(scope, receive, send)
