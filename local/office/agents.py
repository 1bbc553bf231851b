"""What a support agent does with a draft: keep what is right, put it into the house's style, send it or throw it away.

The house style is `Hi {first name},`, at most two short sentences, and the office's sign-off. It is in no prompt; a
model can only learn it from what agents do. An agent also knows the right answer. When the draft says it, the agent
keeps the draft's own sentences and restyles them; when it does not, the agent writes the answer. So a final text is
anchored on the draft that the agent was shown, and a policy judged against finals written over *another* policy's
drafts is at a disadvantage: no agent kept its wording. Offline, that is the candidate, whose finals all come from the
baseline's drafts, so the offline win rate errs towards the baseline. Live, each policy is judged on finals written over
its own drafts.

What must change decides the rest: a draft that needs more rewriting than the agent has patience for is discarded, and
the agent's own text is sent in its place. Both the text and the action are reported in either case.

Offices are not perfect, and this one is not: some drafts are sent unread, some answers are wrong, some agents mistype
or forget the style. All of it is drawn from a seed and the case, so that the same agent does the same thing with the
same draft again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

from rapidfuzz.distance import Levenshtein

from local.office.templates import TRAIN, Case

if TYPE_CHECKING:
    from collections.abc import Sequence

SIGN_OFF = "Best,\nThe Northwind Support Team"


@dataclass(frozen=True, slots=True)
class Agent:
    """A person in the office. Rates are probabilities per draft.

    A draft is discarded and not edited when its similarity to the final text, in [0, 1], is below `patience`, which
    varies from draft to draft with standard deviation `mood`.
    """

    name: str
    patience: float
    mood: float = 0.0
    unread_rate: float = 0.0
    wrong_rate: float = 0.0
    typo_rate: float = 0.0
    off_style_rate: float = 0.0

    def chance_to_use(self, similarity: float) -> float:
        """The probability that a draft that was read is edited and sent, not discarded."""
        return NormalDist(self.patience, self.mood).cdf(similarity) if self.mood else float(similarity >= self.patience)


@dataclass(frozen=True, slots=True)
class Reaction:
    """What the agent did with a draft: the text that went to the customer, and whether the draft was used (`sent`) or
    thrown away."""

    final_text: str
    action: Literal["sent", "discarded"]


OFFICE: tuple[Agent, ...] = (
    Agent("careful-1", patience=0.45, mood=0.07, typo_rate=0.02),
    Agent("careful-2", patience=0.45, mood=0.07, typo_rate=0.02),
    Agent("careful-3", patience=0.45, mood=0.07, typo_rate=0.04, wrong_rate=0.01),
    Agent("hasty-1", patience=0.40, mood=0.07, unread_rate=0.04, wrong_rate=0.02, typo_rate=0.10, off_style_rate=0.03),
    Agent("hasty-2", patience=0.40, mood=0.07, unread_rate=0.04, wrong_rate=0.02, typo_rate=0.10, off_style_rate=0.03),
    Agent("sloppy-1", patience=0.32, mood=0.07, unread_rate=0.10, wrong_rate=0.05, typo_rate=0.20, off_style_rate=0.12),
)


def react(agent: Agent, case: Case, draft: str, seed: int) -> Reaction:
    """What `agent` does with `draft` for `case`. Deterministic in all four arguments."""
    random = Random(f"{seed}:{agent.name}:{case.full_name}:{case.email}:{draft}")
    if random.random() < agent.unread_rate and draft.strip():
        return Reaction(final_text=draft.strip(), action="sent")
    final_text = _compose(agent, case, draft, random)
    similarity = Levenshtein.normalized_similarity(draft.strip(), final_text)
    is_used = random.random() < agent.chance_to_use(similarity)
    return Reaction(final_text=final_text, action="sent" if is_used else "discarded")


def write_in_house_style(first_name: str, body: str) -> str:
    """`body` as the house writes it."""
    return f"Hi {first_name},\n\n{body}\n\n{SIGN_OFF}"


def is_house_style(first_name: str, text: str) -> bool:
    """Whether `text` greets, signs and keeps short as the house does."""
    text = text.strip()
    head, tail = f"Hi {first_name},\n\n", f"\n\n{SIGN_OFF}"
    if not (text.startswith(head) and text.endswith(tail)):
        return False
    body = text[len(head) : -len(tail)]
    return 0 < len(body.split()) <= 45 and "\n" not in body.strip()


def list_usable_sentences(case: Case, draft: str) -> tuple[str, ...]:
    """The draft's one or two sentences that already give the answer, or none.

    A sentence gives the answer if it has words of the answer that the customer did not write (an echo of the question
    is no help). Together the sentences must have half of these words and every number of the answer, and no blank to
    fill in.
    """
    answer_words = _stems(case.answer) - _stems(case.email)
    numbers = set(re.findall(r"\d+", case.answer)) - set(re.findall(r"\d+", case.email))
    best = sorted(_sentences(draft), key=lambda sentence: -len(answer_words & _stems(sentence)))[:2]
    sentences = [sentence for sentence in _sentences(draft) if sentence in best and answer_words & _stems(sentence)][:2]
    words: set[str] = set().union(*(_stems(sentence) for sentence in sentences)) if sentences else set()
    enough = len(answer_words & words) >= max(1, len(answer_words) / 2) and numbers <= set(re.findall(r"\d+", " ".join(sentences)))
    return tuple(sentences) if enough and sum(len(sentence.split()) for sentence in sentences) <= 45 else ()


def _compose(agent: Agent, case: Case, draft: str, random: Random) -> str:
    body = " ".join(list_usable_sentences(case, draft)) or case.answer
    if random.random() < agent.wrong_rate:
        body = random.choice([issue.answer for issue in TRAIN if "{" not in issue.answer])
    if random.random() < agent.typo_rate:
        body = _mistype(body, random)
    if random.random() < agent.off_style_rate:
        return random.choice((f"Hello {case.first_name},\n\n{body}\n\nRegards,\nNorthwind Support", f"{case.first_name}, {body}"))
    return write_in_house_style(case.first_name, body)


def _mistype(text: str, random: Random) -> str:
    """`text` with two neighbouring letters of one word swapped."""
    at = random.choice([i for i in range(len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha()])
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


_OPENING = re.compile(r"^(subject:.*|(dear|hi|hello|hey)\b[^.!?\n]{0,60}[,!:]?)$", re.IGNORECASE)
_CLOSING = re.compile(
    r"^(best|kind|warm|sincerely|regards|thank you|thanks|cheers|yours)\b[^.!?]{0,40}$|northwind support team", re.IGNORECASE
)
_BLANK_TO_FILL = re.compile(r"\[[^\]]*\]|<[^>]*>|_{3,}|\bX{3,}\b")


def _sentences(draft: str) -> Sequence[str]:
    """Whole sentences of the draft's body: greeting, subject, sign-off, cut-off ends and blanks to fill are left
    out."""
    lines = [line.strip() for line in draft.strip().splitlines()]
    body = " ".join(line for line in lines if line and not _OPENING.match(line) and not _CLOSING.search(line))
    body = re.sub(r"^(dear|hi|hello) [\w ]{1,40}, ", "", body, flags=re.IGNORECASE)
    whole = (sentence.strip() for sentence in re.findall(r"[^.!?]+(?:\.\d[^.!?]*)*[.!]", body))
    return [sentence for sentence in whole if not _BLANK_TO_FILL.search(sentence)]


_SMALL_WORDS = re.compile(
    r"\b(an?|and|are|as|at|be|been|but|by|can|do|does|for|from|get|has|have|how|if|in|is|it|its|me|my|no|not|now|of|on|or|our|please|so|that|the|"
    r"theirs?|them|then|there|this|to|too|up|us|was|we|were|what|when|where|which|will|with|within|would|yours?|you|again|also)\b"
)


def _stems(text: str) -> set[str]:
    """The text's content words, cut to five letters so that `cancel` and `cancelled` are one."""
    return {word[:5] for word in re.findall(r"[a-z]{3,}", _SMALL_WORDS.sub(" ", text.lower()))}
