"""Each tenant's scrubber, from its settings in the registry."""

from datetime import datetime, timedelta

from rlaas.clock import Clock
from rlaas.privacy.scrub import EntityFinder, Scrubber
from rlaas.privacy.settings import TenantPrivacy
from rlaas.tenancy.registry import PRIVACY, Registry

REMEMBERED = timedelta(seconds=10)
"""How long settings are remembered, and so how late a change of them may be heard."""


class Scrubbers:
    """Scrubbers by tenant; a tenant's settings are read again when they are ten seconds old."""

    def __init__(self, records: Registry, *, clock: Clock, finder: EntityFinder) -> None:
        self._records = records
        self._clock = clock
        self._finder = finder
        self._known: dict[str, tuple[datetime, Scrubber]] = {}

    def of(self, tenant_id: str) -> Scrubber:
        """The tenant's scrubber. Raises: NotFound for a tenant that was never made, DependencyUnavailable."""
        now = self._clock()
        known = self._known.get(tenant_id)
        if known is None or now - known[0] > REMEMBERED:
            privacy = self._records.get(TenantPrivacy, tenant_id, PRIVACY).record
            if known is not None and known[1].settings == privacy.settings:
                known = (now, known[1])
            else:
                known = (now, Scrubber(settings=privacy.settings, salt=bytes.fromhex(privacy.salt), finder=self._finder))
            self._known[tenant_id] = known
        return known[1]
