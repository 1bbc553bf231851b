"""A value of each tenant from the registry, remembered for some seconds."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from rlaas.clock import Clock

Value = TypeVar("Value")

REMEMBERED = timedelta(seconds=10)
"""How long a value is remembered, and so how long a change of it may take to have effect."""


class Remembered(Generic[Value]):
    """The value that `read` returns for each tenant, read again when it is older than `REMEMBERED`.

    cachetools' TTLCache is not worth a dependency in every function's layer: it does not read values itself, so most of
    this code would stay.
    """

    def __init__(self, read: Callable[[str], Value], *, clock: Clock) -> None:
        self._read = read
        self._clock = clock
        self._cache: dict[str, tuple[datetime, Value]] = {}

    def of(self, tenant_id: str) -> Value:
        """The tenant's value. Raises: as `read` does."""
        now = self._clock()
        entry = self._cache.get(tenant_id)
        if entry is None or now - entry[0] > REMEMBERED:
            entry = self._cache[tenant_id] = (now, self._read(tenant_id))
        return entry[1]
