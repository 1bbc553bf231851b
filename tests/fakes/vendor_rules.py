"""What vendors refuse, by their published rules: checks of whole requests, each a list of complaints.

Anthropic: the reference of the Messages API, its guides to tool use and to moving to Claude 4.6, and the errors that it
answers. Bedrock: botocore's own model of Converse (required fields, patterns, lengths, unions), and the errors that
Converse answers. Mistral: the validator of its open library `mistral-common`. Gemini, DeepSeek and Moonshot: the errors
that their chat APIs answer.
"""

import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StringShape, StructureShape

CLAUDE_ID = re.compile(r"[a-zA-Z0-9_-]+")
CLAUDE_TOOL = re.compile(r"[a-zA-Z0-9_-]{1,128}")
CONVERSE = botocore.session.get_session().get_service_model("bedrock-runtime").shape_for("ConverseRequest")
Json = dict[str, Any]


def check_anthropic_request(body: Json, *, ends_with_assistant: bool) -> list[str]:
    """The complaints about a body of the Messages API."""
    return [*_check_json(body), *_check_turns(body["messages"], ends_with_assistant, _read_anthropic), *_check_anthropic_tools(body)]


def check_converse_request(request: Json, *, ends_with_assistant: bool) -> list[str]:
    """The complaints about Converse's arguments."""
    turns = request.get("messages", [])
    blocks = [block for turn in turns for block in turn["content"]]
    complaints = [*_check_json(request), *_check_shape(request, CONVERSE, ""), *_check_turns(turns, ends_with_assistant, _read_converse)]
    if "toolConfig" not in request and any("toolUse" in block or "toolResult" in block for block in blocks):
        complaints.append("The toolConfig field must be defined when using toolUse and toolResult content blocks.")
    tools = [tool["toolSpec"] for tool in request.get("toolConfig", {}).get("tools", [])]
    complaints += [f"inputSchema of {tool['name']}: type" for tool in tools if tool["inputSchema"]["json"].get("type") != "object"]
    choice = request.get("toolConfig", {}).get("toolChoice", {}).get("tool")
    if choice and choice["name"] not in [tool["name"] for tool in tools]:
        complaints.append("toolChoice: no such tool")
    texts = [
        content["text"] for block in blocks if "toolResult" in block for content in block["toolResult"]["content"] if "text" in content
    ]
    complaints += ["messages: text content blocks must be non-empty" for text in texts if not text.strip()]
    complaints += [f"turns {place} and {place + 1} are of one role" for place in range(len(turns) - 1) if _are_of_one_role(turns, place)]
    return complaints


def check_mistral_messages(messages: list[Json]) -> Iterator[str]:
    """The complaints about the messages of a chat with a model of Mistral's."""
    follows = {
        "system": ("user", "assistant", "system"),
        "user": ("assistant", "system", "user"),
        "assistant": ("assistant", "user", "tool"),
        "tool": ("assistant", "tool"),
    }
    for before, after in pairwise(message["role"] for message in messages):
        if after not in follows[before]:
            yield f"Unexpected role '{after}' after role '{before}'"
    if messages[-1]["role"] not in ("user", "tool"):
        yield "Expected last role User or Tool (or Assistant with prefix True) for serving"
    for message in messages:
        if message["role"] == "assistant" and not message["content"] and not message.get("tool_calls"):
            yield "Assistant message must have either content or tool_calls, but not none."
        yield from (f"unknown field {name}" for name in message.keys() - {"role", "content", "tool_calls", "tool_call_id"})
        for call in message.get("tool_calls", ()):
            if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", call["function"]["name"]):
                yield f"Function name was {call['function']['name']}"
        for id_ in [*(call["id"] for call in message.get("tool_calls", ())), *filter(None, [message.get("tool_call_id")])]:
            if not re.fullmatch(r"[a-zA-Z0-9]{9}", id_):
                yield f"Tool call id was {id_} but must be a-z, A-Z, 0-9, with a length of 9."
    yield from check_paired_calls(messages)


def check_gemini_messages(messages: list[Json]) -> Iterator[str]:
    """The complaints about the messages of a chat with Gemini by OpenAI's API."""
    turns = [message["role"] for message in messages if message["role"] != "system"]
    if turns[0] != "user":
        yield "Please ensure that function call turn comes immediately after a user turn or after a function response turn."
    if turns[-1] == "assistant":
        yield "Please ensure that multiturn requests end with a user turn or a function response."
    for message in messages:
        if not message["content"].strip() and not message.get("tool_calls"):
            yield "Unable to submit request because it must have a text parameter."
    yield from check_paired_calls(messages)


def check_paired_calls(messages: list[Json]) -> Iterator[str]:
    """The complaints of OpenAI, DeepSeek and others about calls that are not answered at once, each once."""
    waiting: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            if message["tool_call_id"] not in waiting:
                yield "Messages with role 'tool' must be a response to a preceding message with 'tool_calls'"
            waiting = [id_ for id_ in waiting if id_ != message["tool_call_id"]]
            continue
        if waiting:
            yield "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'"
        waiting = [call["id"] for call in message.get("tool_calls", ())]
    if waiting:
        yield "insufficient tool messages following tool_calls message"


def _are_of_one_role(turns: list[Json], place: int) -> bool:
    return bool(turns[place]["role"] == turns[place + 1]["role"])


def _check_json(value: Json) -> Iterator[str]:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False, default=bytes.hex).encode()
    except ValueError as error:
        yield f"no JSON: {error}"


def _read_anthropic(block: Json) -> tuple[str, Any]:
    match block:
        case {"type": "text", "text": str(text)}:
            return "text", text
        case {"type": "tool_use", "id": str(id_), "name": str(name), "input": dict()} if CLAUDE_ID.fullmatch(id_):
            return ("call", id_) if CLAUDE_TOOL.fullmatch(name) else ("bad", block)
        case {"type": "tool_result", "tool_use_id": str(id_), "content": str() | [_, *_]} if CLAUDE_ID.fullmatch(id_):
            return "result", id_
        case {"type": "image", "source": {"type": "base64", "media_type": str(), "data": str()}}:
            return "image", None
    return "bad", block


def _read_converse(block: Json) -> tuple[str, Any]:
    match block:
        case {"text": str(text)}:
            return "text", text
        case {"toolUse": {"toolUseId": str(id_), "input": dict()}}:
            return "call", id_
        case {"toolResult": {"toolUseId": str(id_), "content": [_, *_]}}:
            return "result", id_
        case {"image": _}:
            return "image", None
        case {"cachePoint": {"type": "default"}}:
            return "point", None
    return "bad", block


def _check_turns(turns: list[Json], ends_with_assistant: bool, read: Any) -> Iterator[str]:
    """The rules that both APIs have in common."""
    if not turns or turns[0]["role"] != "user":
        yield "the first message must be the user's"
    seen: set[str] = set()
    waiting: list[str] = []
    for place, turn in enumerate(turns):
        blocks = [read(block) for block in turn["content"]]
        if blocks and blocks[0][0] == "point":
            yield f"messages.{place}: a cache point needs content before it"
        blocks = [(kind, value) for kind, value in blocks if kind != "point"]
        kinds = [kind for kind, _ in blocks]
        if not blocks or turn["role"] not in ("user", "assistant"):
            yield f"messages.{place}: at least one content block, of a user or an assistant"
        yield from (f"messages.{place}: {value}" for kind, value in blocks if kind == "bad")
        yield from (f"messages.{place}: text must be non-blank" for kind, value in blocks if kind == "text" and not value.strip())
        results = [value for kind, value in blocks if kind == "result"]
        if sorted(results) != sorted(waiting) or kinds[: len(results)] != ["result"] * len(results):
            yield f"messages.{place}: begins with {results}, the calls before it are {waiting}"
        waiting = [value for kind, value in blocks if kind == "call"]
        if waiting and turn["role"] != "assistant":
            yield f"messages.{place}: a user calls tools"
        yield from (f"messages.{place}: ids must be unique: {id_}" for id_ in waiting if id_ in seen or waiting.count(id_) > 1)
        seen.update(waiting)
    if waiting:
        yield "tools were called without results after"
    if turns and turns[-1]["role"] == "assistant":
        kind, value = [pair for pair in map(read, turns[-1]["content"]) if pair[0] != "point"][-1]
        if not ends_with_assistant:
            yield "This model does not support assistant message prefill."
        elif kind == "text" and value != value.rstrip():
            yield "final assistant content cannot end with trailing whitespace"


def _check_anthropic_tools(body: Json) -> Iterator[str]:
    tools, choice = body.get("tools"), body.get("tool_choice")
    names = [tool["name"] for tool in tools or ()]
    blocks = [block for turn in body["messages"] for block in turn["content"]]
    if tools is None and any(block["type"] in ("tool_use", "tool_result") for block in blocks):
        yield "Requests which include `tool_use` or `tool_result` blocks must define tools"
    if choice is not None and not tools:
        yield "tool_choice may only be specified while providing tools"
    if choice is not None and choice["type"] == "tool" and choice["name"] not in names:
        yield "tool_choice: no such tool"
    if len(set(names)) < len(names):
        yield "tools: names must be unique"
    for place, tool in enumerate(tools or ()):
        if not CLAUDE_TOOL.fullmatch(tool["name"]):
            yield f"tools.{place}.name"
        if tool["input_schema"].get("type") != "object":
            yield f"tools.{place}.custom.input_schema.type: Field required"
    system = body.get("system", "-")
    if not all(text.strip() for text in ([system] if isinstance(system, str) else [block["text"] for block in system])):
        yield "system: text content blocks must be non-empty"


def _check_shape(value: Any, shape: Shape, path: str) -> Iterator[str]:
    """The complaints about a value by botocore's model of it: also about lengths and patterns, which only the service
    itself checks."""
    if getattr(shape, "is_document_type", False):
        return
    if isinstance(shape, StructureShape):
        yield from _check_structure(value, shape, path)
    elif isinstance(shape, ListShape):
        yield from _check_length(value, shape, path)
        for place, item in enumerate(value):
            yield from _check_shape(item, shape.member, f"{path}.{place}")
    elif isinstance(shape, MapShape):
        yield from _check_length(value, shape, path)
        for name, item in value.items():
            yield from _check_shape(item, shape.value, f"{path}.{name}")
    elif isinstance(shape, StringShape):
        yield from _check_length(value, shape, path)
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is none of {shape.enum}"
        pattern = shape.metadata.get("pattern")
        if pattern and shape.name in ("ToolUseId", "ToolName") and not re.fullmatch(pattern, value):
            yield f"{path}: {value!r} does not fit {pattern}"
    elif isinstance(value, bytes):
        yield from _check_length(value, shape, path)
    elif "min" in shape.metadata and value < shape.metadata["min"]:
        yield f"{path}: {value} is less than {shape.metadata['min']}"
    elif "max" in shape.metadata and value > shape.metadata["max"]:
        yield f"{path}: {value} is more than {shape.metadata['max']}"


def _check_structure(value: Mapping[str, Any], shape: StructureShape, path: str) -> Iterator[str]:
    yield from (f"{path}.{name} is missing" for name in shape.required_members if name not in value)
    yield from (f"{path}.{name} is unknown" for name in value if name not in shape.members)
    if shape.is_tagged_union and len(value) != 1:
        yield f"{path}: one of {sorted(shape.members)}"
    for name in value.keys() & shape.members.keys():
        yield from _check_shape(value[name], shape.members[name], f"{path}.{name}")


def _check_length(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if not shape.metadata.get("min", 0) <= len(value) <= shape.metadata.get("max", len(value)):
        yield f"{path}: has the length {len(value)}"
