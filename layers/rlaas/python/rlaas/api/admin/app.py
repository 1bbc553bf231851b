"""The admin API: a tenant's keys, budgets, skills, policies, routes, learning runs, rollouts, audit; and, for the platform, its tenants.

FastAPI behind Mangum. Bodies are read by the same `parse` as every other endpoint's, so errors have the one shape and name the field.
Every mutation may be repeated: what has a name is put once under it, equal policies are one policy, keys, runs and rollouts take an id from
the `Idempotency-Key`, and a route is replaced at `expected_version`.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import Annotated, Protocol, TypeVar, get_args

from aws_lambda_powertools import Logger
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, JsonValue, ValidationError, field_validator
from starlette.exceptions import HTTPException

from rlaas.api.http import Caller, Event, error_body, header, internal_error_body, parse, request_id, retry_after, status_of
from rlaas.clock import Clock, rfc3339
from rlaas.errors import Conflict, DependencyUnavailable, InvalidInput, NotFound, QuotaExceeded, RlaasError, Unauthorized
from rlaas.evaluation.reward_report import report_rewards
from rlaas.ids import MetricName, PolicyId, TenantId, base_component, derived_id, new_id
from rlaas.learning.adapter_upkeep import ADAPTERS_OF_A_RUN, Adapters, check_adapters, ensure_loaded
from rlaas.learning.runs import Dataset, LearningRun, LearningSettings, fail_run, request_run
from rlaas.metering.budgets import BUDGETS, Budgets, Cap, Limit, ceiling_counter, stored_budgets, window_end, window_start
from rlaas.metering.ceilings import CEILINGS, Ceilings, check_ceiling, limits_of, stored_ceilings
from rlaas.metering.ledger import Counters, Item, count, standing
from rlaas.metering.prices import ModelName, Price, PriceTable, append_prices, current_prices, prices_at, usd
from rlaas.policies.allowed_models import EVERY_MODEL, AllowedModels, check_models
from rlaas.policies.backend import BackendSpec, SageMakerBackend
from rlaas.policies.bundle import (
    AdapterRef,
    Policy,
    PolicyArchive,
    PolicyBundle,
    Sampling,
    SecretHosts,
    check_components,
    check_secrets,
    differences,
)
from rlaas.policies.guardrails.settings import Guardrails
from rlaas.policies.policy_store import Policies, archive_key
from rlaas.policies.prompt_graph import AnyPrompt, graph_of
from rlaas.policies.render_prompt import check as check_prompt
from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import PrivacySettings, TenantPrivacy, check_custom
from rlaas.privacy.texts import scrubbed
from rlaas.rollout.conduct import Conductor, Guards, take_back
from rlaas.rollout.request import request_rollout
from rlaas.rollout.steps import Rollout, RolloutSettings
from rlaas.rollout.trial import TrialState, TrialStore
from rlaas.rollout.trial_evidence import TrialEvidence
from rlaas.routing.bandit_settings import BanditSettings
from rlaas.routing.route import MOST_ARMS, MOST_SHADOWS, Arm, ArmMode, Route, Unit
from rlaas.routing.route_store import Routes
from rlaas.runtime.log import refused as tell_refused
from rlaas.runtime.state_machines import settings_of
from rlaas.skills.skill import Metric, RewardSpec, Skill
from rlaas.telemetry.pending import orphaned_at, still_pending
from rlaas.telemetry.store import EventStore, StoredEvent
from rlaas.telemetry.usage import Group, Tally, UsageStore, grouped
from rlaas.tenancy.audit import AuditEntry, AuditLog, Contents, Newest, verify_chain
from rlaas.tenancy.keys import ApiKey, KeySource, KeyTerms, check_gives, check_revokes, make_key, require_scope
from rlaas.tenancy.redrive import Redrive, Redriver
from rlaas.tenancy.registry import (
    PRIVACY,
    TENANT,
    Change,
    Document,
    Page,
    Registry,
    Stored,
    from_cursor,
    key_key,
    redrive_key,
    rollout_key,
    run_key,
    skill_key,
    to_cursor,
)
from rlaas.tenancy.tenant import Tenant
from rlaas.wire import Json, WireModel, invalid_input

logger = Logger(service="rlaas")

Model = TypeVar("Model", bound=BaseModel)
Reply = dict[str, JsonValue]
_IN_FORCE = frozenset(
    """
    tenant_id policy_id scopes origins cursor actions allow custom phone_regions budgets spending prices reward metrics prompt sampling
    guardrails base_model adapter backend fallbacks price control arms unit bandit settings
    """.split()  # noqa: SIM905
)
"""Fields that something is done by, word for word: ids, settings, prompts. All else of a request is only kept."""
_NAME_REASON = Field(default="by the admin API", min_length=1, max_length=500)
_AUDIT_PAGE = 1000
_AUDIT_LAG = timedelta(minutes=10)
"""How long after a change its entry may be missing: then an alarm says that the audit stands still."""
_MOST_DAYS = 93


class Documents(Registry, Routes, Policies, KeySource, Contents, Protocol):
    """Everything the registry's adapter serves."""


class Tenants(Protocol):
    """All tenants, for the platform."""

    def list(self, *, limit: int, cursor: str | None) -> Page[Tenant]:
        """Some tenants in no particular order. Raises: InvalidInput on a bad cursor."""
        ...


class Executions(Protocol):
    """Starts executions of one state machine."""

    def start(self, name: str, payload: dict[str, JsonValue]) -> None:
        """Start the execution `name` once. Raises: DependencyUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What the admin API works with. The settings are the stage's, under those that a request gives."""

    documents: Documents
    tenants: Tenants
    events: EventStore
    audit: AuditLog
    guards: Guards
    trials: TrialStore
    counters: Counters
    usage: UsageStore
    learning: Executions
    rollout: Executions
    adapters: Adapters
    redriver: Redriver
    clock: Clock
    endpoint: str
    base_model: str
    learning_settings: dict[str, JsonValue]
    rollout_settings: dict[str, JsonValue]
    secrets: SecretHosts
    allowed: AllowedModels = EVERY_MODEL


class TenantRequest(WireModel):
    """A tenant to make."""

    tenant_id: TenantId
    name: Annotated[str, Field(max_length=200)] = ""
    metadata: dict[str, Json] = Field(default_factory=dict)


class KeyRequest(KeyTerms):
    """A key to make; `tenant_id` names another tenant than the caller's, for which the scope `platform` is needed."""

    tenant_id: TenantId | None = None
    reason: str = _NAME_REASON


class SkillRequest(WireModel):
    """What a skill is to be."""

    description: Annotated[str, Field(max_length=2000)] = ""
    reward: RewardSpec = RewardSpec()
    metrics: dict[MetricName, Metric] = Field(default_factory=dict, max_length=100)
    metadata: dict[str, Json] = Field(default_factory=dict)
    reason: str = _NAME_REASON


class PolicyRequest(WireModel):
    """A policy to register. Left out, the base model and the backend are the stage's own."""

    prompt: AnyPrompt
    sampling: Sampling = Sampling()
    guardrails: Guardrails = Guardrails()
    base_model: str | None = None
    adapter: AdapterRef | None = None
    backend: BackendSpec | None = None
    fallbacks: tuple[BackendSpec, ...] = Field(default=(), max_length=4)
    price: Price | None = None
    reason: str = _NAME_REASON


class ArchiveRequest(WireModel):
    """Whether a policy is archived."""

    archived: bool
    reason: str = _NAME_REASON


class ArmRequest(WireModel):
    """An arm of a route; see `Arm`."""

    policy_id: PolicyId
    mode: ArmMode
    weight: float = Field(ge=0, le=1)
    cap: Cap | None = None


class RouteRequest(WireModel):
    """The route to put in place of version `expected_version` (0: there is none yet). `unit` is fixed by the first.

    `bandit` is how arms of mode `bandit` get their weights, which the request only begins with; left out, it stays as it is. A weight for
    an arm that the bandit's guards dropped lets it back in.
    """

    expected_version: int = Field(ge=0)
    control: PolicyId
    arms: tuple[ArmRequest, ...] = Field(default=(), max_length=MOST_ARMS)
    unit: Unit | None = None
    bandit: BanditSettings | None = None
    reason: str = _NAME_REASON

    @field_validator("arms")
    @classmethod
    def _have_few_shadows(cls, arms: tuple[ArmRequest, ...]) -> tuple[ArmRequest, ...]:
        if (shadows := sum(arm.mode == "shadow" for arm in arms)) > MOST_SHADOWS:
            raise ValueError(f"{shadows} arms are shadows, and at most {MOST_SHADOWS} may be")
        return arms


class LearningRunRequest(WireModel):
    """A learning run to start; `settings` as in `LearningSettings`."""

    settings: dict[str, Json] = Field(default_factory=dict)
    reason: str = _NAME_REASON


class RolloutRequest(WireModel):
    """A rollout of `policy_id` to start; `settings` as in `RolloutSettings`. A `dryrun` answers with the plan, also with one that cannot
    conclude, and starts nothing."""

    policy_id: PolicyId
    settings: dict[str, Json] = Field(default_factory=dict)
    reason: str = _NAME_REASON
    dryrun: bool = False


class RollbackRequest(WireModel):
    """Why a skill goes back to its last good route."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


class PrivacyRequest(PrivacySettings):
    """The settings to put in place of version `expected_version`."""

    expected_version: int = Field(ge=1)
    reason: str = _NAME_REASON


class BudgetsRequest(Budgets):
    """The budgets to put in place of version `expected_version` (0: there are none yet)."""

    expected_version: int = Field(ge=0)
    reason: str = _NAME_REASON


class CeilingsRequest(Ceilings):
    """The ceilings to put in place of version `expected_version` (0: there are none yet)."""

    expected_version: int = Field(ge=0)
    reason: str = _NAME_REASON


class PricesRequest(WireModel):
    """The prices to follow version `expected_version` (0: there are none yet)."""

    prices: dict[ModelName, Price] = Field(max_length=500)
    expected_version: int = Field(ge=0)
    reason: str = _NAME_REASON


class RedriveRequest(WireModel):
    """A page of a redrive; `cursor` is the page's before. A `dryrun` says how much is kept where, and plays nothing."""

    cursor: Annotated[str, Field(max_length=500)] | None = None
    dryrun: bool = False
    reason: str = _NAME_REASON


BODIES: tuple[type[BaseModel], ...] = (
    TenantRequest,
    KeyRequest,
    PrivacyRequest,
    BudgetsRequest,
    CeilingsRequest,
    PricesRequest,
    SkillRequest,
    PolicyRequest,
    ArchiveRequest,
    RouteRequest,
    LearningRunRequest,
    RolloutRequest,
    RollbackRequest,
    RedriveRequest,
)
"""What the mutations take."""


@dataclass(frozen=True, slots=True)
class Admin:
    """One request: the services, who calls, and the raw event."""

    services: Services
    who: Caller
    event: dict[str, object]

    @property
    def tenant_id(self) -> str:
        """The caller's tenant."""
        return self.who.tenant_id

    def body(self, model: type[Model]) -> Model:
        """The request's body, without what patterns find of personal data in reasons, descriptions and whatever else is only kept. Raises:
        InvalidInput naming the field."""
        [clean] = scrubbed([parse(model, self.event)], self._scrubber(), kept=_IN_FORCE)
        return clean

    def _scrubber(self) -> Scrubber:
        """What the tenant wants done with personal data; nobody is asked for names here."""
        try:
            privacy = self.services.documents.get(TenantPrivacy, self.tenant_id, PRIVACY).document
        except NotFound:
            privacy = TenantPrivacy()
        return Scrubber(privacy.settings, salt=bytes.fromhex(privacy.salt)).by_patterns

    def key(self) -> ApiKey:
        """The caller's key as it is now. Raises: Unauthorized for one that was revoked since API Gateway last asked."""
        key = self.services.documents.find_key(self.who.key_id)
        if key is None or key.revoked_at is not None:
            raise Unauthorized("the API key was revoked")
        return key

    def ceilings(self) -> Ceilings:
        """What the platform lets the caller's tenant have."""
        return stored_ceilings(self.services.documents, self.tenant_id).document

    def may_learn(self) -> None:
        """Count one more learning run of the tenant. Raises: QuotaExceeded where a ceiling is reached."""
        here, ceilings = self.services, self.ceilings()
        check_adapters(here.adapters, self.tenant_id, endpoint=here.endpoint, most=ceilings.adapters, more=ADAPTERS_OF_A_RUN)
        most = ceilings.learning_runs_per_day
        if most is None:
            return
        wait = count(here.counters, self.tenant_id, "learning-runs", most=most, now=here.clock())
        if wait is not None:
            told = f"the platform's ceiling for this tenant is {most} learning runs a day (UTC): wait, or ask its operators for more"
            raise QuotaExceeded(told, retry_after_s=wait)

    def change(self, reason: str) -> Change:
        """A change by the caller, now."""
        return Change(actor=f"key:{self.who.key_id}", reason=reason, at=self.services.clock())

    def id_for(self, kind: str, *scope: str) -> str | None:
        """What the request's `Idempotency-Key` stands for; `None` when it has none."""
        key = header(self.event, "Idempotency-Key")
        if key is None:
            return None
        if not key.isascii() or not key.isprintable() or not 1 <= len(key) <= 255:
            raise InvalidInput("an Idempotency-Key has 1 to 255 printable ASCII characters", param="Idempotency-Key")
        return "/".join((kind, self.tenant_id, *scope, key))


def admin_app(services: Callable[[], Services], caller: Callable[[Event], Caller]) -> FastAPI:
    """The application; `services` is called once per request, and `caller` says who calls, or refuses him."""
    app = FastAPI(title="RLaaS admin API", version="1", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    _map_errors(app)

    def admin(request: Request) -> Admin:
        event = _event(request)
        who = caller(event)
        require_scope(who.scopes, "admin")
        return Admin(services(), who, event)

    def platform(request: Request) -> Admin:
        event = _event(request)
        who = caller(event)
        require_scope(who.scopes, "platform")
        return Admin(services(), who, event)

    def tenant_or_platform(request: Request) -> Admin:
        event = _event(request)
        who = caller(event)
        require_scope(who.scopes, "platform" if "platform" in who.scopes else "admin")
        return Admin(services(), who, event)

    admin_call = Annotated[Admin, Depends(admin)]
    platform_call = Annotated[Admin, Depends(platform)]
    either_call = Annotated[Admin, Depends(tenant_or_platform)]
    limit_of = Annotated[int, Query(ge=1, le=1000)]

    # Tenants

    @app.post("/v1/admin/tenants", openapi_extra=_takes(TenantRequest))
    def create_tenant(call: platform_call) -> JSONResponse:
        request = call.body(TenantRequest)
        change = call.change("tenant made")
        tenant = Tenant(**request.model_dump(), created_at=change.at)
        with suppress(Conflict):
            call.services.documents.put(tenant.tenant_id, PRIVACY, TenantPrivacy(), change)
        try:
            call.services.documents.put(tenant.tenant_id, TENANT, tenant, change)
        except Conflict:
            held = call.services.documents.get(Tenant, tenant.tenant_id, TENANT).document
            if held.model_copy(update={"created_at": tenant.created_at}) != tenant:
                raise Conflict(f"there is another tenant {tenant.tenant_id!r}", param="tenant_id") from None
            return _replayed(held)
        return _created(tenant)

    @app.get("/v1/admin/tenants")
    def list_tenants(call: platform_call, limit: limit_of = 100, cursor: str | None = None) -> JSONResponse:
        page = call.services.tenants.list(limit=limit, cursor=cursor)
        return _page([_dump(stored.document) for stored in page.items], page.cursor)

    @app.get("/v1/admin/tenants/{tenant_id}/ceilings")
    def get_ceilings(call: platform_call, tenant_id: str) -> JSONResponse:
        """The most that the tenant may have, and the version to change it at. Needs the scope `platform`."""
        _known_tenant(call, tenant_id)
        held = stored_ceilings(call.services.documents, tenant_id)
        return _answer(200, {**_dump(held.document), "version": held.version})

    @app.put("/v1/admin/tenants/{tenant_id}/ceilings", openapi_extra=_takes(CeilingsRequest))
    def put_ceilings(call: platform_call, tenant_id: str) -> JSONResponse:
        """In force for every request from ten seconds on; the tenant's own administrators read them and cannot lift them. Needs the scope
        `platform`."""
        request = call.body(CeilingsRequest)
        _known_tenant(call, tenant_id)
        held = stored_ceilings(call.services.documents, tenant_id)
        ceilings = Ceilings(**{name: getattr(request, name) for name in Ceilings.model_fields})
        if held.document == ceilings and held.version > 0:
            return _answer(200, {**_dump(ceilings), "version": held.version, "idempotent_replay": True})
        expected, change = request.expected_version, call.change(request.reason)
        try:
            version = call.services.documents.replace(tenant_id, CEILINGS, ceilings, expected_version=expected, change=change)
        except Conflict:
            raise Conflict(f"the ceilings are no longer at version {expected}", param="expected_version") from None
        return _answer(200, {**_dump(ceilings), "version": version, "idempotent_replay": False})

    @app.post("/v1/admin/redrives", openapi_extra=_takes(RedriveRequest))
    def redrive(call: platform_call) -> JSONResponse:
        """Play again what failed and is kept, of all tenants, some seconds' worth; the first page is entered into the audit."""
        request, here = call.body(RedriveRequest), call.services
        if request.dryrun:
            return _answer(200, {"waiting": {str(place): count for place, count in here.redriver.waiting().items()}})
        cursor = None if request.cursor is None else from_cursor(request.cursor, pattern=r"[0-9]{13} [a-z]+ .*")
        if cursor is None:
            change = call.change(request.reason)
            document = Redrive(redrive_id=new_id("red"), started_at=change.at)
            here.documents.put(call.tenant_id, redrive_key(document.redrive_id), document, change)
        page = here.redriver.play(cursor)
        return _answer(200, {**_dump(page), "cursor": None if page.cursor is None else to_cursor(page.cursor)})

    # Keys

    @app.post("/v1/admin/keys", openapi_extra=_takes(KeyRequest))
    def create_key(call: either_call) -> JSONResponse:
        request = call.body(KeyRequest)
        if request.tenant_id not in (None, call.tenant_id):
            require_scope(call.who.scopes, "platform")
            call.services.documents.get(Tenant, str(request.tenant_id), TENANT)
        check_gives(call.key(), request)
        change = call.change(request.reason)
        key, text = make_key(
            tenant_id=request.tenant_id or call.tenant_id,
            scopes=request.scopes,
            created_at=change.at,
            expires_at=request.expires_at,
            origins=request.origins,
        )
        named = call.id_for("key")
        if named is not None:
            key, text = _under_id(key, text, derived_id("dec", named).removeprefix("dec_").lower())
        try:
            call.services.documents.create_key(key, change)
        except Conflict:
            held = call.services.documents.get(ApiKey, key.tenant_id, key_key(key.key_id)).document
            if (held.scopes, held.expires_at, held.origins) != (key.scopes, key.expires_at, key.origins):
                raise Conflict("this Idempotency-Key made another key", param="Idempotency-Key") from None
            return _answer(200, {**_public(held), "api_key": None, "idempotent_replay": True})
        return _answer(201, {**_public(key), "api_key": text, "idempotent_replay": False})

    @app.get("/v1/admin/keys")
    def list_keys(call: admin_call, limit: limit_of = 100, cursor: str | None = None) -> JSONResponse:
        page = call.services.documents.list(ApiKey, call.tenant_id, key_key(""), limit=limit, cursor=cursor)
        return _page([_public(stored.document) for stored in page.items], page.cursor)

    @app.delete("/v1/admin/keys/{key_id}")
    def revoke_key(call: either_call, key_id: str) -> JSONResponse:
        """A key of the caller's tenant; a platform key revokes any tenant's."""
        key = call.services.documents.find_key(key_id)
        if key is None or (key.tenant_id != call.tenant_id and "platform" not in call.who.scopes):
            raise NotFound(f"there is no key {key_id!r}", param="key_id")
        check_revokes(call.key(), key)
        return _answer(200, _public(call.services.documents.revoke_key(key.tenant_id, key_id, call.change("revoked"))))

    # Privacy

    @app.get("/v1/admin/privacy")
    def get_privacy(call: admin_call) -> JSONResponse:
        """What is done with each kind of personal data, and the version to change it at."""
        held = call.services.documents.get(TenantPrivacy, call.tenant_id, PRIVACY)
        return _answer(200, {**_dump(held.document.settings), "version": held.version})

    @app.put("/v1/admin/privacy", openapi_extra=_takes(PrivacyRequest))
    def put_privacy(call: admin_call) -> JSONResponse:
        """In force for every event that comes in from ten seconds on; what is stored stays as it is."""
        request = call.body(PrivacyRequest)
        held = call.services.documents.get(TenantPrivacy, call.tenant_id, PRIVACY)
        settings = PrivacySettings(**{name: getattr(request, name) for name in PrivacySettings.model_fields})
        check_custom(settings)
        if held.document.settings == settings:
            return _answer(200, {**_dump(settings), "version": held.version, "idempotent_replay": True})
        changed = held.document.model_copy(update={"settings": settings})
        version = call.services.documents.replace(
            call.tenant_id, PRIVACY, changed, expected_version=request.expected_version, change=call.change(request.reason)
        )
        return _answer(200, {**_dump(settings), "version": version, "idempotent_replay": False})

    # Money

    @app.get("/v1/admin/budgets")
    def get_budgets(call: admin_call) -> JSONResponse:
        """Every budget, and the version to change them at; and the platform's ceilings, which only the platform changes."""
        held = stored_budgets(call.services.documents, call.tenant_id)
        return _answer(200, {**_dump(held.document), "version": held.version, "ceilings": _dump(call.ceilings())})

    @app.put("/v1/admin/budgets", openapi_extra=_takes(BudgetsRequest))
    def put_budgets(call: admin_call) -> JSONResponse:
        """In force for every request from ten seconds on. What was spent stays counted, under other names and limits too."""
        request = call.body(BudgetsRequest)
        held = stored_budgets(call.services.documents, call.tenant_id)
        budgets = Budgets(budgets=request.budgets)
        if held.document == budgets and held.version > 0:
            return _answer(200, {**_dump(budgets), "version": held.version, "idempotent_replay": True})
        expected = request.expected_version
        try:
            version = call.services.documents.replace(
                call.tenant_id, BUDGETS, budgets, expected_version=expected, change=call.change(request.reason)
            )
        except Conflict:
            raise Conflict(f"the budgets are no longer at version {expected}", param="expected_version") from None
        return _answer(200, {**_dump(budgets), "version": version, "idempotent_replay": False})

    @app.get("/v1/admin/budgets/usage")
    def get_budgets_usage(call: admin_call) -> JSONResponse:
        """What the window of each budget and each of the platform's ceilings has spent, how much of that is only set aside for requests in
        flight, and when the next one begins."""
        now = call.services.clock()
        item = call.services.counters.read(call.tenant_id)
        limits = limits_of(call.services.documents, call.tenant_id)
        return _answer(
            200,
            {
                "data": [_spending(budget, budget.counter, item, now) for budget in limits.budgets],
                "ceilings": [_spending(limit, ceiling_counter(limit), item, now) for limit in limits.spending],
            },
        )

    @app.get("/v1/admin/prices")
    def get_prices(call: admin_call, version: Annotated[int | None, Query(ge=1)] = None) -> JSONResponse:
        """The newest prices, or those of a version: `price_version` of an output says which were its own."""
        here = call.services.documents
        table = current_prices(here, call.tenant_id) if version is None else prices_at(here, call.tenant_id, version)
        return _answer(200, _dump(table))

    @app.put("/v1/admin/prices", openapi_extra=_takes(PricesRequest))
    def put_prices(call: admin_call) -> JSONResponse:
        """A new version, for every request from ten seconds on; what was answered before keeps its cost."""
        request = call.body(PricesRequest)
        held = current_prices(call.services.documents, call.tenant_id)
        if held.prices == request.prices and held.version > 0:
            return _answer(200, {**_dump(held), "idempotent_replay": True})
        table = PriceTable(version=request.expected_version + 1, prices=request.prices)
        append_prices(call.services.documents, call.tenant_id, table, call.change(request.reason))
        return _answer(200, {**_dump(table), "idempotent_replay": False})

    @app.get("/v1/admin/usage")
    def get_usage(
        call: admin_call,
        first: Annotated[date, Query(alias="from")],
        last: Annotated[date, Query(alias="to")],
        group_by: str = "",
    ) -> JSONResponse:
        """Requests, tokens and cost of the days (UTC) `from` to `to`, both included, by any of day, skill, policy, key (with commas)."""
        by = _groups(group_by)
        _check_days(first, last)
        sums = grouped(call.services.usage.between(call.tenant_id, first, last), by)
        return _answer(200, {"data": [_usage(names, tally) for names, tally in sums]})

    # Skills

    @app.get("/v1/admin/skills")
    def list_skills(call: admin_call, limit: limit_of = 100, cursor: str | None = None) -> JSONResponse:
        return _documents(call, Skill, skill_key(""), limit, cursor, newest_first=False)

    @app.put("/v1/admin/skills/{skill}", openapi_extra=_takes(SkillRequest))
    def put_skill(call: admin_call, skill: str) -> JSONResponse:
        request = call.body(SkillRequest)
        change = call.change(request.reason)
        key = skill_key(skill)
        try:
            held = call.services.documents.get(Skill, call.tenant_id, key)
        except NotFound:
            made = _skill(call.tenant_id, skill, request, change.at)
            if (most := call.ceilings().skills) is not None:
                check_ceiling(most, len(_every(call.services.documents, Skill, call.tenant_id, skill_key(""))), "skills")
            call.services.documents.put(call.tenant_id, key, made, change)
            return _created(made)
        changed = _skill(call.tenant_id, skill, request, held.document.created_at)
        if changed == held.document:
            return _replayed(changed)
        call.services.documents.replace(call.tenant_id, key, changed, expected_version=held.version, change=change)
        return _answer(200, _dump(changed))

    @app.get("/v1/admin/skills/{skill}")
    def get_skill(call: admin_call, skill: str) -> JSONResponse:
        return _answer(200, _dump(_known_skill(call, skill)))

    # Policies

    @app.post("/v1/admin/skills/{skill}/policies", openapi_extra=_takes(PolicyRequest))
    def create_policy(call: admin_call, skill: str) -> JSONResponse:
        _known_skill(call, skill)
        request = call.body(PolicyRequest)
        prompt = graph_of(request.prompt)
        check_prompt(prompt)
        here = call.services
        bundle = PolicyBundle(
            base_model=request.base_model or here.base_model,
            adapter=request.adapter,
            prompt=prompt,
            sampling=request.sampling,
            guardrails=request.guardrails,
            backend=request.backend or SageMakerBackend(endpoint=here.endpoint, component=base_component(here.endpoint)),
            fallbacks=request.fallbacks,
            price=request.price,
        )
        check_components(bundle, call.tenant_id, endpoint=here.endpoint)
        check_models(bundle, here.allowed)
        check_secrets(bundle, call.tenant_id, here.secrets)
        digest = bundle.digest()
        policies = _every(here.documents, Policy, call.tenant_id, f"POLICY#{skill}#")
        for stored in policies:
            if stored.document.sha256 == digest:
                return _replayed(stored.document)
        check_ceiling(call.ceilings().policies_per_skill, len(policies), "policies of a skill")
        change = call.change(request.reason)
        number = here.documents.next_number(call.tenant_id, skill, "policy")
        policy = Policy.of(bundle, tenant_id=call.tenant_id, skill=skill, version=number, created_at=change.at)
        here.documents.put_policy(policy, change)
        return _created(policy)

    @app.get("/v1/admin/skills/{skill}/policies")
    def list_policies(call: admin_call, skill: str, limit: limit_of = 100, cursor: str | None = None) -> JSONResponse:
        return _documents(call, Policy, f"POLICY#{skill}#", limit, cursor)

    @app.get("/v1/admin/skills/{skill}/policies/{policy_id}")
    def get_policy(call: admin_call, skill: str, policy_id: str) -> JSONResponse:
        return _answer(200, {**_dump(_policy_of(call, skill, policy_id)), "archived": _archived(call, policy_id)})

    @app.get("/v1/admin/skills/{skill}/policies/{policy_id}/diff")
    def diff_policies(call: admin_call, skill: str, policy_id: str, against: str) -> JSONResponse:
        """What of the bundle `against` was changed to make `policy_id`, field by field."""
        ours, theirs = _policy_of(call, skill, policy_id), _policy_of(call, skill, against, param="against")
        changes = [{"path": change.path, "from": change.before, "to": change.after} for change in differences(theirs, ours)]
        return _answer(200, {"policy_id": policy_id, "against": against, "changes": [*changes]})

    @app.put("/v1/admin/skills/{skill}/policies/{policy_id}/archived", openapi_extra=_takes(ArchiveRequest))
    def archive_policy(call: admin_call, skill: str, policy_id: str) -> JSONResponse:
        """An archived policy stays readable and cannot be routed to; one that a route names or would go back to cannot be archived."""
        request = call.body(ArchiveRequest)
        _policy_of(call, skill, policy_id)
        if request.archived and policy_id in _routed(call, skill):
            raise Conflict(f"the route of {skill!r} names {policy_id} or would go back to it", param="policy_id")
        key, change = archive_key(policy_id), call.change(request.reason)
        mark = PolicyArchive(policy_id=policy_id, archived=request.archived)
        try:
            held = call.services.documents.get(PolicyArchive, call.tenant_id, key)
        except NotFound:
            call.services.documents.put(call.tenant_id, key, mark, change)
        else:
            if held.document == mark:
                return _replayed(mark)
            call.services.documents.replace(call.tenant_id, key, mark, expected_version=held.version, change=change)
        return _answer(200, {**_dump(mark), "idempotent_replay": False})

    # Routes

    @app.get("/v1/admin/skills/{skill}/route")
    def get_route(call: admin_call, skill: str) -> JSONResponse:
        return _answer(200, _dump(call.services.documents.get_route(call.tenant_id, skill)))

    @app.put("/v1/admin/skills/{skill}/route", openapi_extra=_takes(RouteRequest))
    def put_route(call: admin_call, skill: str) -> JSONResponse:
        _known_skill(call, skill)
        request = call.body(RouteRequest)
        named = [("control", request.control), *((f"arms.{at}.policy_id", arm.policy_id) for at, arm in enumerate(request.arms))]
        for field, policy_id in named:
            _policy_of(call, skill, policy_id, param=field)
            if _archived(call, policy_id):
                raise Conflict(f"{policy_id} is archived", param=field)
        change = call.change(request.reason)
        try:
            current: Route | None = call.services.documents.get_route(call.tenant_id, skill)
        except NotFound:
            current = None
        if current is not None and _already(current, request, change):
            return _replayed(current)
        if (current.version if current else 0) != request.expected_version:
            raise Conflict(f"the route is at version {current.version if current else 0}", param="expected_version")
        with _from_request(**request.model_dump()):
            route = _next_route(current, request, tenant_id=call.tenant_id, skill=skill, change=change)
        routed, here = _routed(call, skill), call.services
        for field, policy_id in named:
            if policy_id not in routed:  # what the route names is loaded, and taking from it must not wait for SageMaker
                policy, most = _policy_of(call, skill, policy_id), call.ceilings().adapters
                ensure_loaded(policy, here.adapters, endpoint=here.endpoint, param=field, most=most)
        call.services.documents.write_route(route, expected_version=request.expected_version)
        return _answer(200 if current else 201, {**_dump(route), "idempotent_replay": False})

    @app.post("/v1/admin/skills/{skill}/rollback", openapi_extra=_takes(RollbackRequest))
    def roll_back(call: admin_call, skill: str) -> JSONResponse:
        request = call.body(RollbackRequest)
        route = take_back(call.services.documents, tenant_id=call.tenant_id, skill=skill, change=call.change(request.reason))
        return _answer(200, _dump(route))

    # Learning runs and rollouts

    @app.post("/v1/admin/skills/{skill}/learning-runs", openapi_extra=_takes(LearningRunRequest))
    def start_learning_run(call: admin_call, skill: str) -> JSONResponse:
        request = call.body(LearningRunRequest)
        here = call.services
        named = call.id_for("run", skill)
        run = request_run(
            here.documents,
            tenant_id=call.tenant_id,
            skill=skill,
            run_id=derived_id("run", named) if named else new_id("run"),
            settings=settings_of(LearningSettings, here.learning_settings, request.settings),
            actor=f"key:{call.who.key_id}",
            reason=request.reason,
            clock=here.clock,
            admit=call.may_learn,
        )
        try:
            here.learning.start(
                run.run_id,
                {"tenant_id": run.tenant_id, "skill": skill, "run_id": run.run_id, "settings": run.settings.model_dump(mode="json")},
            )
        except DependencyUnavailable as error:
            fail_run(here.documents, run, error.detail, clock=here.clock)
            raise
        return _answer(202, _dump(run))

    @app.get("/v1/admin/skills/{skill}/learning-runs")
    def list_learning_runs(call: admin_call, skill: str, limit: limit_of = 100, cursor: str | None = None) -> JSONResponse:
        return _documents(call, LearningRun, run_key(skill, ""), limit, cursor)

    @app.get("/v1/admin/skills/{skill}/learning-runs/{run_id}")
    def get_learning_run(call: admin_call, skill: str, run_id: str) -> JSONResponse:
        run = call.services.documents.get(LearningRun, call.tenant_id, run_key(skill, run_id)).document
        return _answer(200, {**_dump(run), "policy_id": run.policy_id})

    @app.post("/v1/admin/skills/{skill}/rollouts", openapi_extra=_takes(RolloutRequest))
    def start_rollout(call: admin_call, skill: str) -> JSONResponse:
        request = call.body(RolloutRequest)
        here = call.services
        candidate = here.documents.get_policy(call.tenant_id, request.policy_id)
        if candidate.skill == skill and not request.dryrun:
            ensure_loaded(candidate, here.adapters, endpoint=here.endpoint, param="policy_id", most=call.ceilings().adapters)
        named = call.id_for("rollout", skill)
        rollout = request_rollout(
            here.documents,
            here.events,
            tenant_id=call.tenant_id,
            skill=skill,
            rollout_id=derived_id("rol", named) if named else new_id("rol"),
            candidate=request.policy_id,
            settings=settings_of(RolloutSettings, here.rollout_settings, request.settings),
            actor=f"key:{call.who.key_id}",
            reason=request.reason,
            now=here.clock(),
            dryrun=request.dryrun,
        )
        if request.dryrun:
            return _answer(200, _dump(rollout))
        try:
            here.rollout.start(
                rollout.rollout_id,
                {
                    "tenant_id": call.tenant_id,
                    "skill": skill,
                    "rollout_id": rollout.rollout_id,
                    "policy_id": rollout.candidate,
                    "settings": rollout.settings.model_dump(mode="json"),
                },
            )
        except DependencyUnavailable as error:
            _conductor(call, skill, rollout.rollout_id).abort(error.detail)
            raise
        return _answer(202, _dump(rollout))

    @app.get("/v1/admin/skills/{skill}/rollouts")
    def list_rollouts(call: admin_call, skill: str, limit: limit_of = 100, cursor: str | None = None) -> JSONResponse:
        return _documents(call, Rollout, rollout_key(skill, ""), limit, cursor)

    @app.get("/v1/admin/skills/{skill}/rollouts/{rollout_id}")
    def get_rollout(call: admin_call, skill: str, rollout_id: str) -> JSONResponse:
        return _answer(200, _dump(call.services.documents.get(Rollout, call.tenant_id, rollout_key(skill, rollout_id)).document))

    @app.get("/v1/admin/skills/{skill}/rollouts/{rollout_id}/evidence")
    def get_evidence(call: admin_call, skill: str, rollout_id: str) -> JSONResponse:
        """What the rollout's trial has seen so far: both arms, harm by kind, and the evidence over time."""
        conductor = _conductor(call, skill, rollout_id)
        rollout = conductor.rollout()
        state = call.services.trials.load(call.tenant_id, skill, rollout_id) or TrialState.begin(rollout)
        return _answer(200, _dump(TrialEvidence.of(rollout, state)))

    # What was learned from and recorded

    @app.get("/v1/admin/skills/{skill}/datasets")
    def list_datasets(call: admin_call, skill: str, limit: limit_of = 100, cursor: str | None = None) -> JSONResponse:
        return _documents(call, Dataset, f"DATASET#{skill}#", limit, cursor)

    @app.get("/v1/admin/skills/{skill}/pending")
    def list_pending(call: admin_call, skill: str, limit: limit_of = 100, cursor: str | None = None) -> JSONResponse:
        """Feedback and task results whose interaction or output has not landed, oldest first; `orphaned` after their attribution window."""
        metrics = _known_skill(call, skill).metrics
        since, last_id = _time_cursor(cursor)
        taken, more = _after(still_pending(call.services.events, call.tenant_id, skill, since=since), since, last_id, limit)
        return _page([_waiting(stored, orphaned_at(stored, metrics), call.services.clock()) for stored in taken], more)

    @app.get("/v1/admin/skills/{skill}/rewards")
    def list_rewards(call: admin_call, skill: str, date: date, limit: limit_of = 100, cursor: str | None = None) -> JSONResponse:
        """Every reward computed on a day (UTC), oldest first; of an output's rewards the one with the highest `n` counts."""
        _known_skill(call, skill)
        since, last_id = _time_cursor(cursor)
        stored = call.services.events.by_day(call.tenant_id, skill, "reward", date, since=since)
        taken, more = _after(stored, since, last_id, limit)
        return _page([one.event().model_dump(mode="json", exclude_none=True) for one in taken], more)

    @app.get("/v1/admin/skills/{skill}/rewards/report")
    def report_of_rewards(
        call: admin_call, skill: str, first: Annotated[date, Query(alias="from")], last: Annotated[date, Query(alias="to")]
    ) -> JSONResponse:
        """What the rewards of the days (UTC) `from` to `to`, both included, come to by policy: a unit once, nobody more than his share."""
        _known_skill(call, skill)
        _check_days(first, last)
        unit = call.services.documents.get_route(call.tenant_id, skill).unit
        return _answer(200, _dump(report_rewards(call.services.events, call.tenant_id, skill, first=first, last=last, unit=unit)))

    @app.get("/v1/admin/audit")
    def list_audit(call: admin_call, limit: limit_of = 100, cursor: str | None = None) -> JSONResponse:
        """Entries from the first on, and with the first page whether the whole chain holds, for which the whole registry is read."""
        after = _seq(cursor)
        entries = call.services.audit.entries(call.tenant_id, after=after, limit=limit)
        more = to_cursor(str(entries[-1].seq)) if len(entries) == limit else None
        chain = _chain(call.services, call.tenant_id) if cursor is None else None
        return _answer(200, {"data": [_dump(entry) for entry in entries], "next_cursor": more, "chain": chain})

    return app


def _takes(model: type[BaseModel]) -> dict[str, object]:
    """The body in the API's document; `parse` reads it, so that its errors are those of every other endpoint."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _map_errors(app: FastAPI) -> None:
    def refused(request: Request, error: RlaasError) -> JSONResponse:
        identifier = request_id(_event(request))
        tell_refused(error, identifier, status=status_of(error))
        return JSONResponse(error_body(error, identifier), status_code=status_of(error), headers=retry_after(error))

    async def ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RlaasError)
        return refused(request, error)

    async def bad_query(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        faults = {str(fault["loc"][-1]): str(fault["msg"]) for fault in error.errors()}
        message = "; ".join(f"{name}: {reason}" for name, reason in faults.items())
        return refused(request, InvalidInput(message, param=next(iter(faults), None)))

    async def no_such_path(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return refused(request, NotFound("there is no such path and method"))

    async def unforeseen(request: Request, call_next: Callable[[Request], Awaitable[JSONResponse]]) -> JSONResponse:
        try:
            return await call_next(request)
        except Exception as error:
            identifier = request_id(_event(request))
            logger.error("failed", request_id=identifier, error=type(error).__name__, where=_where(error))
            return _answer(500, internal_error_body(identifier))

    app.add_exception_handler(RlaasError, ours)
    app.add_exception_handler(RequestValidationError, bad_query)
    app.add_exception_handler(HTTPException, no_such_path)
    app.middleware("http")(unforeseen)


def _event(request: Request) -> dict[str, object]:
    event = request.scope.get("aws.event")
    return event if isinstance(event, dict) else {}


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""


def _answer(status: int, body: Reply) -> JSONResponse:
    return JSONResponse(body, status_code=status)


def _created(document: BaseModel) -> JSONResponse:
    return _answer(201, {**_dump(document), "idempotent_replay": False})


def _replayed(document: BaseModel) -> JSONResponse:
    return _answer(200, {**_dump(document), "idempotent_replay": True})


def _page(items: list[Reply], cursor: str | None) -> JSONResponse:
    return _answer(200, {"data": [*items], "next_cursor": cursor})


def _documents(
    call: Admin, model: type[Document], prefix: str, limit: int, cursor: str | None, *, newest_first: bool = True
) -> JSONResponse:
    page = call.services.documents.list(model, call.tenant_id, prefix, limit=limit, cursor=cursor, newest_first=newest_first)
    return _page([_dump(stored.document) for stored in page.items], page.cursor)


def _every(documents: Documents, model: type[Document], tenant_id: str, prefix: str) -> "list[Stored[Document]]":
    page = documents.list(model, tenant_id, prefix)
    items = [*page.items]
    while page.cursor is not None:
        page = documents.list(model, tenant_id, prefix, cursor=page.cursor)
        items += page.items
    return items


def _dump(document: BaseModel) -> Reply:
    return document.model_dump(mode="json")


def _public(key: ApiKey) -> Reply:
    return key.model_dump(mode="json", exclude={"secret_sha256"})


def _under_id(key: ApiKey, text: str, key_id: str) -> tuple[ApiKey, str]:
    return key.model_copy(update={"key_id": key_id}), text.replace(key.key_id, key_id, 1)


def _skill(tenant_id: str, skill: str, request: SkillRequest, created_at: datetime) -> Skill:
    with _from_request(skill=skill):
        return Skill(
            tenant_id=tenant_id,
            skill=skill,
            description=request.description,
            reward=request.reward,
            metrics=request.metrics,
            metadata=request.metadata,
            created_at=created_at,
        )


@contextmanager
def _from_request(**given: object) -> Iterator[None]:
    """What a document made from the request, and from what else is `given`, is refused for is the request's fault."""
    try:
        yield
    except ValidationError as error:
        raise invalid_input(error, given) from None


def _spending(limit: Limit, counter: str, item: Item, now: datetime) -> Reply:
    start = window_start(limit.window, now)
    spent, held = standing(item, counter, start)

    def told(amount: int) -> JsonValue:
        return usd(amount) if limit.measure == "usd" else amount

    return {
        **_dump(limit),
        "spent": told(spent),
        "set_aside": told(held),
        "resets_at": rfc3339(datetime.fromtimestamp(window_end(limit.window, start), UTC)),
    }


def _groups(text: str) -> list[Group]:
    groups = [name.strip() for name in text.split(",") if name.strip()]
    known: dict[str, Group] = {name: name for name in get_args(Group)}
    if unknown := next((name for name in groups if name not in known), None):
        raise InvalidInput(f"usage is grouped by any of {', '.join(known)}, not by {unknown!r}", param="group_by")
    return [known[name] for name in dict.fromkeys(groups)]


def _usage(names: Mapping[Group, str | None], tally: Tally) -> Reply:
    counted = {name: value for name, value in asdict(tally).items() if name != "cost_nano_usd"}
    return {**{str(group): name for group, name in names.items()}, **counted, "cost_usd": usd(tally.cost_nano_usd)}


def _conductor(call: Admin, skill: str, rollout_id: str) -> Conductor:
    here = call.services
    return Conductor(here.documents, here.events, here.trials, here.guards, here.clock, call.tenant_id, skill, rollout_id)


def _known_tenant(call: Admin, tenant_id: str) -> None:
    try:
        call.services.documents.get(Tenant, tenant_id, TENANT)
    except NotFound:
        raise NotFound(f"there is no tenant {tenant_id!r}", param="tenant_id") from None


def _check_days(first: date, last: date) -> None:
    if not 0 <= (last - first).days < _MOST_DAYS:
        raise InvalidInput(f"from is not after to, and they are less than {_MOST_DAYS} days apart", param="to")


def _known_skill(call: Admin, skill: str) -> Skill:
    try:
        return call.services.documents.get(Skill, call.tenant_id, skill_key(skill)).document
    except NotFound:
        raise NotFound(f"there is no skill {skill!r}", param="skill") from None


def _policy_of(call: Admin, skill: str, policy_id: str, *, param: str = "policy_id") -> Policy:
    try:
        policy = call.services.documents.get_policy(call.tenant_id, policy_id)
    except NotFound as missing:
        raise NotFound(missing.detail, param=param) from None
    if policy.skill != skill:
        raise NotFound(f"{policy_id!r} is not a policy of {skill!r}", param=param)
    return policy


def _archived(call: Admin, policy_id: str) -> bool:
    try:
        return call.services.documents.get(PolicyArchive, call.tenant_id, archive_key(policy_id)).document.archived
    except NotFound:
        return False


def _routed(call: Admin, skill: str) -> set[str]:
    """The policies that the skill's route names or would go back to."""
    try:
        route = call.services.documents.get_route(call.tenant_id, skill)
    except NotFound:
        return set()
    targets = [route.target, *([route.last_good] if route.last_good else [])]
    return {policy_id for target in targets for policy_id in (target.control, *(arm.policy_id for arm in target.arms))}


def _arms(request: RouteRequest) -> tuple[Arm, ...]:
    return tuple(Arm(policy_id=arm.policy_id, mode=arm.mode, weight=arm.weight, cap=arm.cap) for arm in request.arms)


def _already(route: Route, request: RouteRequest, change: Change) -> bool:
    """Whether `route` is what this very request put before."""
    asked = [(arm.policy_id, arm.mode, arm.weight, arm.cap) for arm in request.arms]
    found = [(arm.policy_id, arm.mode, arm.weight, arm.cap) for arm in route.arms]
    return (route.version, route.control, found, route.bandit, route.changed_by, route.reason) == (
        request.expected_version + 1,
        request.control,
        asked,
        _bandit(route, request),
        change.actor,
        change.reason,
    )


def _bandit(current: Route | None, request: RouteRequest) -> BanditSettings | None:
    """The settings asked for, else those there are; the defaults for a first arm of mode `bandit`."""
    held = request.bandit or (current.bandit if current else None)
    return held or (BanditSettings() if any(arm.mode == "bandit" for arm in request.arms) else None)


def _next_route(current: Route | None, request: RouteRequest, *, tenant_id: str, skill: str, change: Change) -> Route:
    """The route that follows. What a running rollout has put is not yet known to be good, so the way back stays that from before it."""
    if current is None:
        return Route(
            tenant_id=tenant_id,
            skill=skill,
            version=1,
            control=request.control,
            arms=_arms(request),
            unit=request.unit or "thread",
            salt=new_id("dec"),
            bandit=_bandit(None, request),
            changed_by=change.actor,
            reason=change.reason,
            changed_at=change.at,
        )
    if request.unit not in (None, current.unit):
        raise InvalidInput(f"the unit is {current.unit} and cannot change: every unit would change arm", param="unit")
    return current.succeed(
        control=request.control,
        arms=_arms(request),
        last_good=current.last_good if current.rollout_id is not None else current.target,
        rollout_id=None,
        changed_by=change.actor,
        reason=change.reason,
        changed_at=change.at,
        bandit=_bandit(current, request),
    )


def _seq(cursor: str | None) -> int:
    return 0 if cursor is None else int(from_cursor(cursor, pattern=r"[0-9]{1,11}"))


def _after(events: Iterator[StoredEvent], since: datetime | None, last_id: str, limit: int) -> tuple[list[StoredEvent], str | None]:
    """The next `limit` of `events`, which come by time, after the cursor's; and the cursor that continues."""
    after = (one for one in events if since is None or (one.received_at, one.event_id) > (since, last_id))
    taken = list(islice(after, limit))
    return taken, to_cursor(f"{rfc3339(taken[-1].received_at)} {taken[-1].event_id}") if len(taken) == limit else None


def _waiting(stored: StoredEvent, window_ends: datetime, now: datetime) -> Reply:
    return {
        "event_type": stored.event_type,
        "event_id": stored.event_id,
        "interaction_id": stored.interaction_id,
        "output_id": stored.output_id,
        "received_at": rfc3339(stored.received_at),
        "orphaned_at": rfc3339(window_ends),
        "orphaned": now >= window_ends,
    }


def _time_cursor(cursor: str | None) -> tuple[datetime | None, str]:
    if cursor is None:
        return None, ""
    position = from_cursor(cursor, pattern=r"20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-5]\d\.\d{6}Z [A-Za-z0-9_-]+")
    moment, _, event_id = position.partition(" ")
    try:
        return datetime.fromisoformat(moment), event_id
    except ValueError:
        raise InvalidInput("the cursor is not one this list gave out", param="cursor") from None


def _chain(here: Services, tenant_id: str) -> Reply:
    """Whether every entry follows from the one before, from the first to the last, and the registry holds what they say."""

    def entries() -> Iterator[AuditEntry]:
        page = here.audit.entries(tenant_id, limit=_AUDIT_PAGE)
        while page:
            yield from page
            page = here.audit.entries(tenant_id, after=page[-1].seq, limit=_AUDIT_PAGE)

    newest = Newest()
    try:
        length = verify_chain(newest.noting(entries()))
        newest.check(here.documents.contents(tenant_id), before=here.clock() - _AUDIT_LAG)
        return {"intact": True, "length": length, "fault": None}
    except ValueError as fault:
        return {"intact": False, "length": None, "fault": str(fault)}
