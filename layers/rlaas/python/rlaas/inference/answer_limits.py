"""What an answer may have at most, whatever backend gives it."""

from rlaas.chat import LONGEST_CALL_ID, BackendFailed, ChatCall, Completion, Delta, ToolCallDelta

_MOST_TOOL_CALLS = 128
_LONGEST_NAME = 256
_LONGEST_REASON = 128
"""In characters: as much as an event has room for."""


def check_completion(completion: Completion, call: ChatCall) -> None:
    """Check a whole answer.

    Raises: BackendFailed where it has choices that nobody asked for, or what has no room in an output.
    """
    if not 1 <= len(completion.choices) <= _count_choices(call):
        raise BackendFailed("the backend answered with another number of choices than it was asked for")
    for choice in completion.choices:
        if len(choice.tool_calls) > _MOST_TOOL_CALLS or len(choice.finish_reason or "") > _LONGEST_REASON:
            raise BackendFailed("the backend's answer has more than there is room for")


def check_piece(delta: Delta, call: ChatCall) -> None:
    """The same for a piece, so that the pieces make an answer."""
    if not 0 <= delta.index < _count_choices(call):
        raise BackendFailed("the backend's stream has a choice that was not asked for")
    if not all(_has_room(piece) for piece in delta.tool_calls):
        raise BackendFailed("the backend's stream has a tool call beyond all bounds")
    if len(delta.finish_reason or "") > _LONGEST_REASON:
        raise BackendFailed("the backend's answer has more than there is room for")


def _has_room(piece: ToolCallDelta) -> bool:
    fits = len(piece.id or "") <= LONGEST_CALL_ID and len(piece.name or "") <= _LONGEST_NAME
    return 0 <= piece.index < _MOST_TOOL_CALLS and fits


def _count_choices(call: ChatCall) -> int:
    number = call.parameters.get("n")
    return number if isinstance(number, int) else 1
