"""Requests that a backend refuses: whether another may take them, and the error of one that nobody answered."""

from collections.abc import Sequence

from rlaas.chat import Misconfigured, RateLimited
from rlaas.errors import ContextLengthExceeded, DependencyUnavailable, InvalidInput, PartRefused, RlaasError, TranslationRefused


def may_be_taken(error: InvalidInput, failures: Sequence[str], refusals: Sequence[RlaasError]) -> bool:
    """Whether another backend may take a request that one refuses by `error`, where those before it failed for
    `failures` and gave `refusals`.

    One that is too long for a model, or shows what it does not see, or was translated wrong, another may take. What is
    wrong with a parameter is the caller's, unless a backend before failed: that one might have taken it, so that the
    refusal of its stand-in must not be the last word.
    """
    if isinstance(error, ContextLengthExceeded | PartRefused | TranslationRefused):
        return True
    return sum(isinstance(refusal, InvalidInput) for refusal in refusals) < len(failures)


def sum_up(failures: Sequence[str], refusals: Sequence[RlaasError]) -> RlaasError:
    """The error that says best what the caller can do. `failures` says in words why each backend did not answer,
    `refusals` has the errors of those that gave one.

    A failure that passes by itself comes first, because to try again helps; then a limit of rate, which says how long
    to wait. A request that all who were asked find wrong is the caller's to change, as one that is too long for them.
    What is left is wrong in the policy, and nobody need try again.
    """
    detail = f"no model answered: {'; '.join(failures)}"
    wait_s = min((error.retry_after_s for error in refusals if error.retry_after_s is not None), default=None)
    limits = [error for error in refusals if isinstance(error, RateLimited)]
    refused = [error for error in refusals if isinstance(error, InvalidInput)]
    wrong = [error for error in refusals if isinstance(error, Misconfigured)]
    if len(limits) + len(refused) + len(wrong) < len(failures):
        return DependencyUnavailable(detail, retry_after_s=wait_s, quote=_first_quote(refusals))
    if limits:
        return RateLimited(detail, retry_after_s=wait_s, quote=_first_quote(limits))
    return refused[0] if refused else Misconfigured(detail, quote=_first_quote(wrong))


def _first_quote(errors: Sequence[RlaasError]) -> str:
    return next((error.quote for error in errors if error.quote), "")
