"""What Anthropic's clients are answered: the types of `/v1/messages` and `/v1/messages/count_tokens`.

The function makes its answers by hand; tests hold what it sends against these.
"""

from typing import Literal

from pydantic import ConfigDict, Field

from rlaas.api.hot_answers import OwnFields, make_optional
from rlaas.wire import Json, WireModel


class MessageText(WireModel):
    """A text."""

    type: Literal["text"]
    text: str


class MessageThinking(WireModel):
    """What the model thought, where the request asks for it and no guardrail checks the answer. It is not signed."""

    type: Literal["thinking"]
    thinking: str
    signature: Literal[""]


class MessageToolUse(WireModel):
    """The model's call of a tool. Arguments that are no JSON object stand as a text under `INVALID_JSON`."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Json]


class MessageOutputTokens(WireModel):
    """Of the tokens written, those that the model thought."""

    thinking_tokens: int


class MessageCacheCreation(WireModel):
    """Tokens that were written to the backend's cache, by how long they stay there."""

    ephemeral_5m_input_tokens: int
    ephemeral_1h_input_tokens: int


class MessageUsage(WireModel):
    """Tokens, by Anthropic's names: those that came from a cache or went to one are not among `input_tokens`."""

    model_config = ConfigDict(json_schema_extra=make_optional("output_tokens_details", "service_tier"))

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    cache_creation: MessageCacheCreation
    output_tokens_details: MessageOutputTokens
    service_tier: Literal["standard", "priority"]


class MessageRefusal(WireModel):
    """Why the model, or a guardrail, refused."""

    type: Literal["refusal"]
    category: None
    explanation: str | None


class MessageAnswer(OwnFields):
    """Anthropic's message; RLaaS's own fields stand under `rlaas::`."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: tuple[MessageThinking | MessageText | MessageToolUse, ...]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]
    stop_sequence: str | None
    stop_details: MessageRefusal | None
    usage: MessageUsage


class TokenCount(WireModel):
    """About how many tokens a prompt has at most: the estimate that budgets set aside."""

    input_tokens: int
    estimate: Literal[True] = Field(alias="rlaas::estimate")


class MessageFaultDetails(WireModel):
    """What Anthropic's clients go by where the type of the error does not say enough."""

    error_code: str


class MessageFault(WireModel):
    """What went wrong, in Anthropic's words."""

    type: str
    message: str
    details: MessageFaultDetails | None = None


class MessageError(WireModel):
    """Anthropic's error."""

    type: Literal["error"]
    error: MessageFault
    request_id: str | None
