"""A JSON object that comes in pieces."""

import json
import re

_STRUCTURE = re.compile(r'["\\{}\[\]]')


class GrowingObject:
    """The arguments of a tool call as they come, and whether they are a whole object already.

    Each character is looked at once, however many pieces there are, and the text is parsed at most once.
    """

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self._is_over = False
        self.has_ended = False
        """Whether the object is whole, so that nothing can follow it."""

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(self._pieces)

    def add(self, piece: str) -> None:
        """Take in a piece."""
        if not piece:
            return
        self._pieces.append(piece)
        if self._is_over:
            return
        place = 1 if self._is_escaped else 0
        self._is_escaped = False
        while match := _STRUCTURE.search(piece, place):
            place = match.end()
            if match[0] == '"':
                self._in_string = not self._in_string
            elif match[0] == "\\":
                self._is_escaped = place == len(piece)
                place += 1
            elif not self._in_string:
                self._depth += 1 if match[0] in "{[" else -1
                if self._depth <= 0:
                    self._close()
                    return

    def _close(self) -> None:
        self._is_over = True
        try:
            self.has_ended = isinstance(json.loads(self.text), dict)
        except (ValueError, RecursionError):
            self.has_ended = False
