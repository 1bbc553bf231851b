"""A request's first step: what is asked, and the policy that is to answer it."""

from dataclasses import dataclass
from typing import Self

from pydantic import Field, field_validator, model_validator

from rlaas.chat import Document, Message
from rlaas.errors import InvalidInput, NotFound
from rlaas.ids import ExternalId, PolicyId, SkillName, UserId, derive_id, make_bound_id, make_pseudonym, new_id
from rlaas.inference.gateway import Gateway
from rlaas.metering.budgets import Cap
from rlaas.parts import MOST_PARTS
from rlaas.policies.bundle import Policy
from rlaas.prompt_cache import MOST_MARKS, read_tool_marks
from rlaas.routing.assign import CONTROL, PINNED, Decision, assign, pin_decision
from rlaas.routing.route import Route
from rlaas.telemetry.events import InteractionCreated, Tag
from rlaas.telemetry.ingest import make_id
from rlaas.wire import Json, WireModel

_NO_PARAMETERS = frozenset({"model", "messages", "stream", "stream_options"})
_OLD_NAMES = {"functions": "tools", "function_call": "tool_choice"}
"""What OpenAI's API called tools before; its calls come back in a form that no answer has."""
_NAMES_OF_USERS = ("user", "safety_identifier")
_BOUNDS = {"max_tokens": 1_000_000, "max_completion_tokens": 1_000_000, "n": 16}


class InferRequest(WireModel):
    """Inputs for the skill's prompt, or the messages of a chat, which then stand in place of its user part.

    `parameters` are OpenAI's by name and go before the policy's own sampling and tools. A `dryrun` is decided and
    rendered; no model is asked and nothing is stored.
    """

    skill: SkillName
    inputs: dict[str, str] | None = None
    messages: tuple[Message, ...] | None = Field(default=None, min_length=1)
    documents: tuple[Document, ...] = Field(default=(), max_length=100)
    parameters: dict[str, Json] = Field(default_factory=dict)
    thread_id: ExternalId | None = None
    user_id: UserId = None
    interaction_id: ExternalId | None = None
    metadata: dict[str, Json] = Field(default_factory=dict)
    tags: tuple[Tag, ...] = Field(default=(), max_length=32)
    policy_id: PolicyId | None = Field(default=None, description="Answer by this policy whatever the route says; left out of estimates.")
    dryrun: bool = False

    @field_validator("parameters")
    @classmethod
    def _check_parameters(cls, parameters: dict[str, Json]) -> dict[str, Json]:
        """Refuse parameters that the policy and the path decide, and bounds that would make the reservation too small.

        A vendor gets what is stored of a user: the pseudonym.
        """
        if reserved_names := _NO_PARAMETERS & parameters.keys():
            raise ValueError(f"{min(reserved_names)} is not a parameter: the policy, the messages and the path decide it")
        if old_name := next((name for name in _OLD_NAMES if parameters.get(name) is not None), None):
            # no ValueError: that would name `parameters` alone
            raise InvalidInput(f"{old_name} is not supported here: send {_OLD_NAMES[old_name]}", param=f"parameters.{old_name}")
        for name, most in _BOUNDS.items():
            value = parameters.get(name)
            if value is not None and not (type(value) is int and 1 <= value <= most):
                raise ValueError(f"{name} is a whole number from 1 to {most}")
        return parameters | {name: make_pseudonym(user) for name in _NAMES_OF_USERS if isinstance(user := parameters.get(name), str)}

    @model_validator(mode="after")
    def _inputs_or_messages(self) -> Self:
        if self.inputs is None and self.messages is None:
            raise ValueError("needs inputs")
        if sum(len(message.parts) for message in self.messages or ()) > MOST_PARTS:
            # no ValueError: doors build the request themselves, where nobody makes a refusal of pydantic's error
            raise InvalidInput(f"the messages have more than {MOST_PARTS} images, sounds and files", param="messages")
        marks = len(read_tool_marks(self.parameters)) + sum(len(message.list_cache_ttls()) for message in self.messages or ())
        if marks > MOST_MARKS:
            raise InvalidInput(f"at most {MOST_MARKS} cache_control marks are taken, and there are {marks}", param="cache_control")
        return self


@dataclass(frozen=True, slots=True)
class Asker:
    """On whose behalf a model is asked. `hops` counts the gateways that the request has passed before this one.

    `key_id` is None for a mirrored request whose output the application reported itself.
    """

    tenant_id: str
    key_id: str | None
    hops: int = 0


@dataclass(frozen=True, slots=True)
class Assignment:
    """A request and the policy that is to answer it."""

    request: InferRequest | InteractionCreated
    """As it came in; a mirrored request as it was stored."""
    asker: Asker
    interaction_id: str
    output_id: str
    decision: Decision
    policy: Policy
    started: float
    """When the request came, on the gateway's timer, in seconds."""
    control: PolicyId | None = None
    """The policy that answers when the backends of this one do not; None where nobody stands in."""
    cap: Cap | None = None
    """How much the arm may spend in a day."""


def decide_policy(request: InferRequest, asker: Asker, gateway: Gateway, *, idempotency_key: str | None) -> Assignment:
    """The policy that the route deals the request's unit, or that the request names.

    The unit is the thread, user or interaction as the route says; a request without a thread or user id is its own
    unit. Arms whose cap is spent are dealt to nobody. A request with images, sounds or files has no shadows.

    Raises: NotFound without a route or where the named policy is none of the skill's, InvalidInput for a malformed
    idempotency key, DependencyUnavailable.
    """
    started = gateway.timer()
    tenant_id = asker.tenant_id
    interaction_id = request.interaction_id or make_id(tenant_id, "interaction", "int", idempotency_key)
    route = gateway.routes.get_route_for_request(tenant_id, request.skill)
    unit, decision_id, now = _find_unit(route, request, interaction_id), new_id("dec"), gateway.clock()
    if request.policy_id is None:
        spent = gateway.spending.spent_arms(route, tenant_id, now=now)
        decision = assign(route, unit, decision_id=decision_id, decided_at=now, interaction_id=interaction_id, without=spent)
    else:
        decision = pin_decision(route, request.policy_id, unit, decision_id=decision_id, decided_at=now)
    if any(message.parts for message in request.messages or ()):  # shadows read what is stored, and parts are not
        decision = decision.model_copy(update={"shadows": ()})
    policy = gateway.routes.get_policy(tenant_id, decision.policy_id)
    if policy.skill != request.skill:
        raise NotFound(f"{decision.policy_id!r} is not a policy of {request.skill!r}", param="policy_id")
    return Assignment(
        request=request,
        asker=asker,
        interaction_id=interaction_id,
        output_id=bind_output_id(interaction_id, gateway.scrubber.digest_for("output_id")(interaction_id)[:20]),
        decision=decision,
        policy=policy,
        started=started,
        control=None if decision.arm in (CONTROL, PINNED) else route.control,
        cap=next((arm.cap for arm in route.arms if arm.policy_id == decision.arm), None),
    )


def bind_output_id(interaction_id: str, tail: str) -> str:
    """The id of an output of the interaction. Whoever knows the interaction's id alone cannot guess it."""
    return make_bound_id("out", interaction_id, tail) or derive_id("out", interaction_id, tail)


def _find_unit(route: Route, request: InferRequest, interaction_id: str) -> str:
    unit = {"thread": request.thread_id, "user": request.user_id, "interaction": None}[route.unit]
    return unit or interaction_id
