"""Why outputs made no pair, and what would change it."""

from collections.abc import Mapping
from typing import Literal, get_args

DropReason = Literal[
    "no_feedback", "no_final_text", "unchanged", "empty", "no_prompt", "other_prompt", "called_tools", "duplicate", "no_output", "shadow",
    "over_share", "blocked",
]  # fmt: skip
"""Why an output made no pair; `no_output` counts outputs that feedback names and that never landed."""
MIN_WORDS = 3
"""A final text of fewer words is no answer to learn from."""
LONGEST_REASON = 1000
"""Characters of a job's failure reason."""

ADVICE: dict[DropReason, str] = {
    "no_feedback": "nobody edited, sent, discarded or compared them; report what people did with them",
    "no_final_text": "discarded, rated or remarked on only; report the text that was sent instead as an edit",
    "unchanged": "sent as drafted, spacing aside, which teaches no preference; edits and comparisons do",
    "empty": f"the draft is blank or the final text has fewer than {MIN_WORDS} words; report whole texts",
    "no_prompt": "no messages, and their interaction is not there; log it, or give the output its messages",
    "other_prompt": "compared with an answer to another prompt; compare outputs of one interaction",
    "called_tools": "the output calls tools; report on the answer that follows them",
    "duplicate": "same prompt, draft and final text as an earlier one; they count once",
    "no_output": "feedback names them and they were never logged; log outputs under the ids that feedback names",
    "shadow": "shadows, which nobody saw; nothing to do",
    "over_share": "from people who had made their share of the pairs already; pairs of more people make room",
    "blocked": "a guardrail answered, no model; nothing to do",
}
"""A plain sentence for each reason: what it means, and what would change it."""
assert ADVICE.keys() == set(get_args(DropReason))


def explained(dropped: Mapping[DropReason, int], *, room: int) -> str:
    """`3 no_prompt (...); 1 empty (...)`, most first, in at most `room` characters: the rarest lose their sentences
    first."""
    counted = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    short = [f"{count:,} {reason}" for reason, count in counted]
    for told in range(len(counted), 0, -1):
        said = "; ".join([f"{short[n]} ({ADVICE[reason]})" if n < told else short[n] for n, (reason, _) in enumerate(counted)])
        if len(said) <= room:
            return said
    return "; ".join(short)[:room]
