"""What a caller may report: a page gives feedback on the outputs that its tokens are for, and reports nothing else."""

from datetime import datetime

from rlaas.errors import Forbidden, InvalidInput
from rlaas.ids import derive_id, encode_canonical_json, make_bound_id
from rlaas.privacy.scrub import Scrubber
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted
from rlaas.telemetry.feedback_token import ShownOutput, read_feedback_token

FEEDBACK_ONLY = "a publishable key gives feedback only; do this from your back end, with a secret key"
"""The refusal of everything else that a page sends."""
_NAMES = ("skill", "interaction_id", "output_id", "thread_id", "user_id")


def permit(event: AnyEvent, page_key_id: str | None, *, scrubber: Scrubber, now: datetime, idempotency_key: str | None = None) -> AnyEvent:
    """`event` as RLaaS accepts it. A server's event stays as it is. An event of a page (`page_key_id`), or one that a
    server passes on with a page's token, is about what the token is for.

    A page's feedback has its arrival as its time. Its id is one that no other event can have, always the same for the
    output and the `feedback_id` or idempotency key that the page chose.

    Raises: Forbidden, InvalidInput, naming the field.
    """
    if page_key_id is not None and not isinstance(event, FeedbackSubmitted):
        raise Forbidden(FEEDBACK_ONLY, param="type")
    if not isinstance(event, FeedbackSubmitted):
        return event
    if event.page_key_id is not None:
        raise InvalidInput("only RLaaS says which page reported", param="page_key_id")
    if event.feedback_token is None:
        if page_key_id is None:
            return event
        raise Forbidden(
            "a publishable key gives feedback on outputs whose feedback_token it has: your back end gets one with each answer",
            param="feedback_token",
        )
    output = read_feedback_token(event.feedback_token, scrubber=scrubber, now=now, param="feedback_token")
    for name in _NAMES:
        if getattr(event, name) not in (None, getattr(output, name)):
            raise Forbidden("the feedback_token is for another one", param=name)
    if event.tags:
        raise Forbidden("a page's feedback has no tags", param="tags")
    _check_preferred(event, output, scrubber=scrubber, now=now)
    fields: dict[str, object] = {name: getattr(output, name) for name in _NAMES}
    if page_key_id is not None:
        fields |= {"occurred_at": None, "page_key_id": page_key_id}
        if (chosen := event.feedback_id or idempotency_key) is not None:
            fields["feedback_id"] = _make_feedback_id(output, chosen, scrubber)
    return event.model_copy(update=fields)


def _check_preferred(event: FeedbackSubmitted, output: ShownOutput, *, scrubber: Scrubber, now: datetime) -> None:
    """Both outputs of a comparison have to be the page's. Raises: Forbidden."""
    preferred, token = event.preferred_output_id, event.preferred_feedback_token
    if preferred is None:
        return
    if token is None:
        raise Forbidden("comparing two outputs takes the tokens of both", param="preferred_feedback_token")
    other = read_feedback_token(token, scrubber=scrubber, now=now, param="preferred_feedback_token")
    if (other.skill, other.output_id) != (output.skill, preferred) or preferred == output.output_id:
        raise Forbidden("the preferred_feedback_token is for another one", param="preferred_output_id")


def _make_feedback_id(output: ShownOutput, chosen: str, scrubber: Scrubber) -> str:
    tail = scrubber.digest_for("feedback_id")(encode_canonical_json([output.output_id, chosen]))[:20]
    return make_bound_id("fbk", output.interaction_id, tail) or derive_id("fbk", output.interaction_id, tail)
