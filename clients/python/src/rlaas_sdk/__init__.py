"""The Python SDK of RLaaS: reports what your users do with each answer, and keeps every report until it is
delivered."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from rlaas_sdk.client import AsyncClient, Client
from rlaas_sdk.delivery import Stats
from rlaas_sdk.errors import EventDropped, InferenceFailed, InvalidEvent, NotConfigured, Refused, RlaasError, Undelivered
from rlaas_sdk.inference import Answer

if TYPE_CHECKING:
    from rlaas_sdk.openai_tracing import Trace, trace_of, tracing

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "EventDropped",
    "InferenceFailed",
    "InvalidEvent",
    "NotConfigured",
    "Refused",
    "RlaasError",
    "Stats",
    "Trace",
    "Undelivered",
    "trace_of",
    "tracing",
    "wrap_openai",
]

_Wrapped = TypeVar("_Wrapped")
_default: Client | None = None


def wrap_openai(client: _Wrapped, *, skill: str, stream_usage: bool = False) -> _Wrapped:
    """Trace an `openai` client in one line, configured by RLAAS_API_URL and RLAAS_API_KEY; see Client.wrap_openai.
    Raises: InvalidEvent where `skill` is no skill's name."""
    global _default
    if _default is None:
        _default = Client()
    return _default.wrap_openai(client, skill=skill, stream_usage=stream_usage)


def __getattr__(name: str) -> object:
    if name in ("Trace", "trace_of", "tracing"):
        from rlaas_sdk import openai_tracing

        return getattr(openai_tracing, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
