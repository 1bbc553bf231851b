"""What the SDK raises, and only where it was asked to (`strict=True`)."""

from __future__ import annotations


class RlaasError(Exception):
    """The base of every error of this SDK."""


class InvalidEvent(RlaasError, ValueError):
    """An event that the service would refuse: a field is missing, too large, or not of its shape."""


class NotConfigured(RlaasError):
    """No API URL or no key, neither as an argument nor in the environment."""


class EventDropped(RlaasError):
    """An event that was not taken: `reason` is the name it is counted under in `stats()`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"event dropped: {reason}")
        self.reason = reason


class Undelivered(RlaasError):
    """Events that were still waiting when a flush's time was over. They stay in the spool."""


class Refused(RlaasError):
    """Events that the service refused for good since the last flush; they are not sent again."""


class InferenceFailed(RlaasError):
    """`/v1/infer` gave no answer in time, or an error. `status` is its HTTP status, None where none came."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class SpoolUnavailable(RlaasError):
    """The spool's file is busy for longer than the bound, full, or cannot be opened."""
