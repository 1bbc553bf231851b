"""The answers that applications get: the types of `/v1/infer`, `/v1/decide`, OpenAI's and OpenFeature's operations.

The functions make their answers by hand; tests hold what they send against these.
"""

from collections.abc import Callable
from typing import Literal

from pydantic import ConfigDict, Field, JsonValue

from rlaas.chat import ToolCall, Usage
from rlaas.clock import Timestamp
from rlaas.ids import PolicyId, SkillName
from rlaas.policies.backend import AnthropicBackend, BedrockBackend, OpenAIBackend, SageMakerBackend
from rlaas.routing.assign import Decision
from rlaas.wire import Json, WireModel


def make_optional(*names: str) -> Callable[[dict[str, JsonValue]], None]:
    """Declare that the fields `names` may be left out."""

    def change(schema: dict[str, JsonValue]) -> None:
        required = schema["required"]
        assert isinstance(required, list)
        schema["required"] = [name for name in required if name not in names]

    return change


def _leave_out(name: str) -> Callable[[dict[str, JsonValue]], None]:
    """Declare that the field `name` is not sent."""

    def change(schema: dict[str, JsonValue]) -> None:
        make_optional(name)(schema)
        properties = schema["properties"]
        assert isinstance(properties, dict)
        del properties[name]

    return change


class AnsweredCall(ToolCall):
    """A model's call of a tool, with what its vendor must get back with it where it says so."""

    model_config = ConfigDict(json_schema_extra=make_optional("extra_content"))


class InferAnswer(WireModel):
    """What the skill's policy answered; `cost_usd` is null where the model has no price."""

    model_config = ConfigDict(json_schema_extra=make_optional("reasoning_content"))

    interaction_id: str
    output_id: str
    feedback_token: str
    text: str
    tool_calls: tuple[AnsweredCall, ...]
    policy_id: PolicyId
    decision: Decision
    usage: Usage | None
    cost_usd: float | None
    finish_reason: str | None
    latency_ms: float
    idempotent_replay: bool
    reasoning_content: str = Field(description="What the model thought, where it says so and no guardrail checks the answer.")


class AskedOpenAI(OpenAIBackend):
    """OpenAI, or a server that speaks its API, without the name of its secret."""

    model_config = ConfigDict(json_schema_extra=_leave_out("secret"))


class AskedAnthropic(AnthropicBackend):
    """Anthropic, without the name of its secret."""

    model_config = ConfigDict(json_schema_extra=_leave_out("secret"))


class AskedMessage(WireModel):
    """A message as OpenAI's chat API takes it."""

    model_config = ConfigDict(json_schema_extra=make_optional("name", "tool_calls", "tool_call_id", "reasoning_content"))

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    name: str
    tool_calls: tuple[AnsweredCall, ...]
    tool_call_id: str
    reasoning_content: str


class DecideDryRun(WireModel):
    """Which policy would answer, and what its model would be asked."""

    interaction_id: str
    output_id: str
    policy_id: PolicyId
    decision: Decision
    backend: SageMakerBackend | AskedOpenAI | AskedAnthropic | BedrockBackend
    messages: tuple[AskedMessage, ...]
    parameters: dict[str, Json]


class Grant(WireModel):
    """A grant: the address and the key with which an OpenAI client asks one model of the endpoint."""

    base_url: str
    api_key: str
    expires_at: Timestamp


class DecideAnswer(DecideDryRun):
    """Which policy is to answer and what its model is to be asked; `decision_token` goes with the report of its
    answer."""

    decision_token: str
    feedback_token: str
    grant: Grant | None
    idempotent_replay: bool


class OwnFields(WireModel):
    """RLaaS's own fields of an answer in another API."""

    interaction_id: str = Field(alias="rlaas::interaction_id")
    policy_id: PolicyId = Field(alias="rlaas::policy_id")
    decision: Decision = Field(alias="rlaas::decision")
    feedback_token: str = Field(alias="rlaas::feedback_token")
    cost_usd: float | None = Field(alias="rlaas::cost_usd")


class AnsweredMessage(WireModel):
    """What the model said."""

    model_config = ConfigDict(json_schema_extra=make_optional("tool_calls", "reasoning_content", "annotations"))

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: tuple[AnsweredCall, ...]
    reasoning_content: str = Field(description="What the model thought, where it says so and no guardrail checks the answer.")
    annotations: tuple[dict[str, Json], ...] = Field(description="The pages that the text cites, as OpenAI has them.")


class ChatChoice(WireModel):
    """One of the answers."""

    index: int
    message: AnsweredMessage
    logprobs: Json
    finish_reason: str


class CacheTokens(WireModel):
    """The tokens of a prompt that came from the backend's cache, and those that were written to it; 0 where nobody
    counted them."""

    cached_tokens: int
    cache_write_tokens: int


class ReasoningTokens(WireModel):
    """The tokens of an answer that the model thought before it."""

    reasoning_tokens: int


class ChatUsage(WireModel):
    """Tokens, by OpenAI's names."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CacheTokens
    completion_tokens_details: ReasoningTokens


class ChatCompletion(OwnFields):
    """OpenAI's chat completion; RLaaS's own fields stand under `rlaas::`."""

    model_config = ConfigDict(json_schema_extra=make_optional("system_fingerprint", "service_tier"))

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: tuple[ChatChoice, ...]
    usage: ChatUsage | None
    system_fingerprint: str
    service_tier: str


class ListedModel(WireModel):
    """A skill or a policy, as OpenAI's model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(WireModel):
    """The tenant's skills, then their policies."""

    object: Literal["list"]
    data: tuple[ListedModel, ...]


class FlagMetadata(WireModel):
    """How the arm was dealt."""

    propensity: float
    route_version: int
    reason: str


class Flag(WireModel):
    """A skill's arm: its value is the policy that answers."""

    key: SkillName
    value: PolicyId
    variant: str
    reason: Literal["SPLIT", "STATIC"]
    metadata: FlagMetadata


class FlagRefusal(WireModel):
    """A skill whose arm depends on a unit that the request does not name."""

    key: SkillName
    errorCode: str
    errorDetails: str


class FlagList(WireModel):
    """Every skill's arm."""

    flags: tuple[Flag | FlagRefusal, ...]
