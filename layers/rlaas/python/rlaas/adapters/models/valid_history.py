"""Makes a call valid for the vendor that is asked.

A history may have another vendor's ids and names, and clients break off, leave results out or drop the first messages.
The sender cannot know which vendor will answer: the route decides.
"""

import re
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import sha256

from pydantic import JsonValue

from rlaas.adapters.models.history_rules import HistoryRules, NameRule
from rlaas.adapters.models.openai_parameters import find_allowed_tools
from rlaas.chat import (
    ChatCall,
    Completion,
    Delta,
    JsonObject,
    Message,
    ToolCall,
    arguments_text,
    parse_arguments,
    read_arguments,
)
from rlaas.errors import InvalidInput
from rlaas.prompt_cache import CacheTtl

NO_RESULT = "The tool was not run."
EMPTY_RESULT = "(empty)"
BEGINNING = "(The assistant begins.)"
CONTINUE = "Continue from where you left off."
NOTHING_SAID = "(The assistant said nothing.)"
_Name = tuple[str, int]
"""A name, and how many things had the same name before it: some histories use an id for several calls."""
_Place = tuple[int, int]
"""Where a call stands: its message's place among the messages, and its own among the message's calls."""


@dataclass(frozen=True, slots=True)
class ValidCall:
    """A call that a vendor takes, the caller's names of the tools that have another name in it, and whether anything in
    it is another than the caller's."""

    call: ChatCall
    callers_names: Mapping[str, str]
    is_changed: bool

    def name_tools(self, completion: Completion) -> Completion:
        """The vendor's answer with the caller's names of tools."""
        if not self.callers_names:
            return completion
        choices = [
            replace(choice, tool_calls=tuple(_rename_tool(call, self.callers_names) for call in choice.tool_calls))
            for choice in completion.choices
        ]
        return replace(completion, choices=tuple(choices))

    def name_tools_in_stream(self, deltas: Generator[Delta, None, None]) -> Generator[Delta, None, None]:
        """The vendor's streamed answer with the caller's names of tools. Closing it closes `deltas`."""
        return self._rename_pieces(deltas) if self.callers_names else deltas

    def _rename_pieces(self, deltas: Generator[Delta, None, None]) -> Generator[Delta, None, None]:
        with closing(deltas):
            for delta in deltas:
                pieces = (replace(piece, name=self.callers_names.get(piece.name or "", piece.name)) for piece in delta.tool_calls)
                yield replace(delta, tool_calls=tuple(pieces)) if delta.tool_calls else delta


def make_valid(call: ChatCall, rules: HistoryRules) -> ValidCall:
    """`call` as a vendor with these rules takes it; what the vendor takes already stays as it is.

    Raises: InvalidInput when no message has any content and the vendor needs some.
    """
    messages: Sequence[Message] = call.messages
    names = dict[str, str]()
    parameters, tool_marks = (call.parameters, call.tool_marks) if rules.takes_allowed_tools else _leave_out_tools(call)
    if any(message.tool_calls or message.role == "tool" for message in messages):
        messages, parameters = _make_calls_valid(messages, parameters, rules)
    if rules.tool_names is not None and (names := _list_new_names(messages, parameters, rules.tool_names)):
        messages = [_replace_calls(message, (_rename_tool(one, names) for one in message.tool_calls)) for message in messages]
        parameters = _rename_in_parameters(parameters, names)
    if any(message.name is not None for message in messages):
        messages = [_tell_name(message, rules.speaker_names) for message in messages]
    if not rules.extra_fields:
        messages = [message.without_extras() for message in messages]
    elif not rules.takes_thoughts:
        messages = [_forget(message) for message in messages]
    if rules.takes_turns:
        messages = _take_turns(messages, ends_with_assistant=rules.ends_with_assistant)
    if rules.speaks_after_results:
        messages = list(_speak_after_results(messages))
    if parameters is call.parameters and tuple(messages) == call.messages:
        return ValidCall(call, {}, is_changed=False)
    valid = replace(call, messages=tuple(messages), parameters=parameters, tool_marks=tool_marks)
    return ValidCall(valid, {new: old for old, new in names.items()}, is_changed=True)


def _make_calls_valid(
    messages: Sequence[Message], parameters: Mapping[str, JsonValue], rules: HistoryRules
) -> tuple[Sequence[Message], Mapping[str, JsonValue]]:
    if rules.call_ids is not None:
        messages = list(_pair_results(messages, rules.call_ids))
    if rules.unsigned is not None:
        messages = [_sign(message, rules.unsigned) for message in messages]
    if rules.unthought is not None:
        messages = [_think(message, rules.unthought) for message in messages]
    if rules.object_arguments:
        messages = [_replace_calls(message, map(_make_object_arguments, message.tool_calls)) for message in messages]
    if rules.calls_without_tools == "write_out" and (not parameters.get("tools") or parameters.get("tool_choice") == "none"):
        messages = list(_write_calls(messages))
    elif rules.calls_without_tools == "declare" and not parameters.get("tools"):
        parameters = {**parameters, "tools": _declare_tools(messages), "tool_choice": "none"}
    return messages, parameters


def _rename(names: Iterable[_Name], rule: NameRule) -> dict[_Name, str]:
    """A name that fits the rule for each of `names`: its own where it fits and nothing before it had it.

    Distinct names stay distinct. A name gets the same new name in every request, unless another was made to collide.
    """
    distinct = dict.fromkeys(names)
    new = {(name, nth): name for name, nth in distinct if nth == 0 and rule.takes(name)}
    in_use = set(new.values())
    for name in distinct:
        tries = 0
        while name not in new:
            candidate = _make_name(name, tries, rule)
            if candidate not in in_use:
                new[name] = candidate
                in_use.add(candidate)
            tries += 1
    return new


def _make_name(name: _Name, tries: int, rule: NameRule) -> str:
    text, nth = name
    digest = sha256(f"{tries}:{nth}:{text}".encode(errors="surrogatepass")).hexdigest()
    readable = re.sub(r"[^a-zA-Z0-9_-]", "_", text)[: max(0, rule.longest - 9)]
    candidate = f"{readable}_{digest[:8]}"
    return candidate if rule.takes(candidate) else digest[: rule.longest]


def _pair_results(messages: Sequence[Message], rule: NameRule) -> Iterator[Message]:
    """The messages, each call with an id of its own and followed by its result.

    A result without a call becomes a text of the user.
    """
    results = _find_results(messages)
    uses: Counter[str] = Counter()
    names: dict[_Place, _Name] = {}
    for place, message in enumerate(messages):
        for position, call in enumerate(message.tool_calls):
            names[place, position] = (call.id, uses[call.id])
            uses[call.id] += 1
    ids = _rename(names.values(), rule)
    paired = set(results.values())
    for place, message in enumerate(messages):
        if message.role != "tool":
            new = [ids[names[place, position]] for position in range(len(message.tool_calls))]
            yield _replace_calls(message, (_replace_id(call, id_) for call, id_ in zip(message.tool_calls, new, strict=True)))
            for position, id_ in enumerate(new):
                answer = results.get((place, position))
                result = Message(role="tool", content=NO_RESULT, tool_call_id=id_) if answer is None else messages[answer]
                yield result if result.tool_call_id == id_ else result.model_copy(update={"tool_call_id": id_})
        elif place not in paired:
            yield _write_result("A tool", message)


def _find_results(messages: Sequence[Message]) -> dict[_Place, int]:
    """For each call, the place of the message that answers it. An id stands for the last call that has it."""
    results: dict[_Place, int] = {}
    waiting: dict[str | None, deque[_Place]] = {}
    for place, message in enumerate(messages):
        waiting.update((call.id, deque()) for call in message.tool_calls)
        for position, call in enumerate(message.tool_calls):
            waiting[call.id].append((place, position))
        if message.role == "tool" and waiting.get(message.tool_call_id):
            results[waiting[message.tool_call_id].popleft()] = place
    return results


def _write_calls(messages: Iterable[Message]) -> Iterator[Message]:
    """The messages, with calls and results written as texts."""
    names: dict[str | None, str] = {}
    for message in messages:
        names.update((call.id, call.function.name) for call in message.tool_calls)
        if message.role == "tool":
            yield _write_result(f"The tool {names[message.tool_call_id]}", message)
        elif message.tool_calls:
            calls = (f"Called the tool {call.function.name} with {call.function.arguments or '{}'}" for call in message.tool_calls)
            texts = (message.content, *calls) if message.content.strip() else calls
            yield message.model_copy(update={"content": "\n\n".join(texts), "tool_calls": ()})
        else:
            yield message


def _write_result(tool: str, message: Message) -> Message:
    """A tool's result as a text of the user."""
    content = message.content if _has_content(message) else EMPTY_RESULT
    words = f"{tool} answered: "
    return prefix(message.model_copy(update={"role": "user", "content": content, "tool_call_id": None}), words)


def prefix(message: Message, words: str) -> Message:
    """The message with `words` before its text."""
    parts = tuple(part.model_copy(update={"at": part.at + len(words)}) for part in message.parts)
    marks = tuple(mark if mark.at is None else mark.model_copy(update={"at": mark.at + len(words)}) for mark in message.cache_marks)
    return message.model_copy(update={"content": words + message.content, "parts": parts, "cache_marks": marks})


def _has_content(message: Message) -> bool:
    return bool(message.content.strip() or message.parts)


def _take_turns(messages: Sequence[Message], *, ends_with_assistant: bool) -> list[Message]:
    """The messages without blank texts, those of the system first, then one of the user. Raises: InvalidInput where
    nothing is left."""
    filled = [_fill(message) for message in messages if _has_content(message) or message.tool_calls or message.role == "tool"]
    system = [message for message in filled if message.role == "system"]
    turns = [message for message in filled if message.role != "system"]
    if not filled:
        raise InvalidInput("the messages have no content", param="messages")
    if not turns:  # a system's message alone is a request: the vendor gets it as the user's
        return [message.model_copy(update={"role": "user"}) for message in system]
    if turns[0].role == "assistant":
        turns.insert(0, Message(role="user", content=BEGINNING))
    if turns[-1].role == "assistant" and ends_with_assistant:
        turns[-1] = turns[-1].model_copy(update={"content": turns[-1].content.rstrip()})
    elif turns[-1].role == "assistant":
        turns.append(Message(role="user", content=CONTINUE))
    return [*system, *turns]


def _fill(message: Message) -> Message:
    """The message with an empty text in place of a blank one; a blank result gets a word."""
    if _has_content(message):
        return message
    return message.model_copy(update={"content": EMPTY_RESULT if message.role == "tool" else ""})


def _tell_name(message: Message, speaker_names: NameRule | None) -> Message:
    """The message with its speaker's name where the vendor takes it.

    Else the name stands before the text, so that a conversation of several users stays one; an assistant, who would
    begin its answers so, has none.
    """
    if message.name is None or (speaker_names is not None and speaker_names.takes(message.name)):
        return message
    nameless = message.model_copy(update={"name": None})
    if message.role == "assistant" or not _has_content(message):
        return nameless
    return prefix(nameless, f"{message.name}: ")


def _sign(message: Message, extra_content: Mapping[str, JsonValue]) -> Message:
    """The message with `extra_content` on its first call, unless one of its calls has some."""
    if not message.tool_calls or any(call.extra_content is not None for call in message.tool_calls):
        return message
    first, *others = message.tool_calls
    return _replace_calls(message, (first.model_copy(update={"extra_content": dict(extra_content)}), *others))


def _think(message: Message, thoughts: str) -> Message:
    """The message with `thoughts` where it is an assistant's that has none."""
    if message.role != "assistant" or message.reasoning_content:
        return message
    return message.model_copy(update={"reasoning_content": thoughts})


def _forget(message: Message) -> Message:
    """The message without thoughts."""
    return message if message.reasoning_content is None else message.model_copy(update={"reasoning_content": None})


def _speak_after_results(messages: Iterable[Message]) -> Iterator[Message]:
    """The messages, with a word of the assistant's between a tool's result and the user."""
    last = None
    for message in messages:
        if last == "tool" and message.role == "user":
            yield Message(role="assistant", content=NOTHING_SAID)
        yield message
        last = message.role


def _make_object_arguments(call: ToolCall) -> ToolCall:
    """The call with arguments that are a JSON object: its own where they are one."""
    if call.function.arguments.strip() and parse_arguments(call) is not None:
        return call
    return _replace_function(call, arguments=arguments_text(read_arguments(call)))


def _declare_tools(messages: Iterable[Message]) -> list[JsonValue]:
    """The tools that the messages call, as a request offers them."""
    names = dict.fromkeys(call.function.name for message in messages for call in message.tool_calls)
    return [{"type": "function", "function": {"name": name}} for name in names]


def _list_new_names(messages: Iterable[Message], parameters: Mapping[str, JsonValue], rule: NameRule) -> dict[str, str]:
    """The names for tools whose own do not fit the rule, by their own: tools that are offered, called, or to be
    called."""
    functions = (*_list_functions(parameters), _find_function(parameters.get("tool_choice")), *_list_allowed(parameters))
    offered = [name for function in functions if isinstance(name := function.get("name"), str)]
    called = [call.function.name for message in messages for call in message.tool_calls]
    new = _rename(((name, 0) for name in (*offered, *called)), rule)
    return {name: renamed for (name, _), renamed in new.items() if renamed != name}


def _leave_out_tools(call: ChatCall) -> tuple[Mapping[str, JsonValue], Mapping[int, CacheTtl]]:
    """The parameters, whose `tools` are those that may be called where the choice names them, and the tools' marks.

    Raises: InvalidInput where it names none of them.
    """
    choice = find_allowed_tools(call.parameters)
    tools = call.parameters.get("tools")
    if choice is None:
        return call.parameters, call.tool_marks
    names = {tool.function.name for tool in choice.tools}
    places = [place for place, tool in enumerate(tools if isinstance(tools, list) else ()) if _find_function(tool).get("name") in names]
    if not isinstance(tools, list) or not places:
        raise InvalidInput("tool_choice allows none of the tools", param="tool_choice")
    parameters = {**call.parameters, "tools": [tools[place] for place in places], "tool_choice": choice.mode}
    return parameters, {new: call.tool_marks[old] for new, old in enumerate(places) if old in call.tool_marks}


def _list_functions(parameters: Mapping[str, JsonValue]) -> list[JsonObject]:
    tools = parameters.get("tools")
    return [_find_function(tool) for tool in tools] if isinstance(tools, list) else []


def _list_allowed(parameters: Mapping[str, JsonValue]) -> list[JsonObject]:
    """The functions that the choice of tools allows."""
    choice = parameters.get("tool_choice")
    allowed = choice.get("allowed_tools") if isinstance(choice, dict) else None
    return _list_functions(allowed) if isinstance(allowed, dict) else []


def _find_function(tool: JsonValue) -> JsonObject:
    """The function of a tool or of a choice of one; empty where it has none."""
    function = tool.get("function") if isinstance(tool, dict) else None
    return function if isinstance(function, dict) else {}


def _rename_in_parameters(parameters: Mapping[str, JsonValue], names: Mapping[str, str]) -> dict[str, JsonValue]:
    def rename(tool: JsonValue) -> JsonValue:
        function = _find_function(tool)
        name = function.get("name")
        if not isinstance(tool, dict) or not isinstance(name, str):
            return tool
        return {**tool, "function": {**function, "name": names.get(name, name)}}

    renamed = dict(parameters)
    tools = parameters.get("tools")
    if isinstance(tools, list):
        renamed["tools"] = [rename(tool) for tool in tools]
    choice = parameters.get("tool_choice")
    if isinstance(choice, dict) and isinstance(allowed := choice.get("allowed_tools"), dict):
        renamed["tool_choice"] = {**choice, "allowed_tools": _rename_in_parameters(allowed, names)}
    elif "tool_choice" in parameters:
        renamed["tool_choice"] = rename(choice)
    return renamed


def _rename_tool(call: ToolCall, names: Mapping[str, str]) -> ToolCall:
    name = names.get(call.function.name)
    return call if name is None else _replace_function(call, name=name)


def _replace_function(call: ToolCall, **changes: str) -> ToolCall:
    return call.model_copy(update={"function": call.function.model_copy(update=changes)})


def _replace_id(call: ToolCall, id_: str) -> ToolCall:
    return call if call.id == id_ else call.model_copy(update={"id": id_})


def _replace_calls(message: Message, calls: Iterable[ToolCall]) -> Message:
    """The message with other calls; itself where they are its own."""
    new = tuple(calls)
    same = all(one is other for one, other in zip(new, message.tool_calls, strict=True))
    return message if same else message.model_copy(update={"tool_calls": new})
