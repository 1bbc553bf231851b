"""Which policy would answer, for callers that ask its model directly or only want to know: `/v1/decide`, `/v1/models`,
OpenFeature."""

from collections.abc import Iterator

from pydantic import JsonValue

from rlaas.adapters.aws.lent_sessions import LIFETIME
from rlaas.api.answering import gateway
from rlaas.api.http import Body, Caller, GatewayEvent, load_json, read_body
from rlaas.clock import rfc3339, utc_now
from rlaas.errors import InvalidInput, ModelNotFound, NotFound, PayloadTooLarge, UnsupportedEncoding
from rlaas.inference.decide import Asker, InferRequest
from rlaas.inference.flags import CannotEvaluate, evaluate, evaluate_all, targeting_key
from rlaas.inference.infer import decide
from rlaas.policies.backend import SageMakerBackend
from rlaas.policies.bundle import Policy
from rlaas.policies.policy_store import POLICY_PREFIX
from rlaas.routing.decision_token import TokenContent, make_token
from rlaas.runtime.stage import Stage, import_ahead
from rlaas.skills.skill import Skill
from rlaas.tenancy.registry import SKILL_PREFIX, skill_key

import_ahead("adapters.aws.grants")

_LISTED = 1000
_PREFIX = "rlaas::"


def decide_request(request: InferRequest, who: Caller, *, stage: Stage, idempotency_key: str | None) -> Body:
    """The decision and what to ask.

    Unless it is a dry run, the body also holds the token to report the output with and, for a SageMaker model, a grant:
    one for each interaction, since one call was paid for. Raises: as `decide`.
    """
    handover = decide(request, Asker(who.tenant_id, who.key_id, hops=who.hops), gateway(who, stage), idempotency_key=idempotency_key)
    body: Body = {
        "interaction_id": handover.interaction_id,
        "output_id": handover.output_id,
        "policy_id": handover.decision.policy_id,
        "decision": handover.decision.model_dump(mode="json"),
        "backend": handover.policy.backend.model_dump(mode="json", exclude={"secret"}),
        "messages": [message.plain() for message in handover.call.messages],
        "parameters": dict(handover.call.parameters),
    }
    if request.dryrun:
        return body
    now = utc_now()
    granted = TokenContent(
        interaction_id=handover.interaction_id, output_id=handover.output_id, decision=handover.decision, expires_at=now + LIFETIME
    )
    body["decision_token"] = make_token(granted, scrubber=stage.scrubbers.of(who.tenant_id))
    body["feedback_token"] = handover.feedback_token
    body["grant"] = None
    body["idempotent_replay"] = handover.replay
    if isinstance(handover.policy.backend, SageMakerBackend) and not handover.replay:
        grant = stage.grants.make(handover.policy.backend, tenant_id=who.tenant_id, now=now)
        body["grant"] = {"base_url": grant.base_url, "api_key": grant.api_key, "expires_at": rfc3339(grant.expires_at)}
    return body


def models(who: Caller, *, stage: Stage) -> Iterator[JsonValue]:
    """The caller's skills, then their policies, as OpenAI's models; a thousand of each at most."""
    for skill in stage.registry.list(Skill, who.tenant_id, SKILL_PREFIX, limit=_LISTED).items:
        yield _build_model(f"{_PREFIX}{skill.record.skill}", skill.record.created_at.timestamp(), who)
    for policy in stage.registry.list(Policy, who.tenant_id, POLICY_PREFIX, limit=_LISTED, newest_first=True).items:
        yield _build_model(f"{_PREFIX}{policy.record.policy_id}", policy.record.created_at.timestamp(), who)


def model(who: Caller, name: str, *, stage: Stage) -> Body:
    """The caller's skill or policy `name` as OpenAI's model. Raises: NotFound."""
    target = name.removeprefix(_PREFIX)
    try:
        if "@" in target:
            created_at = stage.registry.get_policy(who.tenant_id, target).created_at
        else:
            created_at = stage.registry.get(Skill, who.tenant_id, skill_key(target)).record.created_at
    except NotFound:
        raise ModelNotFound(f"there is no model {name!r}", param="model") from None
    return _build_model(f"{_PREFIX}{target}", created_at.timestamp(), who)


def _build_model(name: str, created: float, who: Caller) -> Body:
    return {"id": name, "object": "model", "created": int(created), "owned_by": who.tenant_id}


def flag(key: str, who: Caller, event: GatewayEvent, *, stage: Stage) -> tuple[int, Body]:
    """OFREP's answer about one skill: its status and body."""
    try:
        unit = targeting_key(_read_body(event, key=key), key=key)
        return 200, evaluate(key, unit, who.tenant_id, routes=stage.registry, now=utc_now())
    except CannotEvaluate as refusal:
        return refusal.status, refusal.body


def flags(who: Caller, event: GatewayEvent, *, stage: Stage) -> tuple[int, Body]:
    """OFREP's answer about every skill."""
    skills = (stored.record.skill for stored in stage.registry.list(Skill, who.tenant_id, SKILL_PREFIX, limit=_LISTED).items)
    try:
        unit = targeting_key(_read_body(event, key=None), key=None)
    except CannotEvaluate as refusal:
        return refusal.status, refusal.body
    return 200, {"flags": [*evaluate_all(skills, unit, who.tenant_id, routes=stage.registry, now=utc_now())]}


def _read_body(event: GatewayEvent, *, key: str | None) -> JsonValue:
    try:
        return load_json(read_body(event))
    except (PayloadTooLarge, UnsupportedEncoding):
        raise
    except InvalidInput as error:
        raise CannotEvaluate(400, "PARSE_ERROR", error.detail, key=key) from None
