"""What a page may give feedback on: a token that RLaaS makes with an answer, and that the application's back end hands
to the page that shows it.

The token names the output and whose it is, signed by a key of the tenant's for this purpose alone. Checking it reads
nothing, and what it names need not have landed yet.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rlaas.errors import Forbidden, InvalidInput
from rlaas.ids import ExternalId, SkillName, UserId, encode_canonical_json, find_interaction_id
from rlaas.privacy.scrub import Scrubber
from rlaas.routing.signed_text import read_signed_text, sign_text
from rlaas.wire import WireModel

LIFETIME = timedelta(days=30)
"""How long a page may give feedback on an answer."""
LONGEST = 1024
"""The longest token, in characters; most have some 200."""
_PURPOSE = "feedback_token"


@dataclass(frozen=True, slots=True)
class ShownOutput:
    """An output as a page shows it, and whose it is."""

    skill: str
    interaction_id: str
    output_id: str
    thread_id: str | None = None
    user_id: str | None = None


def issue_feedback_token(output: ShownOutput, *, scrubber: Scrubber, now: datetime) -> str:
    """A token of the scrubber's tenant: its holder may give feedback on the output for 30 days. The names in it can be
    read."""
    about = "" if find_interaction_id(output.output_id) == output.interaction_id else output.interaction_id
    ends = int((now + LIFETIME).timestamp())
    text = encode_canonical_json([output.skill, about, output.output_id, output.thread_id, output.user_id, ends])
    return sign_text(text, digest=scrubber.digest_for(_PURPOSE))


def read_feedback_token(token: str, *, scrubber: Scrubber, now: datetime, param: str) -> ShownOutput:
    """What `token` is for. Raises: Forbidden, naming the field `param`, when RLaaS did not make it for this tenant, or
    its time is over."""
    text = read_signed_text(token, digest=scrubber.digest_for(_PURPOSE))
    if text is None:
        raise Forbidden("the token is not one that RLaaS made for an output of this tenant", param=param)
    skill, about, output_id, thread_id, user_id, ends = json.loads(text)
    if datetime.fromtimestamp(ends, UTC) < now:
        raise Forbidden("the token's time is over: a page may give feedback on an answer for 30 days", param=param)
    return ShownOutput(skill, about or find_interaction_id(output_id) or "", output_id, thread_id, user_id)


class FeedbackTokenRequest(WireModel):
    """An output that a page shows. `interaction_id` may be left out where `output_id` holds it (`out_<ULID>...`)."""

    skill: SkillName
    output_id: ExternalId
    interaction_id: ExternalId | None = None
    thread_id: ExternalId | None = None
    user_id: UserId = None

    def to_shown(self) -> ShownOutput:
        """The output. Raises: InvalidInput where nothing says which interaction it belongs to."""
        about = self.interaction_id or find_interaction_id(self.output_id)
        if about is None:
            raise InvalidInput("needs interaction_id: this output_id does not hold it", param="interaction_id")
        return ShownOutput(self.skill, about, self.output_id, self.thread_id, self.user_id)
