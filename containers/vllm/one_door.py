"""One way to the model: SageMaker's hosting route, where the adapter is the one that SageMaker names in a header, or none.

On AWS nobody but SageMaker reaches the container. Where it stands on a port that others reach, too, RLAAS_HOSTING_KEY is set, and every
request must carry it: vLLM by itself answers every page of every browser on the machine.

vLLM's own chat route answers with whatever model the body names, which may be any tenant's adapter that is loaded. AWS does not say which
of the two its OpenAI-compatible path asks, so here the one leads to the other.
"""

import hmac
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

CHAT = "/v1/chat/completions"
INVOCATIONS = "/invocations"
KEY_HEADER = b"x-rlaas-hosting-key"


class ChatByInvocations:
    """ASGI middleware, for `vllm serve --middleware`."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._key = os.environ.get("RLAAS_HOSTING_KEY", "").encode()

    async def __call__(self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        """Pass the request on, a chat's to the hosting route; answer 403 without the key that is asked for."""
        if self._key and scope["type"] != "lifespan" and not hmac.compare_digest(dict(scope["headers"]).get(KEY_HEADER, b""), self._key):
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["type"] == "http" and scope["path"] == CHAT:
            scope = {**scope, "path": INVOCATIONS, "raw_path": INVOCATIONS.encode()}
        await self._app(scope, receive, send)
