"""OpenAI's chat request, read for vendors with another API: its parameters with their types, and its messages as
turns. The messages are valid for the vendor (`valid_history`)."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from rlaas.adapters.models.closed_schemas import close_schema
from rlaas.adapters.models.vendor_failures import select_parameters
from rlaas.chat import JsonObject, Message
from rlaas.errors import InvalidInput
from rlaas.prompt_cache import CacheTtl
from rlaas.wire import make_invalid_input


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


def _make_object_schema(schema: JsonValue) -> JsonValue:
    """The schema as that of an object, which vendors other than OpenAI want said."""
    if schema is None or (isinstance(schema, dict) and schema.get("type") is None):
        return {"properties": {}, **(schema or {}), "type": "object"}
    return schema


class ToolFunction(_Strict):
    """A function that the model may call; `parameters` is its arguments' JSON schema."""

    name: str
    description: str | None = None
    parameters: Annotated[JsonObject, BeforeValidator(_make_object_schema)] = Field(default=None, validate_default=True)
    strict: bool | None = None

    @property
    def schema_to_send(self) -> JsonObject:
        """The arguments' schema; where they have to fit it, as models take it that are held to one."""
        return close_schema(self.parameters) if self.strict else self.parameters


class OfferedTool(_Strict):
    """A tool of the type `function`, the only type that is passed on."""

    type: Literal["function"]
    function: ToolFunction


class NamedFunction(_Strict):
    """A function by its name."""

    name: str


class NamedTool(_Strict):
    """The one tool that the model has to call."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(_Strict):
    """The tools that the model may call, or has to call one of."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1)


class _AllowedToolsChoice(_Strict):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


class NamedSchema(_Strict):
    """The JSON schema of a structured answer."""

    name: str
    description: str | None = None
    json_schema: Annotated[JsonObject, AfterValidator(close_schema)] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(_Strict):
    """An answer in JSON that fits a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class Parameters(_Strict):
    """The parameters that vendors other than OpenAI take; each takes some of them."""

    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0)
    stop: str | list[str] | None = None
    tools: list[OfferedTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: JsonSchemaFormat | None = None
    reasoning_effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    user: str | None = None

    @property
    def longest(self) -> int | None:
        """The most tokens that the answer may have; None where the request does not say."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> list[str]:
        """The texts that end the answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


def read_parameters(
    vendor: str, parameters: Mapping[str, JsonValue], supported: frozenset[str], *, defaults: Mapping[str, JsonValue] | None = None
) -> Parameters:
    """The `parameters` to send to `vendor`, with their types. Raises: InvalidInput naming the parameter that it does
    not take, or not with this value."""
    try:
        return Parameters.model_validate(select_parameters(vendor, parameters, supported, defaults=defaults))
    except ValidationError as error:
        name = str(error.errors(include_input=False, include_url=False)[0]["loc"][0])
        raise InvalidInput(f"{vendor} does not take {name!r} as it is", param=name) from None


def join_system_texts(messages: Iterable[Message]) -> str:
    """The texts of all system messages, separated by blank lines."""
    return "\n\n".join(message.content for message in messages if message.role == "system")


def find_allowed_tools(parameters: Mapping[str, JsonValue]) -> AllowedTools | None:
    """The tools that `tool_choice` allows; None for another choice. Raises: InvalidInput for one that is malformed."""
    choice = parameters.get("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return None
    try:
        return _AllowedToolsChoice.model_validate(choice).allowed_tools
    except ValidationError as error:
        fault = make_invalid_input(error, choice)
        raise InvalidInput(fault.detail, param=f"tool_choice.{fault.param}") from None


def cut_system_texts(messages: Iterable[Message]) -> list[tuple[str, CacheTtl | None]]:
    """The same, cut where a cache is to keep the prompt, and for how long it is to; blank pieces are left out."""
    pieces: list[tuple[str, CacheTtl | None]] = []
    for message in messages:
        if message.role != "system":
            continue
        texts = [(piece, ttl) for piece, ttl in message.marked_pieces() if isinstance(piece, str)]
        pieces += [*texts[:-1], *((text, message.ends_cached_for or ttl) for text, ttl in texts[-1:])]
    return pieces


def group_turns(messages: Iterable[Message]) -> list[tuple[Literal["user", "assistant"], list[Message]]]:
    """The other messages as turns that alternate; the results of tools belong to the user's turn."""
    turns: list[tuple[Literal["user", "assistant"], list[Message]]] = []
    for message in messages:
        if message.role == "system":
            continue
        role: Literal["user", "assistant"] = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1][0] == role:
            turns[-1][1].append(message)
        else:
            turns.append((role, [message]))
    return turns
