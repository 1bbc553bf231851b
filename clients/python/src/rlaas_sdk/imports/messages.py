"""Reads a chat's messages, however a tool wrote them, into RLaaS's: a role, a text, calls of tools and their
results."""

from __future__ import annotations

import json

from rlaas_sdk.imports.rows import Json, JsonObject, RowRefused, find_first

_ROLES = {"developer": "system", "human": "user", "ai": "assistant", "function": "tool"}
_ROLES |= {role: role for role in ("system", "user", "assistant", "tool")}
_TEXT_PARTS = ("text", "input_text", "output_text", "refusal")
_UNSPOKEN = ("reasoning", "thinking", "redacted_thinking")
"""Types of parts in which a model thinks; they are not part of its answer."""


def read_messages(values: list[Json], *, param: str) -> list[JsonObject]:
    """Messages as RLaaS's API takes them, from messages of OpenAI's chat and Responses APIs, with the older
    `function_call`, or with Anthropic's content blocks.

    Calls that follow each other become one message's, as in OpenAI's API; a result without an id answers the first call
    that has no result yet. `param` names the field in an error.
    Raises: RowRefused for images and anything else that is not text, and for malformed calls.
    """
    messages: list[JsonObject] = []
    open_calls: list[Json] = []
    for message in [message for n, value in enumerate(values) for message in _read_entry(value, n, param=param)]:
        calls = message.get("tool_calls")
        if message["role"] == "tool":
            answered_id = message.get("tool_call_id") or next(iter(open_calls), None)
            if answered_id is None:
                raise RowRefused("unsupported_message", f"{param} has a tool's result that answers no call", param=param)
            message["tool_call_id"] = answered_id
            open_calls = [call_id for call_id in open_calls if call_id != answered_id]
        if isinstance(calls, list):
            open_calls += [call["id"] for call in calls if isinstance(call, dict)]
            if not message["content"] and messages and messages[-1]["role"] == "assistant":
                earlier = messages[-1].get("tool_calls")
                messages[-1]["tool_calls"] = [*(earlier if isinstance(earlier, list) else []), *calls]
                continue
        messages.append(message)
    return messages


def read_tools(value: Json) -> list[Json]:
    """The functions that a request offered, in the format of OpenAI's chat API; the vendors' own tools, such as a web
    search, are left out."""
    tools: list[Json] = []
    for tool in value if isinstance(value, list) else []:
        if not isinstance(tool, dict):
            continue
        function = tool.get("function") if isinstance(tool.get("function"), dict) else tool
        if isinstance(function, dict) and isinstance(function.get("name"), str) and tool.get("type") in (None, "function", "custom"):
            definition: JsonObject = {"name": function["name"]}
            for name, names in (("description", ("description",)), ("parameters", ("parameters", "input_schema")), ("strict", ("strict",))):
                if (setting := find_first(function, *names)) is not None:
                    definition[name] = setting
            tools.append({"type": "function", "function": definition})
    return tools


def _read_entry(value: Json, place: int, *, param: str) -> list[JsonObject]:
    """The messages in one entry: a message of Anthropic's may hold several tools' results and a text."""
    if not isinstance(value, dict):
        raise RowRefused("unsupported_message", f"{param} has a message that is not an object", param=param)
    kind = value.get("type")
    if kind in _UNSPOKEN:
        return []
    if kind == "function_call":
        return [{"role": "assistant", "content": "", "tool_calls": [_read_call(value, f"call_{place}", param=param)]}]
    if kind == "function_call_output":
        return [_read_result(value.get("output"), value.get("call_id"), param=param)]
    role = _ROLES.get(str(value.get("role")).lower())
    if role is None:
        raise RowRefused("unsupported_message", f"{param} has a message whose role is none of {', '.join(_ROLES)}", param=param)
    if role == "tool":
        return [_read_result(value.get("content"), value.get("tool_call_id"), param=param)]
    texts, calls, results = _read_parts(value.get("content"), place, param=param)
    tool_calls = value.get("tool_calls")
    calls += [
        _read_call(call, f"call_{place}_{n}", param=param) for n, call in enumerate(tool_calls if isinstance(tool_calls, list) else [])
    ]
    if value.get("function_call"):
        calls.append(_read_call(value["function_call"], f"call_{place}", param=param))
    refusal = value.get("refusal")
    if isinstance(refusal, str) and not any(texts):
        texts.append(refusal)
    if not texts and not calls and not results:
        raise RowRefused("unsupported_message", f"{param} has a message without a text", param=param)
    if calls and role != "assistant":
        raise RowRefused("tool_call", f"{param} has a tool call in a message that is not the assistant's", param=param)
    message: JsonObject = {"role": role, "content": "".join(texts), **({"tool_calls": [*calls]} if calls else {})}
    return [*results, *([message] if texts or calls else [])]


def _read_parts(content: Json, place: int, *, param: str) -> tuple[list[str], list[JsonObject], list[JsonObject]]:
    """The texts, the calls and the tools' results in a message's content."""
    texts: list[str] = []
    calls: list[JsonObject] = []
    results: list[JsonObject] = []
    for n, part in enumerate([content] if isinstance(content, str) else content if isinstance(content, list) else []):
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(part, dict) and kind == "tool_use":
            calls.append(_read_call(part, f"call_{place}_{n}", param=param))
        elif isinstance(part, dict) and kind == "tool_result":
            results.append(_read_result(part.get("content"), part.get("tool_use_id"), param=param))
        elif kind not in _UNSPOKEN:
            texts.append(_read_text(part, param=param))
    return texts, calls, results


def _read_text(part: Json, *, param: str) -> str:
    if isinstance(part, str):
        return part
    text = find_first(part, "text", "refusal") if isinstance(part, dict) and part.get("type") in _TEXT_PARTS else None
    if isinstance(text, str) or (isinstance(part, dict) and part.get("text") == ""):
        return str(text or "")
    raise RowRefused("unsupported_message", f"{param} has content that is not text (an image, audio or a file)", param=param)


def _read_result(content: Json, call_id: Json, *, param: str) -> JsonObject:
    if isinstance(content, list):
        text = "".join(_read_text(part, param=param) for part in content)
    else:
        text = content if isinstance(content, str) else "" if content is None else json.dumps(content, ensure_ascii=False)
    return {"role": "tool", "content": text, "tool_call_id": call_id if isinstance(call_id, str) and call_id else None}


def _read_call(value: Json, own_id: str, *, param: str) -> JsonObject:
    """A call of a function in the format of OpenAI's chat API; its id is `own_id` where it has none."""
    call: JsonObject = value if isinstance(value, dict) else {}
    function = call.get("function")
    details: JsonObject = function if isinstance(function, dict) else call
    name, arguments = details.get("name"), find_first(details, "arguments", "args", "input")
    if not isinstance(name, str) or not name:
        raise RowRefused("tool_call", f"{param} has a tool call that names no function", param=param)
    call_id = find_first(call, "call_id", "id")
    arguments_text = arguments if isinstance(arguments, str) else json.dumps(arguments or {}, ensure_ascii=False)
    return {
        "id": call_id if isinstance(call_id, str) else own_id,
        "type": "function",
        "function": {"name": name, "arguments": arguments_text},
    }
