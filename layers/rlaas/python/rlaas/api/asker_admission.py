"""Which requests for an answer are let in: those of callers that may ask, and of pages within a budget of their own."""

from typing import TYPE_CHECKING

from rlaas.api.admission import admit_caller
from rlaas.api.http import Caller, GatewayEvent
from rlaas.errors import Forbidden
from rlaas.runtime.stage import current_stage
from rlaas.tenancy.keys import require_scope

if TYPE_CHECKING:
    from rlaas.inference.decide import InferRequest

_FIELDS_OF_PAGES = frozenset({"skill", "inputs", "interaction_id", "thread_id", "user_id"})
"""What a page may say in a request for a draft."""


def admit_asker(event: GatewayEvent, *, from_pages: bool = False) -> Caller:
    """The caller of a request for an answer, who has the scope `infer`. A publishable key is let in where a request may
    come `from_pages` and a budget limits that key: anybody can read it.

    Raises: as `admit_caller`; Forbidden.
    """
    who = admit_caller(event)
    require_scope(who.scopes, "infer")
    if not who.publishable:
        return who
    if not from_pages:
        raise Forbidden("a publishable key asks for drafts by /v1/infer; do this from your back end, with a secret key")
    budgets = current_stage().spendings.of(who.tenant_id).budgets.budgets
    if not any(budget.scope == "key" and budget.key_id == who.key_id for budget in budgets):
        raise Forbidden(f"a publishable key drafts within a budget of its own, and none of scope key names {who.key_id}")
    return who


def check_page_request(request: "InferRequest") -> None:
    """Check that a page says no more than what a skill is to draft for: the policy, its prompt and its parameters stay
    the tenant's. Raises: Forbidden, naming the field."""
    if excess := sorted(request.model_fields_set - _FIELDS_OF_PAGES):
        raise Forbidden(f"a page sends {', '.join(sorted(_FIELDS_OF_PAGES))}; the policy decides the rest", param=excess[0])
