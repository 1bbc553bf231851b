"""Registers policies: each is checked, gets the skill's next number, and never changes. Equal policies are one
policy."""

from dataclasses import dataclass

from pydantic import Field

from rlaas.ids import make_base_component_name
from rlaas.metering.ceilings import check_ceiling, find_ceilings
from rlaas.metering.prices import Price
from rlaas.policies.allowed_models import AllowedModels, check_models
from rlaas.policies.backend import BackendSpec, SageMakerBackend
from rlaas.policies.bundle import AdapterRef, Policy, PolicyBundle, Sampling, SecretHosts, check_components, check_secrets
from rlaas.policies.guardrails.guardrail_list import Guardrails
from rlaas.policies.policy_store import PolicyRecords, policy_prefix
from rlaas.policies.prompt_graph import AnyPrompt, to_graph
from rlaas.policies.render_prompt import check_prompt
from rlaas.tenancy.registry import Change, PutResult, list_all
from rlaas.wire import WireModel


class PolicyTerms(WireModel):
    """The content of a new policy. Without a base model or a backend it has the stage's own."""

    prompt: AnyPrompt
    sampling: Sampling = Sampling()
    guardrails: Guardrails = Guardrails()
    base_model: str | None = None
    adapter: AdapterRef | None = None
    backend: BackendSpec | None = None
    fallbacks: tuple[BackendSpec, ...] = Field(default=(), max_length=4)
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class StageModels:
    """What the policies of a stage may ask: its endpoint and the base model there, the models that its operators allow,
    and the hosts that secrets may be sent to."""

    endpoint: str
    base_model: str
    allowed: AllowedModels
    secrets: SecretHosts


def register_policy(
    records: PolicyRecords, tenant_id: str, skill: str, terms: PolicyTerms, *, stage: StageModels, change: Change
) -> PutResult[Policy]:
    """Register a policy of `skill`, or find the one that has the same bundle.

    Raises: InvalidInput naming the field of `terms` that is wrong; QuotaExceeded when the skill has as many policies as
    it may have.
    """
    bundle = _build_bundle(terms, stage)
    check_components(bundle, tenant_id, endpoint=stage.endpoint)
    check_models(bundle, stage.allowed)
    check_secrets(bundle, tenant_id, stage.secrets)
    digest = bundle.digest()
    policies = [*list_all(records, Policy, tenant_id, policy_prefix(skill))]
    for policy in policies:
        if policy.sha256 == digest:
            return PutResult(policy, policy.version, replay=True)
    check_ceiling(find_ceilings(records, tenant_id).record.policies_per_skill, len(policies), "policies of a skill")
    number = records.allocate_number(tenant_id, skill, "policy")
    policy = Policy.of(bundle, tenant_id=tenant_id, skill=skill, version=number, created_at=change.at)
    records.put_policy(policy, change)
    return PutResult(policy, policy.version)


def _build_bundle(terms: PolicyTerms, stage: StageModels) -> PolicyBundle:
    """The bundle of `terms` with the stage's defaults. Raises: InvalidInput when its prompt cannot be rendered."""
    prompt = to_graph(terms.prompt)
    check_prompt(prompt)
    return PolicyBundle(
        base_model=terms.base_model or stage.base_model,
        adapter=terms.adapter,
        prompt=prompt,
        sampling=terms.sampling,
        guardrails=terms.guardrails,
        backend=terms.backend or SageMakerBackend(endpoint=stage.endpoint, component=make_base_component_name(stage.endpoint)),
        fallbacks=terms.fallbacks,
        price=terms.price,
    )
