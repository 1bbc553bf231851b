"""The marks of a prompt that is kept in a vendor's cache, in the order in which vendors read a prompt: tools, what the
system says, the conversation."""

import math
from collections.abc import Sequence
from dataclasses import replace

from rlaas.chat import ChatCall, Message
from rlaas.prompt_cache import CacheTtl


def order_marks(call: ChatCall) -> ChatCall:
    """The call as vendors take it, which refuse a mark of an hour after one of five minutes: it becomes one of five
    minutes."""
    ttls = {*call.tool_marks.values(), *(ttl for message in call.messages for ttl in message.list_cache_ttls())}
    if len(ttls) < 2:
        return call
    shortening = _Shortening()
    tool_marks = {place: shortening.shorten(ttl) for place, ttl in sorted(call.tool_marks.items())}
    messages = [*call.messages]
    for place, message in sorted(enumerate(messages), key=lambda item: item[1].role != "system"):
        messages[place] = _shorten_message(message, shortening)
    return replace(call, tool_marks=tool_marks, messages=tuple(messages))


class _Shortening:
    """Makes marks short from the first short one on."""

    def __init__(self) -> None:
        self._has_begun = False

    def shorten(self, ttl: CacheTtl) -> CacheTtl:
        self._has_begun = self._has_begun or ttl == "5m"
        return "5m" if self._has_begun else ttl


def _shorten_message(message: Message, shortening: _Shortening) -> Message:
    marks, parts = [*message.cache_marks], [*message.parts]
    for _, is_part, place in _list_places(message):
        if not is_part:
            marks[place] = marks[place].model_copy(update={"ttl": shortening.shorten(marks[place].ttl)})
        elif (ttl := parts[place].cached_for) is not None:
            parts[place] = parts[place].model_copy(update={"cached_for": shortening.shorten(ttl)})
    return message.model_copy(update={"cache_marks": tuple(marks), "parts": tuple(parts)})


def _list_places(message: Message) -> Sequence[tuple[float, bool, int]]:
    """Where the marks and the parts stand in the text, in order: the place there, whether it is a part, and its
    number."""
    marks = [(math.inf if mark.at is None else mark.at, False, place) for place, mark in enumerate(message.cache_marks)]
    return sorted([*marks, *((part.at, True, place) for place, part in enumerate(message.parts))])
