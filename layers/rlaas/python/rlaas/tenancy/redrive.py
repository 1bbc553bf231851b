"""Playing again what failed and was kept: what is asked, what came of it. All of a stage, so for the platform's operators."""

from typing import Literal, Protocol

from pydantic import Field

from rlaas.clock import Timestamp
from rlaas.wire import WireModel

Place = Literal["batches", "calls", "shadows", "lake"]
"""Stream records that a consumer failed on; calls by EventBridge that failed; mirrored requests; what Firehose could not write."""


class Left(WireModel):
    """Something that stays where it is kept, and why."""

    what: str
    why: str


class RedrivePage(WireModel):
    """What one page of a redrive came to. `superseded` were scheduled calls, which a later one has done the work of; they are dropped.
    `cursor` continues; without one nothing is left to try."""

    handled: int = Field(default=0, ge=0)
    superseded: int = Field(default=0, ge=0)
    left: tuple[Left, ...] = ()
    cursor: str | None = None


class Redrive(WireModel):
    """A redrive somebody began; its entry in the audit is its record."""

    redrive_id: str
    started_at: Timestamp


class Redriver(Protocol):
    """Plays again what is kept. Two at once do no harm: whatever is played twice is handled once."""

    def waiting(self) -> dict[Place, int]:
        """How much is kept where, counted up to 10,000. Raises: DependencyUnavailable."""
        ...

    def play(self, cursor: str | None) -> RedrivePage:
        """Some seconds of work after `cursor`, on what was kept before the first page began.

        Raises: InvalidInput, DependencyUnavailable.
        """
        ...
