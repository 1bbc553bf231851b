"""Answers from Bedrock's Converse API, for requests and with answers in the form of OpenAI's chat API."""

import json
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError, ParamValidationError
from pydantic import JsonValue

from rlaas.adapters.models.answer_repair import NO_ARGUMENTS, repair_completion, repair_deltas
from rlaas.adapters.models.openai_parameters import NamedTool, Parameters, cut_system_texts, group_turns, join_system_texts, read_parameters
from rlaas.adapters.models.sagemaker import aws_failures, whole_seconds
from rlaas.adapters.models.trace_context import trace_header
from rlaas.adapters.models.vendor_failures import blame_translation, failure, make_usage, retry_after_s
from rlaas.adapters.models.vendor_parts import bedrock_block
from rlaas.adapters.models.vendor_words import quote
from rlaas.chat import (
    UNKNOWN_PROCESSING,
    BackendFailed,
    CalledFunction,
    ChatCall,
    Choice,
    Completion,
    Delta,
    JsonObject,
    Message,
    Misconfigured,
    Processing,
    ToolCall,
    ToolCallDelta,
    Usage,
    arguments_text,
    read_arguments,
)
from rlaas.errors import RlaasError
from rlaas.parts import Part
from rlaas.policies.backend import BedrockBackend, find_cache_marks
from rlaas.prompt_cache import CacheTtl, find_longest

if TYPE_CHECKING:
    from types_boto3_bedrock_runtime import BedrockRuntimeClient
    from types_boto3_bedrock_runtime.type_defs import (
        ContentBlockOutputTypeDef,
        ConverseStreamOutputTypeDef,
        ServiceTierTypeDef,
        TokenUsageTypeDef,
    )

VENDOR = "Bedrock"
SUPPORTED = frozenset(Parameters.model_fields) - {"top_k", "user", "parallel_tool_calls"}
# Anthropic's newer models refuse these parameters even at their defaults; other vendors' models have other defaults.
_ANTHROPIC_DEFAULTS: Mapping[str, JsonValue] = {"temperature": 1, "top_p": 1}
_FINISH_REASONS = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
_TIERS = ("default", "flex", "priority")
_MALFORMED = frozenset({"malformed_model_output", "malformed_tool_use"})
_STATUSES = {
    "ValidationException": 400,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ModelTimeoutException": 408,
    "ModelErrorException": 424,
    "ModelStreamErrorException": 424,
    "ThrottlingException": 429,
    "ModelNotReadyException": 429,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
}
_WRONG_POLICY = re.compile(r"model id|inference profile|on-demand throughput|does\S* support tool|end of its life", re.IGNORECASE)
_PARAMETER = re.compile(
    r"\b(inferenceConfig\.(?:maxTokens|temperature|topP|stopSequences)|toolConfig|outputConfig|messages|system"
    r"|max_tokens|maximum tokens|temperature|top_p|stop_sequences|tools|tool_choice|output_config"
    r"|[Ii]nput is too long|prompt is too long)\b"
)
_OPENAI_NAMES = {
    "inferenceConfig.maxTokens": "max_tokens",
    "inferenceConfig.temperature": "temperature",
    "inferenceConfig.topP": "top_p",
    "inferenceConfig.stopSequences": "stop",
    "toolConfig": "tools",
    "outputConfig": "response_format",
    "output_config": "response_format",
    "stop_sequences": "stop",
    "maximum tokens": "max_tokens",
    "system": "messages",
    "Input is too long": "messages",
    "input is too long": "messages",
    "prompt is too long": "messages",
}
"""OpenAI's names of the parameters in error messages of Bedrock and of the models behind it."""


class BedrockModels:
    """`Backend` for `BedrockBackend`. One attempt a call."""

    def complete(self, backend: BedrockBackend, call: ChatCall, *, timeout_s: float) -> Completion:
        """The whole answer, within `timeout_s` seconds. Raises: BackendFailed, InvalidInput naming the parameter that
        Bedrock does not take or refuses."""
        request = converse_request(backend.model, call)
        with _failures():
            answer = runtime(backend.region, whole_seconds(timeout_s)).converse(**request)
            if answer["stopReason"] in _MALFORMED:
                raise _malformed_answer()
            blocks = answer["output"].get("message", {}).get("content", ())
            choice = Choice(
                text="".join(block.get("text", "") for block in blocks),
                finish_reason=finish_reason(answer["stopReason"]),
                tool_calls=tuple(_tool_calls(blocks)),
                reasoning_content="".join(map(_thoughts, blocks)) or None,
            )
            usage, processing = _usage(answer.get("usage")), _processing(answer.get("serviceTier"))
            return repair_completion(Completion(choices=(choice,), usage=usage, model=backend.model, processing=processing))

    def stream(self, backend: BedrockBackend, call: ChatCall, *, timeout_s: float) -> Generator[Delta, None, None]:
        """The answer piece by piece, `timeout_s` seconds between pieces. Raises: as `complete`."""
        request = converse_request(backend.model, call)
        with _failures():
            answer = runtime(backend.region, whole_seconds(timeout_s)).converse_stream(**request)
            with closing(answer["stream"]) as events:
                yield from read_deltas(events, backend.model)


def converse_request(model: str, call: ChatCall) -> dict[str, Any]:
    """Converse's arguments. Raises: InvalidInput naming the parameter that it does not take."""
    parameters = read_parameters(VENDOR, call.parameters, SUPPORTED, defaults=_ANTHROPIC_DEFAULTS if "anthropic." in model else None)
    cache = _Cache(model)
    inference: JsonObject = {
        "maxTokens": parameters.longest,
        "temperature": parameters.temperature,
        "topP": parameters.top_p,
        "stopSequences": list[JsonValue](parameters.stops) or None,
    }
    request: dict[str, object] = {
        "modelId": model,
        "messages": [_turn(*turn, cache) for turn in group_turns(call.messages)],
        "system": _system(call.messages, cache),
        "inferenceConfig": {name: value for name, value in inference.items() if value is not None},
        "toolConfig": _tool_config(parameters, call.tool_marks, cache),
        "outputConfig": _output_config(parameters),
        "requestMetadata": trace_header(call),
    }
    return {name: value for name, value in request.items() if value}


class _Cache:
    """The points up to which Bedrock keeps a prompt of the model in its cache: none where the model would refuse
    them."""

    def __init__(self, model: str) -> None:
        self._longest = find_cache_marks(BedrockBackend(model=model))
        self.takes_tools = "amazon.nova" not in model

    def points(self, ttl: CacheTtl | None) -> list[dict[str, object]]:
        """The block that keeps what is before it for `ttl`, if any."""
        if ttl is None or self._longest is None:
            return []
        for_an_hour = {"ttl": "1h"} if ttl == self._longest == "1h" else {}
        return [{"cachePoint": {"type": "default", **for_an_hour}}]


def _system(messages: Iterable[Message], cache: _Cache) -> list[dict[str, object]]:
    texts = cut_system_texts(messages)
    if not any(cache.points(ttl) for _, ttl in texts):
        return [{"text": text}] if (text := join_system_texts(messages)) else []
    blocks: list[dict[str, object]] = []
    for text, ttl in texts:
        blocks += [{"text": text}, *cache.points(ttl)]
    return blocks


def _turn(role: Literal["user", "assistant"], messages: Iterable[Message], cache: _Cache) -> dict[str, object]:
    return {"role": role, "content": [block for message in messages for block in _blocks(message, cache)]}


def _blocks(message: Message, cache: _Cache) -> Iterator[dict[str, object]]:
    if message.role == "tool":
        content = [_piece(piece) for piece in message.pieces()] if message.parts else [{"text": message.content}]
        yield {"toolResult": {"toolUseId": message.tool_call_id, "content": content}}
        ttl = find_longest(message.list_cache_ttls())  # inside of a result there is no point
    else:
        for piece, ttl_there in message.marked_pieces():
            yield _piece(piece)
            yield from cache.points(ttl_there)
        ttl = message.ends_cached_for
    for call in message.tool_calls:
        yield {"toolUse": {"toolUseId": call.id, "name": call.function.name, "input": read_arguments(call)}}
    yield from cache.points(ttl)


def _piece(piece: str | Part) -> dict[str, object]:
    return {"text": piece} if isinstance(piece, str) else bedrock_block(VENDOR, piece)


def _tool_config(parameters: Parameters, marks: Mapping[int, CacheTtl], cache: _Cache) -> dict[str, object] | None:
    """Converse's tools; None where none may be called, since Converse has no tool choice `none`."""
    if not parameters.tools or parameters.tool_choice == "none":
        return None
    tools: list[dict[str, object]] = []
    for place, tool in enumerate(parameters.tools):
        function = tool.function
        definition: JsonObject = {"name": function.name, "inputSchema": {"json": function.schema_to_send}}
        if function.description:
            definition["description"] = function.description
        if function.strict:
            definition["strict"] = True
        tools.append({"toolSpec": definition})
        tools += cache.points(marks.get(place)) if cache.takes_tools else ()
    config: dict[str, object] = {"tools": tools}
    if isinstance(parameters.tool_choice, NamedTool):
        config["toolChoice"] = {"tool": {"name": parameters.tool_choice.function.name}}
    elif parameters.tool_choice is not None:
        config["toolChoice"] = {"any" if parameters.tool_choice == "required" else "auto": {}}
    return config


def _output_config(parameters: Parameters) -> JsonObject:
    config: JsonObject = {}
    if parameters.response_format is not None:
        schema = parameters.response_format.json_schema
        definition: JsonObject = {"name": schema.name, "schema": json.dumps(schema.json_schema, ensure_ascii=False)}
        if schema.description:
            definition["description"] = schema.description
        config["textFormat"] = {"type": "json_schema", "structure": {"jsonSchema": definition}}
    if parameters.reasoning_effort is not None:
        config["effort"] = parameters.reasoning_effort
    return config


def read_deltas(events: "Iterable[ConverseStreamOutputTypeDef]", model: str) -> Iterator[Delta]:
    """The answer piece by piece; the usage last of all.

    Raises: BackendFailed when the stream ends before its `messageStop`, and what reading `events` raises.
    """
    return repair_deltas(_translate_events(events, model))


def _translate_events(events: "Iterable[ConverseStreamOutputTypeDef]", model: str) -> Iterator[Delta]:
    tools: dict[int, int] = {}
    without_arguments: set[int] = set()
    usage: Usage | None = None
    processing = UNKNOWN_PROCESSING
    finished = False
    for event in events:
        if (start := event.get("contentBlockStart")) and (tool := start["start"].get("toolUse")):
            index = tools[start["contentBlockIndex"]] = len(tools)
            without_arguments.add(index)
            yield Delta(tool_calls=(ToolCallDelta(index, id=tool["toolUseId"], name=tool["name"]),), model=model)
        elif piece := event.get("contentBlockDelta"):
            text, thoughts = piece["delta"].get("text", ""), piece["delta"].get("reasoningContent", {}).get("text")
            if text or thoughts:
                yield Delta(text=text, reasoning_content=thoughts, model=model)
            if arguments := piece["delta"].get("toolUse", {}).get("input"):
                index = tools[piece["contentBlockIndex"]]
                without_arguments.discard(index)
                yield Delta(tool_calls=(ToolCallDelta(index, arguments=arguments),), model=model)
        elif (end := event.get("contentBlockStop")) and (index := tools.get(end["contentBlockIndex"], -1)) in without_arguments:
            yield Delta(tool_calls=(ToolCallDelta(index, arguments=NO_ARGUMENTS),), model=model)
        elif stop := event.get("messageStop"):
            if stop["stopReason"] in _MALFORMED:
                raise _malformed_answer()
            finished = True
            yield Delta(finish_reason=finish_reason(stop["stopReason"]), model=model)
        elif metadata := event.get("metadata"):
            usage, processing = _usage(metadata.get("usage")), _processing(metadata.get("serviceTier"))
    if not finished:
        raise BackendFailed(f"{VENDOR} broke off before the answer was finished")
    if usage is not None or processing != UNKNOWN_PROCESSING:
        yield Delta(usage=usage, model=model, processing=processing)


def finish_reason(stop_reason: str) -> str:
    """OpenAI's finish reason for Bedrock's stop reason."""
    return _FINISH_REASONS.get(stop_reason, "stop")


def _tool_calls(blocks: "Iterable[ContentBlockOutputTypeDef]") -> Iterator[ToolCall]:
    for block in blocks:
        if tool := block.get("toolUse"):
            yield ToolCall(id=tool["toolUseId"], function=CalledFunction(name=tool["name"], arguments=arguments_text(tool["input"])))


def _thoughts(block: "ContentBlockOutputTypeDef") -> str:
    return block.get("reasoningContent", {}).get("reasoningText", {}).get("text", "")


def _usage(usage: "TokenUsageTypeDef | None") -> Usage | None:
    """The usage with all input tokens: `inputTokens` leaves out tokens read from the cache or written to it. None where
    Bedrock does not say it."""
    if usage is None:
        return None
    cached = usage.get("cacheReadInputTokens", 0)
    writes_by_ttl = [(one["ttl"], one["inputTokens"]) for one in usage.get("cacheDetails", ())]
    writes = max(usage.get("cacheWriteInputTokens", 0), sum(tokens for _, tokens in writes_by_ttl))
    return make_usage(
        input_tokens=usage["inputTokens"] + cached + writes,
        output_tokens=usage["outputTokens"],
        cached_tokens=cached,
        cache_write_tokens=writes,
        cache_write_1h_tokens=sum(tokens for ttl, tokens in writes_by_ttl if ttl == "1h"),
    )


def _processing(tier: "ServiceTierTypeDef | None") -> Processing:
    """The tier at which a call was answered; Bedrock's `reserved` has no name in OpenAI's words."""
    name = tier["type"] if tier is not None else None
    return Processing(service_tier=name) if name in _TIERS else UNKNOWN_PROCESSING


@contextmanager
def _failures() -> Iterator[None]:
    with aws_failures(VENDOR):
        try:
            yield
        except ParamValidationError as error:
            failed = failure(VENDOR, 400, param=_find_parameter(str(error)), message=str(error))
            raise blame_translation(VENDOR, failed) from error
        except ClientError as error:
            raise _read_error(error) from error
        except KeyError as error:
            raise BackendFailed(f"{VENDOR}'s answer is not a Converse answer") from error


def _read_error(error: ClientError) -> RlaasError:
    code = error.response["Error"]["Code"]
    name = code[:1].upper() + code[1:]
    message = error.response["Error"].get("Message", "")
    response = cast(Mapping[str, Any], error.response)
    original = response.get("originalStatusCode")
    status = original if name == "ModelErrorException" and isinstance(original, int) else _STATUSES.get(name, 500)
    if _WRONG_POLICY.search(message) and status == 400:
        return Misconfigured(f"{VENDOR} does not serve this model so", quote=quote(message))
    if isinstance(error, EventStreamError) and status != 400:
        return BackendFailed(f"{VENDOR} failed in mid-answer ({name})")
    headers: Mapping[str, str] = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    param, wait_s = _find_parameter(message), retry_after_s(headers)
    failed = failure(VENDOR, status, error_type=name, param=param, message=message, retry_after_s=wait_s)
    return blame_translation(VENDOR, failed) if status == 400 else failed


def _find_parameter(message: str) -> str | None:
    match = _PARAMETER.search(message)
    return _OPENAI_NAMES.get(match[1], match[1]) if match else None


def _malformed_answer() -> BackendFailed:
    return BackendFailed(f"{VENDOR}'s model wrote what cannot be read")


@lru_cache(maxsize=32)
def runtime(region: str | None, timeout_s: float) -> "BedrockRuntimeClient":
    """The client for a region (None: the stage's own) and a time-out in seconds. One attempt for each call."""
    config = Config(connect_timeout=1, read_timeout=timeout_s, retries={"total_max_attempts": 1}, max_pool_connections=50)
    runtime: BedrockRuntimeClient = boto3.client("bedrock-runtime", region_name=region, config=config)
    return runtime
