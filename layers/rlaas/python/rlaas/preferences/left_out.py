"""The reasons why outputs make no pair, and what would change each."""

from collections.abc import Mapping
from typing import Literal, get_args

DropReason = Literal[
    "no_feedback",
    "no_final_text",
    "unchanged",
    "empty",
    "no_prompt",
    "other_prompt",
    "called_tools",
    "duplicate",
    "no_output",
    "shadow",
    "over_share",
    "blocked",
    "not_text",
]
"""Why an output made no pair; `no_output` counts outputs that feedback names but that never arrived."""
MIN_WORDS = 3
"""The fewest words of a final text that is worth learning from."""
LONGEST_REASON = 1000
"""The most characters of a job's failure reason."""

ADVICE: dict[DropReason, str] = {
    "no_feedback": "nobody edited, sent, discarded or compared them; report what people did with them",
    "no_final_text": "only discarded, rated or commented on; report the text that was sent instead as an edit",
    "unchanged": "sent as drafted, apart from spacing, which teaches no preference; edits and comparisons do",
    "empty": f"the draft is blank or the final text has fewer than {MIN_WORDS} words; report whole texts",
    "no_prompt": "they have no messages, and no logged interaction; log it, or log the output with its messages",
    "other_prompt": "compared with an answer to another prompt; compare outputs of one interaction",
    "called_tools": "the output calls tools; give feedback on the answer that follows",
    "duplicate": "same prompt, draft and final text as an earlier one; they count once",
    "no_output": "feedback names them but they were never logged; log outputs under the ids that feedback names",
    "shadow": "answers of shadow policies, which nobody saw; nothing to do",
    "over_share": "from people who already have their share of the pairs; with pairs from more people, more of them count",
    "not_text": "their prompts have images, sounds or files, which are not stored; nothing to do",
    "blocked": "a guardrail answered, and no model; nothing to do",
}
"""What each reason means, and what would change it."""
assert ADVICE.keys() == set(get_args(DropReason))


def explain_drops(dropped: Mapping[DropReason, int], *, room: int) -> str:
    """`3 no_prompt (...); 1 empty (...)`, the most frequent first, in at most `room` characters: if there are more, the
    rarest reasons lose their advice."""
    entries = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    short = [f"{count:,} {reason}" for reason, count in entries]
    for with_advice in range(len(entries), 0, -1):
        text = "; ".join([f"{short[n]} ({ADVICE[reason]})" if n < with_advice else short[n] for n, (reason, _) in enumerate(entries)])
        if len(text) <= room:
            return text
    return "; ".join(short)[:room]
