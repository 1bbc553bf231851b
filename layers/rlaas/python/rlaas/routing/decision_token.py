"""A decision handed to a caller that asks the model itself, so that the output it reports carries the decision as it was made.

The token is the decision with the ids of its interaction and output, and a digest under the tenant's salt: nobody without the salt can make
a propensity up, and no decision is counted for two outputs.
"""

import base64
import binascii
import hmac
from collections.abc import Callable
from datetime import datetime

from pydantic import ValidationError

from rlaas.clock import Timestamp
from rlaas.errors import InvalidInput
from rlaas.ids import ExternalId, canonical_json
from rlaas.routing.assign import Decision
from rlaas.wire import WireModel

LONGEST = 64 * 1024
"""The longest token, in characters."""


class Granted(WireModel):
    """What a token says."""

    interaction_id: ExternalId
    output_id: ExternalId
    decision: Decision
    expires_at: Timestamp


def token_of(granted: Granted, *, digest: Callable[[str], str]) -> str:
    """`granted` as a token; `digest` is the tenant's keyed one."""
    text = canonical_json(granted.model_dump(mode="json"))
    return f"{base64.urlsafe_b64encode(text.encode()).decode()}.{digest(text)}"


def read_token(token: str, *, digest: Callable[[str], str], now: datetime) -> Granted:
    """What `token` says. Raises: InvalidInput when RLaaS did not make it for this tenant, or its time is over."""
    said, _, proof = token.partition(".")
    try:
        text = base64.b64decode(said, altchars=b"-_", validate=True).decode()
        proved = hmac.compare_digest(digest(text).encode(), proof.encode())
        granted = Granted.model_validate_json(text) if proved else None
    except (binascii.Error, UnicodeError, ValidationError):
        granted = None
    if granted is None:
        raise InvalidInput("the token is not one that /v1/decide gave this tenant", param="decision_token")
    if granted.expires_at < now:
        raise InvalidInput("the token's time is over: ask /v1/decide again", param="decision_token")
    return granted
