"""Request a learning run, admit it, record it and start it."""

from collections.abc import Callable, Mapping

from pydantic import JsonValue

from rlaas.clock import Clock
from rlaas.errors import Conflict, DependencyUnavailable, InvalidInput, NotFound, QuotaExceeded
from rlaas.learning.adapter_upkeep import ADAPTERS_OF_A_RUN, Adapters, check_adapters
from rlaas.learning.runs import LearningRun, LearningSettings, fail_run
from rlaas.metering.ceilings import Ceilings
from rlaas.metering.counters import Counters
from rlaas.metering.ledger import count_today
from rlaas.policies.backend import SageMakerBackend
from rlaas.routing.route_store import RouteRecords
from rlaas.skills.skill import Skill
from rlaas.tenancy.registry import Change, run_key, skill_key

MOST: Mapping[str, float] = {
    "lora_rank": 16,
    "lora_alpha": 1024,
    "batch_size": 64,
    "max_length": 8192,
    "sft_steps": 10_000,
    "dpo_steps": 10_000,
    "sft_learning_rate": 1,
    "dpo_learning_rate": 1,
    "beta": 100,
    "sft_weight": 100,
    "window_days": 3650,
    "min_pairs": 1_000_000,
    "min_threads": 1_000_000,
}
"""The largest values that a new run may ask for: what stages can serve (`max_lora_rank`, `max_model_len` in
`infra/config.py`), and about a day of one machine. Runs recorded earlier may have larger ones."""


def check_settings(settings: LearningSettings) -> None:
    """Check the settings of a new run. Raises: InvalidInput naming the first one that is out of bounds."""
    for name, most in MOST.items():
        if not getattr(settings, name) <= most:
            raise InvalidInput(f"{name} is at most {most}", param=f"settings.{name}")
    if not 0 <= settings.seed < 2**32:
        raise InvalidInput("seed is a whole number below 2**32", param="settings.seed")


def start_run(
    records: RouteRecords,
    *,
    tenant_id: str,
    skill: str,
    run_id: str,
    settings: LearningSettings,
    actor: str,
    reason: str,
    clock: Clock,
    admit: Callable[[], None],
    start: Callable[[str, dict[str, JsonValue]], None],
) -> LearningRun:
    """Record a run and `start` its execution, by the run's id and with its input. When that fails, the record says so.

    Raises: what `request_run` raises, DependencyUnavailable.
    """
    run = request_run(
        records,
        tenant_id=tenant_id,
        skill=skill,
        run_id=run_id,
        settings=settings,
        actor=actor,
        reason=reason,
        clock=clock,
        admit=admit,
    )
    try:
        start(run.run_id, {"tenant_id": tenant_id, "skill": skill, "run_id": run.run_id, "settings": run.settings.model_dump(mode="json")})
    except DependencyUnavailable as error:
        fail_run(records, run, error.detail, clock=clock)
        raise
    return run


def admit_run(adapters: Adapters, counters: Counters, tenant_id: str, ceilings: Ceilings, *, endpoint: str, clock: Clock) -> None:
    """Count one more learning run of the tenant today (UTC). Raises: QuotaExceeded when a ceiling is reached, with
    `retry_after_s` (seconds) for that of runs a day; DependencyUnavailable."""
    check_adapters(adapters, tenant_id, endpoint=endpoint, most=ceilings.adapters, more=ADAPTERS_OF_A_RUN)
    most = ceilings.learning_runs_per_day
    if most is None:
        return
    wait = count_today(counters, tenant_id, "learning-runs", most=most, now=clock())
    if wait is not None:
        message = f"the platform's ceiling for this tenant is {most} learning runs a day (UTC): wait, or ask its operators for more"
        raise QuotaExceeded(message, retry_after_s=wait)


def request_run(
    records: RouteRecords,
    *,
    tenant_id: str,
    skill: str,
    run_id: str,
    settings: LearningSettings,
    actor: str,
    reason: str,
    clock: Clock,
    admit: Callable[[], None] = lambda: None,
) -> LearningRun:
    """Record a run against the skill's present control, once `admit` allows it. The same request again returns the run
    recorded first.

    Raises: InvalidInput for settings out of bounds, NotFound without the skill or its route, Conflict when the id
    belongs to another run or the control is not a model of the endpoint; what `admit` raises.
    """
    key = run_key(skill, run_id)
    try:
        existing = records.get(LearningRun, tenant_id, key).record
    except NotFound:
        pass
    else:
        if existing.settings != settings:
            raise Conflict(f"{run_id} is another learning run already")
        return existing
    check_settings(settings)
    records.get(Skill, tenant_id, skill_key(skill))
    now, control = clock(), records.get_route(tenant_id, skill).control
    if not isinstance(records.get_policy(tenant_id, control).backend, SageMakerBackend):
        raise Conflict(f"the control {control} does not answer from this stage's endpoint, where an adapter would be judged against it")
    run = LearningRun(
        run_id=run_id,
        tenant_id=tenant_id,
        skill=skill,
        settings=settings,
        baseline=control,
        reason=reason,
        created_at=now,
    )
    admit()
    records.put(tenant_id, key, run, Change(actor=actor, reason=reason, at=now))
    return run
