"""How large an answer may be: what a function can hand over, whatever a model says and however much of it."""

import json
from collections.abc import Sequence
from dataclasses import replace

from pydantic import JsonValue

from rlaas.chat import Choice, Delta
from rlaas.telemetry.ingest import cut

MAX_ANSWER_BYTES = 1024 * 1024
"""The largest answer, all its choices together, in bytes of JSON. Lambda hands over 6 MB, and one item stores 400 KB."""
CUT = "length"
"""Why an answer ended that was cut, in OpenAI's words."""
_LONGEST_REASON = 128


def bounded(choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """The choices with what is beyond `MAX_ANSWER_BYTES` cut off, which then say that they ended by `length`; half a tool call is none."""
    room, kept = MAX_ANSWER_BYTES, []
    for choice in choices:
        text, refusal = cut(choice.text, room), None
        room -= _size(text)
        calls = choice.tool_calls
        spent = _size([call.model_dump(mode="json") for call in calls]) if calls else 0
        if spent > room:
            calls, spent = (), 0
        room -= spent
        if choice.refusal is not None:
            refusal = cut(choice.refusal, room)
            room -= _size(refusal)
        whole = (text, calls, refusal) == (choice.text, choice.tool_calls, choice.refusal)
        told = _size(choice.logprobs) if choice.logprobs is not None else 0
        logprobs = choice.logprobs if whole and told <= room else None
        room -= told if logprobs is not None else 0
        reason = choice.finish_reason[:_LONGEST_REASON] if choice.finish_reason else None
        kept.append(
            replace(choice, text=text, tool_calls=calls, refusal=refusal, logprobs=logprobs, finish_reason=reason if whole else CUT)
        )
    return tuple(kept)


def said(delta: Delta) -> int:
    """How many characters a piece of a streamed answer has."""
    return len(delta.text) + len(delta.refusal or "") + sum(len(call.arguments) + len(call.name or "") for call in delta.tool_calls)


def _size(value: JsonValue) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))
