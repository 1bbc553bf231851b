"""Up to where a vendor is to keep a prompt in its cache, as Anthropic's clients mark it (`cache_control`).

A mark changes what a prompt costs and nothing of the answer. So it goes to the vendors that take it, and is neither
stored nor part of what makes two requests the same.
"""

from collections.abc import Iterable, Mapping
from typing import Literal

from pydantic import ConfigDict, Field, JsonValue, ValidationError

from rlaas.errors import InvalidInput
from rlaas.wire import WireModel, make_invalid_input

CacheTtl = Literal["5m", "1h"]
"""How long a cache keeps what was written to it, from its last use on."""
MOST_MARKS = 4
"""The most marks of a request, as Anthropic, Bedrock and OpenRouter take them."""
_NAME = "cache_control"


class CacheControl(WireModel):
    """Anthropic's mark: the prompt is kept up to the end of what has it."""

    model_config = ConfigDict(extra="ignore")

    type: Literal["ephemeral"]
    ttl: CacheTtl | None = None

    @property
    def lasts(self) -> CacheTtl:
        """How long the prompt is kept."""
        return self.ttl or "5m"


class CacheMark(WireModel):
    """The prompt is kept up to here: `at` characters into the message's text, or, with None, at the message's end."""

    ttl: CacheTtl = "5m"
    at: int | None = Field(default=None, ge=0)


def read_tool_marks(parameters: Mapping[str, JsonValue]) -> dict[int, CacheTtl]:
    """How long the prompt is kept up to a tool, by the tool's place in `tools`.

    A mark stands in the tool or in its function. Raises: InvalidInput naming the mark that cannot be read.
    """
    marks: dict[int, CacheTtl] = {}
    for place, tool in enumerate(_list_tools(parameters)):
        for holder, path in ((tool, ""), (tool.get("function"), ".function")):
            if isinstance(holder, dict) and holder.get(_NAME) is not None:
                marks[place] = _read_mark(holder[_NAME], f"tools.{place}{path}.{_NAME}")
    return marks


def drop_tool_marks(parameters: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """The parameters without the marks of their tools; themselves where there are none."""
    tools = _list_tools(parameters)
    if not any(_NAME in tool or _NAME in _read_function(tool) for tool in tools):
        return parameters
    return {**parameters, "tools": [_drop_mark(tool) for tool in tools]}


def _drop_mark(tool: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    plain = {name: value for name, value in tool.items() if name != _NAME}
    if function := _read_function(tool):
        plain["function"] = {name: value for name, value in function.items() if name != _NAME}
    return plain


def _read_function(tool: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    function = tool.get("function")
    return function if isinstance(function, dict) else {}


def _list_tools(parameters: Mapping[str, JsonValue]) -> list[dict[str, JsonValue]]:
    """The tools; none where one of them is no object, which the backend refuses."""
    tools = parameters.get("tools")
    if not isinstance(tools, list):
        return []
    objects = [tool for tool in tools if isinstance(tool, dict)]
    return objects if len(objects) == len(tools) else []


def _read_mark(value: JsonValue, param: str) -> CacheTtl:
    try:
        return CacheControl.model_validate(value).lasts
    except ValidationError as error:
        fault = make_invalid_input(error, value)
        raise InvalidInput(fault.detail, param=f"{param}.{fault.param}" if fault.param else param) from None


def find_longest(ttls: Iterable[CacheTtl]) -> CacheTtl | None:
    """The longest of `ttls`; None where there are none."""
    return max(ttls, key=lambda ttl: ttl == "1h", default=None)
