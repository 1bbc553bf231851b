"""The SDK's exceptions. A client raises them only when it is `strict`."""

from __future__ import annotations


class RlaasError(Exception):
    """The base of every error of this SDK."""


class InvalidEvent(RlaasError, ValueError):
    """An event that the service would refuse: a field is missing, too large, or malformed."""


class NotConfigured(RlaasError):
    """No API URL or no key, neither as an argument nor in the environment."""


class EventDropped(RlaasError):
    """An event that the client did not take; `stats()` counts it under `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"event dropped: {reason}")
        self.reason = reason


class Undelivered(RlaasError):
    """Events still waited when a flush's time was over. They stay in the spool."""


class Refused(RlaasError):
    """The service refused events for good since the last flush; they are not sent again."""


class InferenceFailed(RlaasError):
    """The service gave no answer in time, or an error. `status` is the HTTP status, None where no response came."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class SpoolUnavailable(RlaasError):
    """The spool's file was busy for longer than `spool.BUSY_S`, is full, or cannot be opened."""
