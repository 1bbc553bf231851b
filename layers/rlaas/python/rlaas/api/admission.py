"""Which requests are let in: those of a known caller whose tenant, or whose page's key, has not sent too many in this second."""

from functools import cache

from rlaas.adapters.aws.rates import DynamoRates
from rlaas.api.http import Caller, Event, caller
from rlaas.clock import utc_now
from rlaas.errors import Forbidden
from rlaas.runtime.environment import RateEnvironment, environment
from rlaas.runtime.limits import limits
from rlaas.wire import MAX_HOPS


@cache
def rates() -> DynamoRates:
    """The tenants' rates, made on first use."""
    settings = environment(RateEnvironment)
    return DynamoRates(settings.counters_table, per_second=settings.tenant_requests_per_second, clock=utc_now)


def admitted(event: Event, *, events: int = 1) -> Caller:
    """The caller, whose request brings so many `events`. Raises: what `caller` does; Forbidden for a request that goes round;
    QuotaExceeded, DependencyUnavailable."""
    who = caller(event)
    if who.hops > MAX_HOPS:
        raise Forbidden(f"the request has passed {who.hops} gateways: a policy's backend leads back to one")
    at_most = limits(environment(RateEnvironment).registry_table).of(who.tenant_id).requests_per_second
    if who.publishable:
        rates().take_page(who.tenant_id, who.key_id, events=events, at_most=at_most)
    else:
        rates().take(who.tenant_id, at_most=at_most)
    return who
