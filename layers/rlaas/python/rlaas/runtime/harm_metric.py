"""The metric that the guard's alarm watches."""

from datetime import datetime

from rlaas.rollout.conduct import HARM_METRIC
from rlaas.rollout.trial import TrialState
from rlaas.runtime.metrics import emit


def emit_harm(state: TrialState, candidate: str, *, stage: str, at: datetime) -> None:
    """Emit the evidence that the candidate of a rollout does harm: the metric that its guard's alarm watches."""
    emit(
        {HARM_METRIC: (state.evidence_of_harm().value, "None")},
        dimensions={"stage": stage, "rollout": state.rollout_id, "arm": candidate},
        at=at,
        properties={"tenant_id": state.tenant_id, "skill": state.skill},
    )
