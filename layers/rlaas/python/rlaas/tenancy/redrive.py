"""Playing again what failed and was kept: what is asked, what came of it. All of a stage, so for the platform's
operators."""

from typing import Literal, Protocol

from pydantic import Field

from rlaas.clock import Timestamp
from rlaas.ids import new_id
from rlaas.tenancy.registry import Change, Registry, from_cursor, redrive_key, to_cursor
from rlaas.wire import WireModel

Place = Literal["batches", "calls", "shadows", "lake"]
"""Stream records that a consumer failed on; calls by EventBridge that failed; mirrored requests; what Firehose could
not write."""


class Left(WireModel):
    """Something that stays where it is kept, and why."""

    what: str
    why: str


class RedrivePage(WireModel):
    """What one page of a redrive came to. `superseded` were scheduled calls, which a later one has done the work of;
    they are dropped. `cursor` continues; without one nothing is left to try."""

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


def play_page(redriver: Redriver, registry: Registry, tenant_id: str, *, cursor: str | None, change: Change) -> RedrivePage:
    """One page of a redrive that an operator of `tenant_id` begins, or continues at `cursor`. The first is entered into
    the audit.

    Raises: InvalidInput for a cursor that no page gave out, DependencyUnavailable.
    """
    position = None if cursor is None else from_cursor(cursor, pattern=r"[0-9]{13} [a-z]+ .*")
    if position is None:
        redrive = Redrive(redrive_id=new_id("red"), started_at=change.at)
        registry.put(tenant_id, redrive_key(redrive.redrive_id), redrive, change)
    page = redriver.play(position)
    return page.model_copy(update={"cursor": None if page.cursor is None else to_cursor(page.cursor)})
