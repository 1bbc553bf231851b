"""What clients report: interactions, outputs, feedback, task results; and what RLaaS adds: rewards, and what guardrails
did.

Ids that the client leaves out are made by the service. Free data goes into `metadata`; any other unknown field is
refused by name.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from rlaas.chat import Document, Message, ToolCall, Usage
from rlaas.clock import Timestamp
from rlaas.ids import ExternalId, MetricName, PolicyId, SkillName, UserId, find_interaction_id
from rlaas.routing.assign import Decision
from rlaas.routing.decision_token import LONGEST
from rlaas.telemetry.feedback_token import LONGEST as LONGEST_FEEDBACK_TOKEN
from rlaas.wire import Json, WireModel

EventType = Literal["interaction", "output", "feedback", "task_result", "reward", "guardrail", "failure"]
Tag = Annotated[str, Field(min_length=1, max_length=64)]
Label = Annotated[str, Field(min_length=1, max_length=128)]
KeyId = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,64}$")]
FeedbackToken = Annotated[str, Field(max_length=LONGEST_FEEDBACK_TOKEN)]
MOST_REPORTED_TOKENS = 10**7
"""Of one output, as an application reports it: no model reads more."""
_DAY_MS = 24 * 3600 * 1000


class Event(WireModel):
    """What every event has. `occurred_at` is the client's time; the service keeps its own `received_at` beside it."""

    schema_version: Literal["1"] = "1"
    skill: SkillName
    thread_id: ExternalId | None = None
    user_id: UserId = None
    occurred_at: Timestamp | None = None
    metadata: dict[str, Json] = Field(default_factory=dict)
    tags: tuple[Tag, ...] = Field(default=(), max_length=32)
    dryrun: bool = Field(default=False, description="Check and answer as ever, and store nothing.")

    @property
    def cut_fields(self) -> tuple[str, ...]:
        """The fields that were too large to be stored with it, in part or as a whole."""
        names = self.metadata.get("cut")
        return tuple(str(name) for name in names) if isinstance(names, list) else ()


class InteractionCreated(Event):
    """A request that an application's user made: the skill's inputs, or a chat's messages; with the documents to ground
    the answer on and the model's parameters, where the request brought any."""

    interaction_id: ExternalId | None = None
    inputs: dict[str, str] | None = None
    messages: tuple[Message, ...] | None = None
    documents: tuple[Document, ...] = Field(default=(), max_length=100)
    parameters: dict[str, Json] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _inputs_or_messages(self) -> Self:
        if self.inputs is None and self.messages is None:
            raise ValueError("needs inputs or messages")
        return self


class OutputProduced(Event):
    """What a policy answered. `messages` is the prompt as the model saw it, so that training sees what serving saw."""

    output_id: ExternalId | None = None
    interaction_id: ExternalId
    policy_id: PolicyId | None = None
    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_content: str | None = Field(default=None, description="What the model thought, which some vendors want back.")
    messages: tuple[Message, ...] | None = None
    decision: Decision | None = Field(default=None, description="RLaaS's own: clients send the decision_token in its place.")
    decision_token: Annotated[str, Field(max_length=LONGEST)] | None = Field(
        default=None, description="What /v1/decide gave for this output. The decision that it holds is stored."
    )
    usage: Usage | None = None
    estimated_usage: Usage | None = Field(
        default=None,
        description="RLaaS's own: what it used where the backend did not tell the usage to the end, from what was told, read and written.",
    )
    model: Annotated[str, Field(max_length=256)] | None = Field(default=None, description="The backend's model that answered.")
    cost_usd: float | None = Field(default=None, ge=0, le=1e6, description="What the tokens cost, by the prices of `price_version`.")
    price_version: int | None = Field(default=None, ge=0)
    key_id: KeyId | None = Field(default=None, description="The API key that asked.")
    latency_ms: float | None = Field(default=None, ge=0, le=_DAY_MS)
    finish_reason: Label | None = None


class FeedbackSubmitted(Event):
    """What a person did with an output; `kind` says which one of the other fields is given.

    It is about an output, or about an interaction as a whole; `interaction_id` may be left out where the output's id
    holds it (`out_<ULID>`). A metric of level `thread` is about `thread_id` and names neither. A page names only the
    skill: its token says what the feedback is about, and it may be about nothing else.
    """

    feedback_id: ExternalId | None = None
    interaction_id: ExternalId | None = None
    output_id: ExternalId | None = None
    kind: Literal["edit", "action", "rating", "comparison", "comment", "label", "metric"]
    final_text: str | None = None
    action: Literal["sent", "discarded", "regenerated"] | None = None
    rating: float | None = Field(default=None, ge=0, le=1)
    preferred_output_id: ExternalId | None = None
    comment: str | None = None
    label: Label | None = None
    metric: MetricName | None = Field(default=None, description="The name of one of the skill's metrics.")
    value: bool | float | str | None = Field(default=None, description="The metric's value, of the metric's type.")
    feedback_token: FeedbackToken | None = Field(
        default=None, description="What RLaaS gave with the output. Reports by a publishable key need it. It is not stored."
    )
    preferred_feedback_token: FeedbackToken | None = Field(default=None, description="The same for `preferred_output_id`.")
    page_key_id: KeyId | None = Field(default=None, description="RLaaS's own: the publishable key that a page reported this by.")

    @model_validator(mode="after")
    def _fields_of_kind(self) -> Self:
        fields_of = {"edit": ["final_text"], "comparison": ["preferred_output_id"], "metric": ["metric", "value"]}
        fields = ("final_text", "action", "rating", "preferred_output_id", "comment", "label", "metric", "value")
        needed = fields_of.get(self.kind, [self.kind])
        names = [name for name in fields if getattr(self, name) is not None]
        if names != needed:
            needed_names = " and ".join(repr(name) for name in needed)
            raise ValueError(f"feedback of kind {self.kind!r} needs {needed_names} and no other of {', '.join(fields)}")
        return self

    @model_validator(mode="after")
    def _about_something(self) -> Self:
        if self.about is None and self.feedback_token is None and (self.kind != "metric" or self.thread_id is None):
            raise ValueError(
                "needs interaction_id, or an output_id of the form out_<ULID> that holds it, or a metric of a thread and thread_id"
            )
        return self

    @property
    def about(self) -> str | None:
        """The interaction it is about; `None` for a thread's metric."""
        return self.interaction_id or (find_interaction_id(self.output_id) if self.output_id else None)


class TaskResultReported(Event):
    """A business outcome that became known later, such as `resolved` or `csat`."""

    task_result_id: ExternalId | None = None
    interaction_id: ExternalId
    name: Label
    value: bool | float | str


class RewardComputed(Event):
    """An output's reward from all feedback so far: the weighted mean of `components`, each in [0, 1]. Readers keep the
    highest `n`.

    `event_ids` are the edit and the action that it is made from. `edit_measure` is `pieces` where the changed part of
    the texts was too long to be compared as a whole: `edit_similarity` is then a lower bound, off by a few hundredths.
    """

    reward_id: ExternalId
    interaction_id: ExternalId
    output_id: ExternalId
    reward: float = Field(ge=0, le=1)
    components: dict[str, float]
    edit_measure: Literal["pieces"] | None = None
    n: int = Field(ge=1)
    event_ids: tuple[ExternalId, ...]
    policy_id: PolicyId | None = None
    arm: str | None = None
    propensity: float | None = None
    route_version: int | None = None
    rollout_id: str | None = None
    fallback: bool = False


class GuardrailActed(Event):
    """A guardrail of a policy did something about a request or an answer. Made by RLaaS alone; `reason` holds no text
    of either.

    `guardrail` is its name in the policy, `kind` what it looks for, `score` how sure it was, from 0 to 1, where it says
    so. `failed`: it could not look, and acted as its `on_failure` says. `position` counts the actions of one request
    from 0 on.
    """

    guardrail_id: ExternalId
    interaction_id: ExternalId
    output_id: ExternalId | None = None
    policy_id: PolicyId | None = None
    stage: Literal["input", "output"]
    guardrail: Label
    kind: Label
    action: Literal["block", "redact", "regenerate", "flag"]
    reason: Label
    score: float | None = Field(default=None, ge=0, le=1)
    failed: bool = False
    position: int = Field(ge=0)


class RequestFailed(Event):
    """A request that no model answered, or whose answer broke off. Made by RLaaS alone; `reason` holds no text of the
    request.

    It counts for the arm that its `decision` dealt, unless the same interaction gets an answer later. An answer that
    broke off was paid for: `estimated_usage` is what it used, from what the backend told and what it wrote.
    """

    failure_id: ExternalId
    interaction_id: ExternalId
    decision: Decision
    reason: Annotated[str, Field(max_length=500)]
    estimated_usage: Usage | None = None
    model: Annotated[str, Field(max_length=256)] | None = None
    cost_usd: float | None = Field(default=None, ge=0, le=1e6)
    price_version: int | None = Field(default=None, ge=0)
    key_id: KeyId | None = None


AnyEvent = InteractionCreated | OutputProduced | FeedbackSubmitted | TaskResultReported | RewardComputed | GuardrailActed | RequestFailed
REPORTED: Mapping[str, type[AnyEvent]] = {
    "interaction": InteractionCreated,
    "output": OutputProduced,
    "feedback": FeedbackSubmitted,
    "task_result": TaskResultReported,
}
"""What clients report, by the type that each event of a batch names."""
MAX_BATCH = 500
"""The most events of one batch."""
