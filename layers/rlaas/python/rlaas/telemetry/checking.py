"""What an event must fit before it is stored: its time, its skill, the skill's metrics, and the decision that it
claims."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

from rlaas.errors import InvalidInput, NotFound
from rlaas.privacy.scrub import Scrubber
from rlaas.routing.decision_token import read_token
from rlaas.skills.skill import Metric
from rlaas.telemetry.events import MOST_REPORTED_TOKENS, AnyEvent, FeedbackSubmitted, OutputProduced, TaskResultReported

FIRST_DAY = datetime(2020, 1, 1, tzinfo=UTC)
"""The lake's first day: no event occurred before it."""
CLOCK_SKEW = timedelta(days=1)
"""How far ahead of the service's clock a client's may be."""


def check_event(
    event: AnyEvent, *, received_at: datetime, has_skill: Callable[[str], bool], metrics_of: Callable[[str], Mapping[str, Metric]]
) -> None:
    """Check an event that a client reports.

    Raises: NotFound for an unknown skill; InvalidInput for a time, tokens or a metric's value that cannot be.
    """
    if event.occurred_at is not None and not FIRST_DAY <= event.occurred_at <= received_at + CLOCK_SKEW:
        raise InvalidInput("events occur between 2020 and a day after the service's clock", param="occurred_at")
    if not has_skill(event.skill):
        raise NotFound(f"there is no skill {event.skill!r}", param="skill")
    if isinstance(event, OutputProduced) and event.usage is not None:
        for field, tokens in event.usage.model_dump().items():
            if tokens > MOST_REPORTED_TOKENS:
                raise InvalidInput(f"at most {MOST_REPORTED_TOKENS:,} tokens are believed of one output", param=f"usage.{field}")
    if isinstance(event, FeedbackSubmitted) and event.metric is not None:
        name, value, field = event.metric, event.value, "metric"
    elif isinstance(event, TaskResultReported):
        name, value, field = event.name, event.value, "name"
    else:
        return
    metrics = metrics_of(event.skill)
    metric = metrics.get(name)
    if metric is None:
        if field == "name":
            return
        names = ", ".join(sorted(metrics)) or "none"
        raise InvalidInput(f"the skill {event.skill!r} has no metric {name!r}; registered: {names}", param=field)
    if not metric.takes(value):
        raise InvalidInput(f"the metric {name!r} is of type {metric.type}", param="value")
    if isinstance(event, FeedbackSubmitted) and (metric.level == "thread") != (event.about is None):
        needed = "thread_id and no interaction_id or output_id" if metric.level == "thread" else "interaction_id"
        raise InvalidInput(f"the metric {name!r} is of level {metric.level}: it needs {needed}", param="interaction_id")


def add_decision(event: AnyEvent, output: OutputProduced, scrubber: Scrubber, now: datetime) -> AnyEvent:
    """`event` with the decision that the token of `output` holds; its ids and policy are the token's. Raises:
    InvalidInput."""
    if output.decision is not None:
        raise InvalidInput("decisions are RLaaS's own; send the decision_token that /v1/decide gave", param="decision")
    for field in ("cost_usd", "price_version", "key_id", "estimated_usage"):
        if getattr(output, field) is not None:
            raise InvalidInput("only RLaaS says what an answer cost and who asked", param=field)
    if output.decision_token is None:
        return event
    granted = read_token(output.decision_token, scrubber=scrubber, now=now)
    claims = {
        "interaction_id": granted.interaction_id,
        "output_id": granted.output_id,
        "policy_id": granted.decision.policy_id,
    }
    for field, value in claims.items():
        if getattr(output, field) not in (None, value):
            raise InvalidInput(f"the decision_token is for {value!r}", param=field)
    return event.model_copy(update={**claims, "decision": granted.decision, "decision_token": None})
