"""What the registry says of each tenant, remembered for a moment."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from rlaas.clock import Clock

Value = TypeVar("Value")

REMEMBERED = timedelta(seconds=10)
"""How long it is remembered, and so how late a change of it may be heard."""


class Remembered(Generic[Value]):
    """What `read` says of each tenant, read again when it is older than `REMEMBERED`.

    cachetools' TTLCache is not worth a dependency in every function's layer: it calls no reader, so most of this would
    stay.
    """

    def __init__(self, read: Callable[[str], Value], *, clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._known: dict[str, tuple[datetime, Value]] = {}

    def of(self, tenant_id: str) -> Value:
        """What is known of the tenant. Raises: as `read` does."""
        now = self._clock()
        known = self._known.get(tenant_id)
        if known is None or now - known[0] > REMEMBERED:
            known = self._known[tenant_id] = (now, self._read(tenant_id))
        return known[1]
