"""Routes as feature flags, by the OpenFeature Remote Evaluation Protocol (OFREP 0.2).

They are for flag clients that only want to know the arm. A flag's key is the skill, its value the policy that
answers, its variant the arm; the context's `targetingKey` is the unit.
"""

import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from pydantic import JsonValue

from rlaas.errors import NotFound
from rlaas.ids import make_pseudonym, new_id
from rlaas.inference.gateway import RouteSource
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


def targeting_key(body: JsonValue, *, key: str | None) -> str | None:
    """The unit that an evaluation request is about; None where it names none. Raises: CannotEvaluate."""
    context = body.get("context", {}) if isinstance(body, dict) else None
    if not isinstance(context, dict):
        raise CannotEvaluate(400, "INVALID_CONTEXT", "the body and its context are objects", key=key)
    unit = context.get("targetingKey")
    if unit is None or unit == "":
        return None
    if not isinstance(unit, str) or len(unit) > _LONGEST_KEY or _HALF_A_PAIR.search(unit):
        raise CannotEvaluate(400, "INVALID_CONTEXT", f"context.targetingKey is a text of 1 to {_LONGEST_KEY} characters", key=key)
    return unit


def evaluate(skill: str, unit: str | None, tenant_id: str, *, routes: RouteSource, now: datetime) -> dict[str, JsonValue]:
    """The flag `skill` for `unit`; without one, where the route gives every unit the same arm.

    Raises: CannotEvaluate when the skill has no route, or its route needs a unit.
    """
    try:
        route = routes.get_route_for_request(tenant_id, skill)
    except NotFound as error:
        raise CannotEvaluate(404, "FLAG_NOT_FOUND", error.detail, key=skill) from None
    pseudonym = make_pseudonym(unit) if route.unit == "user" else unit
    decision = assign(route, pseudonym or "", decision_id=new_id("dec"), decided_at=now)
    splits = sum(candidate.probability > 0 for candidate in decision.candidates) > 1
    if splits and pseudonym is None:
        details = f"the route of {skill} splits its traffic by {route.unit}: context.targetingKey says for which one"
        raise CannotEvaluate(400, "TARGETING_KEY_MISSING", details, key=skill)
    return {
        "key": skill,
        "value": decision.policy_id,
        "variant": decision.arm,
        "reason": "SPLIT" if splits else "STATIC",
        "metadata": _build_metadata(decision),
    }


def evaluate_all(
    skills: Iterable[str], unit: str | None, tenant_id: str, *, routes: RouteSource, now: datetime
) -> Iterator[dict[str, JsonValue]]:
    """The flags of `skills` that have a route, at most a hundred; one that needs a unit and has none as its refusal."""
    for _, skill in zip(range(_MOST_FLAGS), skills, strict=False):
        try:
            yield evaluate(skill, unit, tenant_id, routes=routes, now=now)
        except CannotEvaluate as refusal:
            if refusal.status != 404:  # a skill without a route is no flag yet
                yield refusal.body


def _build_metadata(decision: Decision) -> dict[str, JsonValue]:
    return {"propensity": decision.propensity, "route_version": decision.route_version, "reason": decision.reason}
