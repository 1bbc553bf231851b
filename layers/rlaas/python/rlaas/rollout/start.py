"""Request a rollout, record it and start it."""

from collections.abc import Callable

from pydantic import JsonValue

from rlaas.errors import DependencyUnavailable
from rlaas.policies.bundle import Policy
from rlaas.rollout.conduct import Conductor
from rlaas.rollout.request import request_rollout
from rlaas.rollout.steps import Rollout, RolloutSettings


def start_rollout(
    conductor: Conductor,
    *,
    candidate: Policy,
    settings: RolloutSettings,
    actor: str,
    reason: str,
    dryrun: bool,
    load: Callable[[Policy, str], None],
    start: Callable[[str, dict[str, JsonValue]], None],
) -> Rollout:
    """Record the conductor's rollout and `start` its execution, by the rollout's id and with its input, once `load` has
    made sure that the candidate can be asked. When it does not start, the record says so. A `dryrun` records and starts
    nothing, and returns what the rollout would be.

    Raises: what `request_rollout` and `load` raise, DependencyUnavailable.
    """
    if candidate.skill == conductor.skill and not dryrun:
        load(candidate, "policy_id")
    rollout = request_rollout(
        conductor.records,
        conductor.events,
        tenant_id=conductor.tenant_id,
        skill=conductor.skill,
        rollout_id=conductor.rollout_id,
        candidate=candidate.policy_id,
        settings=settings,
        actor=actor,
        reason=reason,
        now=conductor.clock(),
        dryrun=dryrun,
    )
    if dryrun:
        return rollout
    try:
        start(rollout.rollout_id, _execution_input(rollout))
    except DependencyUnavailable as error:
        conductor.abort(error.detail)
        raise
    return rollout


def _execution_input(rollout: Rollout) -> dict[str, JsonValue]:
    return {
        "tenant_id": rollout.tenant_id,
        "skill": rollout.skill,
        "rollout_id": rollout.rollout_id,
        "policy_id": rollout.candidate,
        "settings": rollout.settings.model_dump(mode="json"),
    }
