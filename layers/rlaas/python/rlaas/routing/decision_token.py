"""A token of a decision, for a caller that asks the model itself: the output that it reports carries the decision as
it was made.

The token is the decision with the ids of its interaction and output, signed with a key of the tenant for this purpose
alone: nobody without the key can invent a propensity, and no decision counts for two outputs.
"""

from datetime import datetime

from rlaas.clock import Timestamp
from rlaas.errors import InvalidInput
from rlaas.ids import ExternalId, encode_canonical_json
from rlaas.privacy.scrub import Scrubber
from rlaas.routing.assign import Decision
from rlaas.routing.signed_text import read_signed_text, sign_text
from rlaas.wire import WireModel

LONGEST = 64 * 1024
"""The longest token, in characters."""
_PURPOSE = "decision_token"


class TokenContent(WireModel):
    """The content of a token."""

    interaction_id: ExternalId
    output_id: ExternalId
    decision: Decision
    expires_at: Timestamp


def make_token(content: TokenContent, *, scrubber: Scrubber) -> str:
    """`content` as a token of the scrubber's tenant: its canonical JSON in base64url, a dot, and 128 bits of a keyed
    digest."""
    return sign_text(encode_canonical_json(content.model_dump(mode="json")), digest=scrubber.digest_for(_PURPOSE))


def read_token(token: str, *, scrubber: Scrubber, now: datetime) -> TokenContent:
    """The content of `token`. Raises: InvalidInput when RLaaS did not make it for this tenant, or it has expired."""
    text = read_signed_text(token, digest=scrubber.digest_for(_PURPOSE))
    if text is None:
        raise InvalidInput("the token is not one that /v1/decide gave this tenant", param="decision_token")
    content = TokenContent.model_validate_json(text)
    if content.expires_at < now:
        raise InvalidInput("the token's time is over: ask /v1/decide again", param="decision_token")
    return content
