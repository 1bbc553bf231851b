"""Which requests are let in: those of a known caller whose tenant, or whose page's key, has not sent too many in this
second."""

from rlaas.api.http import Caller, GatewayEvent, caller
from rlaas.errors import Forbidden
from rlaas.runtime.stage import current_stage, import_ahead
from rlaas.wire import MAX_HOPS

import_ahead("adapters.aws.rates", "adapters.aws.registry", "metering.ceilings")


def admit_caller(event: GatewayEvent, *, events: int = 1) -> Caller:
    """The caller of a request that brings `events` events. Raises: as `caller`; Forbidden for a request that has passed
    more gateways than `MAX_HOPS`; QuotaExceeded, DependencyUnavailable."""
    who = caller(event)
    if who.hops > MAX_HOPS:
        raise Forbidden(f"the request has passed {who.hops} gateways: a policy's backend leads back to one")
    stage = current_stage()
    at_most = stage.limits.of(who.tenant_id).requests_per_second
    if who.publishable:
        stage.rates.take_page(who.tenant_id, who.key_id, events=events, at_most=at_most)
    else:
        stage.rates.take(who.tenant_id, at_most=at_most)
    return who
