"""What a caller hears that names no model of the tenant's: which ones there are."""

from collections.abc import Iterator
from contextlib import contextmanager

from rlaas.api.http import Caller
from rlaas.errors import ModelNotFound, NotFound
from rlaas.ids import MODEL_PREFIX
from rlaas.routing.route import Route
from rlaas.routing.route_store import ROUTE_PREFIX
from rlaas.runtime.stage import Stage

_LISTED = 20


@contextmanager
def model_not_found(who: Caller, stage: Stage) -> Iterator[None]:
    """Make an unknown skill or policy the error of an unknown model, as OpenAI's and Anthropic's clients know it.

    It lists the skills that the key may ask, which are read only then.
    """
    try:
        yield
    except NotFound as error:
        if error.param not in ("model", "skill", "policy_id"):
            raise
        raise ModelNotFound(f"{error.detail}; {_list_skills(who, stage, MODEL_PREFIX)}", param="model") from None


@contextmanager
def skill_not_found(who: Caller, stage: Stage) -> Iterator[None]:
    """Add to the refusal of an unknown skill which ones the key may ask."""
    try:
        yield
    except NotFound as error:
        if error.param == "skill":
            error.detail += f"; {_list_skills(who, stage, '')}"
        raise


def _list_skills(who: Caller, stage: Stage, prefix: str) -> str:
    page = stage.registry.list(Route, who.tenant_id, ROUTE_PREFIX, limit=_LISTED)
    names = ", ".join(f"{prefix}{route.record.skill}" for route in page.items)
    return f"this key may ask {names}{' and more' if page.cursor else ''}" if names else "no skill has a route yet"
