"""Guardrails that somebody else judges by: what they are asked, and what they answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rlaas.policies.guardrails.settings import Service

Source = Literal["input", "output"]
_NO_WORD = re.compile(r"[^A-Za-z0-9/_-]+")


@dataclass(frozen=True, slots=True)
class Judgement:
    """Why a service objects, in its own words for it, never the text's. `found` are the stretches of the texts that it would take out,
    with what each is; `must_block` says that taking them out is not enough."""

    reasons: tuple[str, ...]
    score: float | None = None
    found: tuple[tuple[str, str], ...] = ()
    must_block: bool = True


class Moderator(Protocol):
    """Asks the services that guardrails name."""

    def judge(self, guardrail: Service, texts: Sequence[str], *, source: Source, tenant_id: str) -> Judgement | None:
        """What the service objects to in `texts`, all together; None when to nothing. Raises: RlaasError when it does not answer."""
        ...


def worded(name: str) -> str:
    """A name that a service or its operators gave, as one short word that is safe in events and logs."""
    return _NO_WORD.sub("_", name)[:40]
