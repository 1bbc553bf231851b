"""The trace context that travels on to a model's server."""

import re

from rlaas.inference.backend import ChatCall

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent(call: ChatCall) -> str | None:
    """The call's W3C `traceparent`, if it is one: it comes from the caller's own header, and goes into ours."""
    return call.traceparent if call.traceparent is not None and _TRACEPARENT.fullmatch(call.traceparent) else None


def trace_header(call: ChatCall) -> dict[str, str]:
    """The header that carries it."""
    trace = traceparent(call)
    return {"traceparent": trace} if trace else {}
