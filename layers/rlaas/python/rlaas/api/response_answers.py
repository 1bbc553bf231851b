"""What applications are answered by `/v1/responses`: OpenAI's response, as far as RLaaS has it.

As in `hot_answers`, the function makes its answers by hand, and tests hold what it sends against these.
"""

from typing import Literal

from rlaas.api.hot_answers import CacheTokens, OwnFields
from rlaas.inference.response_items import RefusalText
from rlaas.inference.responses import AllowedToolsChoice, FunctionChoice, JsonObjectFormat, JsonSchema, PlainText
from rlaas.wire import Json, WireModel

_Status = Literal["completed", "incomplete"]


class ResponseCitation(WireModel):
    """A page that a text cites, and where in it: characters from 0 on."""

    type: Literal["url_citation"]
    start_index: int
    end_index: int
    title: str
    url: str


class ResponseText(WireModel):
    """Text that the model wrote, with the pages that its vendor says it cites."""

    type: Literal["output_text"]
    text: str
    annotations: tuple[ResponseCitation, ...]
    logprobs: tuple[Json, ...]


class ResponseMessage(WireModel):
    """What the model said."""

    id: str
    type: Literal["message"]
    status: _Status
    role: Literal["assistant"]
    content: tuple[ResponseText | RefusalText, ...]


class ResponseThought(WireModel):
    """Text that the model thought."""

    type: Literal["reasoning_text"]
    text: str


class ResponseReasoning(WireModel):
    """What the model thought, where its vendor says so and no guardrail checks the answer."""

    id: str
    type: Literal["reasoning"]
    status: _Status
    summary: tuple[()]
    content: tuple[ResponseThought, ...]


class ResponseFunctionCall(WireModel):
    """A call of a tool; its output names the `call_id`."""

    id: str
    type: Literal["function_call"]
    status: _Status
    call_id: str
    name: str
    arguments: str


class OutputTokens(WireModel):
    """Of the tokens written, those that the model thought; 0 where nobody counted them apart."""

    reasoning_tokens: int


class ResponseUsage(WireModel):
    """Tokens, by OpenAI's names; 0 where nobody counted them."""

    input_tokens: int
    input_tokens_details: CacheTokens
    output_tokens: int
    output_tokens_details: OutputTokens
    total_tokens: int


class IncompleteDetails(WireModel):
    """Why the answer is cut off."""

    reason: Literal["max_output_tokens", "content_filter"]


class ResponseTool(WireModel):
    """A function that the model could call."""

    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Json] | None
    strict: bool | None


class ResponseTextSettings(WireModel):
    """What form the text was to have."""

    format: PlainText | JsonObjectFormat | JsonSchema
    verbosity: str | None


class OpenAIResponse(OwnFields):
    """OpenAI's response: what was answered, and what was asked for; RLaaS's own fields stand under `rlaas::`."""

    id: str
    object: Literal["response"]
    created_at: int
    status: _Status
    error: None
    incomplete_details: IncompleteDetails | None
    model: str
    service_tier: str | None
    output: tuple[ResponseReasoning | ResponseMessage | ResponseFunctionCall, ...]
    usage: ResponseUsage
    instructions: str | None
    previous_response_id: str | None
    metadata: dict[str, str]
    tools: tuple[ResponseTool, ...]
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | AllowedToolsChoice
    parallel_tool_calls: bool
    text: ResponseTextSettings
    reasoning: dict[str, str | None]
    temperature: float | None
    top_p: float | None
    max_output_tokens: int | None
    top_logprobs: int | None
    truncation: Literal["disabled"]
    background: Literal[False]
    store: bool
