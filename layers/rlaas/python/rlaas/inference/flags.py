"""Routes as feature flags: the OpenFeature Remote Evaluation Protocol (OFREP 0.2), for flag clients that only want to know the arm.

A flag's key is the skill, its value the policy that answers, its variant the arm; the context's `targetingKey` is the unit.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from pydantic import JsonValue

from rlaas.errors import NotFound
from rlaas.ids import new_id
from rlaas.inference.infer import RouteSource
from rlaas.routing.assign import Decision, assign

_MOST_FLAGS = 100
_LONGEST_KEY = 512
_HALF_A_PAIR = re.compile("[\ud800-\udfff]")
"""What JSON can say and UTF-8 cannot."""


class CannotEvaluate(Exception):
    """A refusal in OFREP's own shape: `status` and `body`."""

    def __init__(self, status: int, code: str, details: str, *, key: str | None) -> None:
        super().__init__(details)
        self.status = status
        self.body: dict[str, JsonValue] = {**({"key": key} if key is not None else {}), "errorCode": code, "errorDetails": details}


def targeting_key(body: JsonValue, *, key: str | None) -> str:
    """The unit that an evaluation request is about. Raises: CannotEvaluate."""
    context = body.get("context") if isinstance(body, dict) else None
    if not isinstance(context, dict):
        raise CannotEvaluate(400, "INVALID_CONTEXT", "the body is an object with a context", key=key)
    unit = context.get("targetingKey")
    if not isinstance(unit, str) or not 1 <= len(unit) <= _LONGEST_KEY or _HALF_A_PAIR.search(unit):
        raise CannotEvaluate(400, "TARGETING_KEY_MISSING", f"context.targetingKey is a text of 1 to {_LONGEST_KEY} characters", key=key)
    return unit


def evaluate(skill: str, unit: str, tenant_id: str, *, routes: RouteSource, now: datetime) -> dict[str, JsonValue]:
    """The flag `skill` for `unit`. Raises: CannotEvaluate when the skill has no route."""
    try:
        route = routes.current_route(tenant_id, skill)
    except NotFound as error:
        raise CannotEvaluate(404, "FLAG_NOT_FOUND", error.detail, key=skill) from None
    decision = assign(route, unit, decision_id=new_id("dec"), decided_at=now)
    return {
        "key": skill,
        "value": decision.policy_id,
        "variant": decision.arm,
        "reason": "SPLIT" if len(decision.candidates) > 1 else "STATIC",
        "metadata": _metadata(decision),
    }


def evaluate_all(skills: Iterable[str], unit: str, tenant_id: str, *, routes: RouteSource, now: datetime) -> Iterator[dict[str, JsonValue]]:
    """The flags of `skills` that have a route, at most a hundred."""
    for _, skill in zip(range(_MOST_FLAGS), skills, strict=False):
        try:
            yield evaluate(skill, unit, tenant_id, routes=routes, now=now)
        except CannotEvaluate:
            continue  # a skill without a route is no flag yet


def _metadata(decision: Decision) -> dict[str, JsonValue]:
    return {"propensity": decision.propensity, "route_version": decision.route_version, "reason": decision.reason}
