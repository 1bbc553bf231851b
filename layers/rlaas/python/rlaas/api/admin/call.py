"""One call of the admin API: the services, who calls, and what is read from the raw event."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, TypeVar

from fastapi import Depends, Query, Request
from pydantic import BaseModel, Field

from rlaas.api.admin.services import Services
from rlaas.api.http import Caller, GatewayEvent, header, parse
from rlaas.errors import InvalidInput
from rlaas.learning.adapter_upkeep import ensure_loaded
from rlaas.metering.ceilings import Ceilings, find_ceilings
from rlaas.policies.bundle import Policy
from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import TenantPrivacy
from rlaas.privacy.texts import scrub_models
from rlaas.tenancy.create_key import Maker
from rlaas.tenancy.keys import Scope, require_scope
from rlaas.tenancy.registry import PRIVACY, Change, find_record
from rlaas.wire import check_idempotency_key

Model = TypeVar("Model", bound=BaseModel)
REASON = Field(default="by the admin API", min_length=1, max_length=500)
"""Why a mutation is made, as its entry in the audit says."""
_IN_FORCE = frozenset(
    """
    tenant_id policy_id scopes origins cursor actions allow custom phone_regions budgets spending prices reward metrics prompt sampling
    guardrails base_model adapter backend fallbacks price control arms unit bandit settings
    """.split()
)
"""Fields that RLaaS acts by, word for word: ids, settings, prompts. Everything else in a request is only stored."""


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One request to the admin API: the services, who calls, and the raw event."""

    services: Services
    who: Caller
    event: GatewayEvent

    @property
    def tenant_id(self) -> str:
        """The caller's tenant."""
        return self.who.tenant_id

    @property
    def actor(self) -> str:
        """The caller, as the audit names it."""
        return f"key:{self.who.key_id}"

    @property
    def maker(self) -> Maker:
        """The caller's key, as one that makes keys."""
        return Maker(self.who.tenant_id, self.who.key_id)

    def body(self, model: type[Model]) -> Model:
        """The request's body. Personal data that patterns find in reasons, descriptions and other fields that are only
        stored is masked. Raises: InvalidInput naming the field."""
        [clean] = scrub_models([parse(model, self.event)], self._build_scrubber(), exempt=_IN_FORCE)
        return clean

    def ceilings(self) -> Ceilings:
        """What the platform lets the caller's tenant have."""
        return find_ceilings(self.services.records, self.tenant_id).record

    def load(self, policy: Policy, param: str) -> None:
        """Make sure that the adapters of `policy` are loaded. Raises: as `ensure_loaded`, naming `param`."""
        here = self.services
        ensure_loaded(policy, here.adapters, endpoint=here.endpoint, param=param, most=self.ceilings().adapters)

    def change(self, reason: str) -> Change:
        """A change by the caller, now."""
        return Change(actor=self.actor, reason=reason, at=self.services.clock())

    def request_name(self, kind: str, *scope: str) -> str | None:
        """The name, unique to the tenant and `scope`, that the request's `Idempotency-Key` stands for; `None` without
        one. Raises: InvalidInput."""
        key = header(self.event, "Idempotency-Key")
        if key is None:
            return None
        check_idempotency_key(key)
        return "/".join((kind, self.tenant_id, *scope, key))

    def _build_scrubber(self) -> Scrubber:
        """A scrubber with the tenant's settings, by patterns alone: no model is asked to find names here."""
        privacy = find_record(self.services.records, TenantPrivacy, self.tenant_id, PRIVACY).record
        return Scrubber(privacy.settings, salt=bytes.fromhex(privacy.salt)).by_patterns


@dataclass(frozen=True, slots=True)
class Access:
    """How calls are let in: `services` is called once per request, and `caller` says who calls, or raises a refusal."""

    services: Callable[[], Services]
    caller: Callable[[GatewayEvent], Caller]

    def call(self, request: Request, *scopes: Scope) -> ApiCall:
        """The call of a caller that holds one of `scopes`. Raises: Unauthorized; Forbidden, naming the last of them."""
        event = read_gateway_event(request)
        who = self.caller(event)
        require_scope(who.scopes, next((scope for scope in scopes if scope in who.scopes), scopes[-1]))
        return ApiCall(self.services(), who, event)


def read_gateway_event(request: Request) -> GatewayEvent:
    """API Gateway's event, as Mangum hands it on."""
    event = request.scope.get("aws.event")
    return event if isinstance(event, dict) else {}


def _admit_admin(request: Request) -> ApiCall:
    access: Access = request.app.state.access
    return access.call(request, "admin")


def _admit_platform(request: Request) -> ApiCall:
    access: Access = request.app.state.access
    return access.call(request, "platform")


def _admit_either(request: Request) -> ApiCall:
    access: Access = request.app.state.access
    return access.call(request, "platform", "admin")


AdminCall = Annotated[ApiCall, Depends(_admit_admin)]
PlatformCall = Annotated[ApiCall, Depends(_admit_platform)]
EitherCall = Annotated[ApiCall, Depends(_admit_either)]
PageLimit = Annotated[int, Query(ge=1, le=1000)]
FirstDay = Annotated[date, Query(alias="from")]
LastDay = Annotated[date, Query(alias="to")]
_MOST_DAYS = 93


def check_days(first: date, last: date) -> None:
    """Check the days of a report. Raises: InvalidInput for days that are too many or in the wrong order."""
    if not 0 <= (last - first).days < _MOST_DAYS:
        raise InvalidInput(f"from is not after to, and they are less than {_MOST_DAYS} days apart", param="to")
