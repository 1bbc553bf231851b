"""What a page may speak of: a token that RLaaS makes with an answer, and that the application's back end hands to the
page that shows it.

The token names the output and whose it is, signed by a key of the tenant's for this purpose alone. Checking it reads
nothing, and what it names need not have landed yet.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rlaas.errors import Forbidden, InvalidInput
from rlaas.ids import ExternalId, SkillName, UserId, canonical_json, interaction_of
from rlaas.privacy.scrub import Scrubber
from rlaas.routing.signed_text import signed, signed_text
from rlaas.wire import WireModel

LIFETIME = timedelta(days=30)
"""How long a page may speak of an answer."""
LONGEST = 1024
"""The longest token, in characters; most have some 200."""
_PURPOSE = "feedback_token"


@dataclass(frozen=True, slots=True)
class Shown:
    """An output as a page shows it, and whose it is."""

    skill: str
    interaction_id: str
    output_id: str
    thread_id: str | None = None
    user_id: str | None = None


def feedback_token(shown: Shown, *, scrubber: Scrubber, now: datetime) -> str:
    """A token of the scrubber's tenant by which whoever has it may give feedback on the output for 30 days. Its names
    can be read in it."""
    about = "" if interaction_of(shown.output_id) == shown.interaction_id else shown.interaction_id
    ends = int((now + LIFETIME).timestamp())
    text = canonical_json([shown.skill, about, shown.output_id, shown.thread_id, shown.user_id, ends])
    return signed(text, digest=scrubber.digest_for(_PURPOSE))


def read_feedback_token(token: str, *, scrubber: Scrubber, now: datetime, param: str) -> Shown:
    """What `token` is for. Raises: Forbidden, naming the field `param`, when RLaaS did not make it for this tenant, or
    its time is over."""
    text = signed_text(token, digest=scrubber.digest_for(_PURPOSE))
    if text is None:
        raise Forbidden("the token is not one that RLaaS made for an output of this tenant", param=param)
    skill, about, output_id, thread_id, user_id, ends = json.loads(text)
    if datetime.fromtimestamp(ends, UTC) < now:
        raise Forbidden("the token's time is over: a page may give feedback on an answer for 30 days", param=param)
    return Shown(skill, about or interaction_of(output_id) or "", output_id, thread_id, user_id)


class FeedbackTokenRequest(WireModel):
    """An output that a page shows. `interaction_id` may be left out where `output_id` holds it (`out_<ULID>...`)."""

    skill: SkillName
    output_id: ExternalId
    interaction_id: ExternalId | None = None
    thread_id: ExternalId | None = None
    user_id: UserId = None

    def shown(self) -> Shown:
        """Raises: InvalidInput where nothing says whose output it is."""
        about = self.interaction_id or interaction_of(self.output_id)
        if about is None:
            raise InvalidInput("needs interaction_id: this output_id does not hold it", param="interaction_id")
        return Shown(self.skill, about, self.output_id, self.thread_id, self.user_id)
