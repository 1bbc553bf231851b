"""Each tenant's scrubber, from its settings in the registry."""

from rlaas.clock import Clock
from rlaas.privacy.scrub import EntityFinder, Scrubber
from rlaas.privacy.settings import TenantPrivacy
from rlaas.runtime.remembered import Remembered
from rlaas.tenancy.registry import PRIVACY, Registry


class Scrubbers:
    """Scrubbers by tenant; a scrubber is made again when its tenant's settings have changed."""

    def __init__(self, records: Registry, *, clock: Clock, finder: EntityFinder) -> None:
        self._privacy = Remembered(lambda tenant_id: records.get(TenantPrivacy, tenant_id, PRIVACY).record, clock=clock)
        self._finder = finder
        self._scrubbers: dict[str, Scrubber] = {}

    def of(self, tenant_id: str) -> Scrubber:
        """The tenant's scrubber. Raises: NotFound for a tenant that does not exist, DependencyUnavailable."""
        privacy = self._privacy.of(tenant_id)
        scrubber = self._scrubbers.get(tenant_id)
        if scrubber is None or scrubber.settings != privacy.settings:
            scrubber = Scrubber(settings=privacy.settings, salt=bytes.fromhex(privacy.salt), finder=self._finder)
            self._scrubbers[tenant_id] = scrubber
        return scrubber
