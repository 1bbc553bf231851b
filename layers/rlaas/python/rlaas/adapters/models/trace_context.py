"""The headers that a model's server gets from the request to RLaaS: the trace context, and how many gateways the
request has passed."""

import re

from rlaas.chat import ChatCall
from rlaas.wire import HOPS

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def traceparent(call: ChatCall) -> str | None:
    """The call's W3C `traceparent` if it is well-formed, else None: parts of it are the caller's, and it goes into a
    header of ours."""
    return call.traceparent if call.traceparent is not None and _TRACEPARENT.fullmatch(call.traceparent) else None


def trace_header(call: ChatCall) -> dict[str, str]:
    """The header `traceparent`, if the call has one."""
    trace = traceparent(call)
    return {"traceparent": trace} if trace else {}


def hops_header(hops: int) -> dict[str, str]:
    """The header that tells the next gateway that the request has passed `hops` gateways and this one."""
    return {HOPS: str(hops + 1)}


def context_headers(call: ChatCall) -> dict[str, str]:
    """Both headers, for servers that tenants name."""
    return {**trace_header(call), **hops_header(call.hops)}
