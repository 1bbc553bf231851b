"""Playing failed work again: what it may be and what a page of it answers. It covers a whole stage, so only the
platform's operators may."""

from typing import Literal, Protocol

from pydantic import Field

from rlaas.clock import Timestamp
from rlaas.ids import new_id
from rlaas.tenancy.registry import Change, Registry, decode_cursor, encode_cursor, redrive_key
from rlaas.wire import WireModel

FailedWorkKind = Literal["batches", "calls", "shadows", "lake"]
"""Where failed work is kept: stream records that a consumer could not handle, failed calls by EventBridge, mirrored
requests, and events that Firehose could not write."""


class Left(WireModel):
    """A piece of work that stays where it is kept, and why."""

    what: str
    why: str


class RedrivePage(WireModel):
    """The result of one page of a redrive. `superseded` counts scheduled calls that were dropped because a later call
    did their work. `cursor` continues the redrive; without one, all work was tried."""

    handled: int = Field(default=0, ge=0)
    superseded: int = Field(default=0, ge=0)
    left: tuple[Left, ...] = ()
    cursor: str | None = None


class Redrive(WireModel):
    """A redrive that an operator started; its record is its entry in the audit."""

    redrive_id: str
    started_at: Timestamp


class Redriver(Protocol):
    """Plays failed work again. Two redrives at the same time do no harm: work that is played twice is handled once."""

    def count_waiting(self) -> dict[FailedWorkKind, int]:
        """How many pieces of work each place keeps, counted up to 10,000. Raises: DependencyUnavailable."""
        ...

    def play(self, cursor: str | None) -> RedrivePage:
        """Some seconds of work after `cursor`, only on what was kept before the first page started.

        Raises: InvalidInput, DependencyUnavailable.
        """
        ...


def play_page(redriver: Redriver, registry: Registry, tenant_id: str, *, cursor: str | None, change: Change) -> RedrivePage:
    """One page of a redrive that an operator of `tenant_id` starts, or continues at `cursor`. The first page is
    entered into the audit.

    Raises: InvalidInput for a cursor that no page gave out, DependencyUnavailable.
    """
    position = None if cursor is None else decode_cursor(cursor, pattern=r"[0-9]{13} [a-z]+ .*")
    if position is None:
        redrive = Redrive(redrive_id=new_id("red"), started_at=change.at)
        registry.put(tenant_id, redrive_key(redrive.redrive_id), redrive, change)
    page = redriver.play(position)
    return page.model_copy(update={"cursor": None if page.cursor is None else encode_cursor(page.cursor)})
