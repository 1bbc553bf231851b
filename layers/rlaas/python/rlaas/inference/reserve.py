"""A request's third step: what it may cost is set aside before a model is asked, and settled once, whatever ends it."""

from collections.abc import Iterator

from rlaas.errors import DependencyUnavailable, InvalidInput
from rlaas.inference.decide import Assignment
from rlaas.inference.gateway import Gateway
from rlaas.inference.render import Blocked, Question, render_unguarded
from rlaas.inference.spending import PossibleCall
from rlaas.metering.budgets import Amount, SpendingRequest
from rlaas.metering.ledger import Reservation


def reserve_budgets(assignment: Assignment, question: Question | Blocked, gateway: Gateway, *, alone: bool = False) -> Reservation | None:
    """Set aside the most that the request may cost. None where nothing limits it, and where nobody is asked.

    `alone` says that nobody but the policy's own backend is asked, once.

    Raises: QuotaExceeded, DependencyUnavailable.
    """
    if isinstance(question, Blocked):
        return None
    policy = question.policy
    calls = iter([PossibleCall(policy, question.call, (policy.backend,))]) if alone else _list_possible_calls(assignment, question, gateway)
    request = SpendingRequest(
        skill=assignment.request.skill,
        key_id=assignment.asker.key_id or "",
        mirrored=assignment.decision.shadow,
        capped=(assignment.decision.policy_id, assignment.cap) if assignment.cap is not None else None,
    )
    return gateway.spending.begin(assignment.asker.tenant_id, request, calls, now=gateway.clock())


def settle_budgets(reservation: Reservation | None, spent: Amount, gateway: Gateway) -> bool:
    """Turn what was set aside into what was spent; whether that went well.

    If not, the budgets hold what was set aside until it expires.
    """
    if reservation is None:
        return True
    try:
        gateway.spending.end(reservation, spent, now=gateway.clock())
    except DependencyUnavailable:
        return False
    return True


def _list_possible_calls(assignment: Assignment, question: Question, gateway: Gateway) -> Iterator[PossibleCall]:
    """The arm's and, should it fail, the control's, whose guardrails have not checked the request yet."""
    yield _add_fallbacks(question)
    if assignment.control is None:
        return
    control = gateway.routes.get_policy(assignment.asker.tenant_id, assignment.control)
    try:
        of_control = render_unguarded(assignment, control)
    except InvalidInput:  # then it will not answer either
        return
    yield _add_fallbacks(of_control)


def _add_fallbacks(question: Question) -> PossibleCall:
    """The call of one of the policy's backends, and once more where its guardrails may have it answered again."""
    policy = question.policy
    again = any(guardrail.action == "regenerate" for guardrail in policy.guardrails.output)
    return PossibleCall(policy, question.call, (policy.backend, *policy.fallbacks), times=2 if again else 1)
