"""A policy: the immutable bundle that answers, addressed by the hash of its content."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Protocol, Self

from pydantic import Field, JsonValue

from rlaas.clock import Timestamp
from rlaas.errors import InvalidInput
from rlaas.ids import (
    PolicyId,
    Sha256,
    SkillName,
    TenantId,
    find_adapter_owner,
    hash_canonical_json,
    make_base_component_name,
    make_policy_id,
)
from rlaas.metering.prices import Price
from rlaas.policies.backend import AnthropicBackend, BackendSpec, OpenAIBackend, SageMakerBackend
from rlaas.policies.guardrails.guardrail_list import Guardrails
from rlaas.policies.guardrails.moderation import ModerationService, Service
from rlaas.policies.hosts import is_own
from rlaas.policies.prompt_graph import Prompt
from rlaas.wire import WireModel


class AdapterRef(WireModel):
    """The LoRA adapter that a policy answers with, and the run and dataset that it comes from."""

    name: str = Field(pattern=r"^[a-z0-9]+(-{1,3}[a-z0-9]+)*$", max_length=63)
    artifact_uri: str
    sha256: Sha256
    run_id: str
    dataset_version: str


class Sampling(WireModel):
    """How the backend samples, unless the request says otherwise; `max_tokens` is the most that an answer may have."""

    temperature: float | None = Field(default=0.0, ge=0, le=2, description="null: the backend's own default, which some models require.")
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1, le=32768)
    seed: int | None = None
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field(default=(), max_length=4)

    def parameters(self) -> dict[str, JsonValue]:
        """The settings as parameters of OpenAI's chat API."""
        parameters: dict[str, JsonValue] = {name: value for name, value in self if name != "stop" and value is not None}
        return {**parameters, "stop": list(self.stop)} if self.stop else parameters


class PolicyBundle(WireModel):
    """The content of a policy: everything that its `sha256` covers. When the backend does not answer, `fallbacks` are
    asked in order."""

    base_model: str
    adapter: AdapterRef | None = None
    prompt: Prompt
    sampling: Sampling = Field(default_factory=Sampling)
    guardrails: Guardrails = Field(default_factory=Guardrails)
    backend: BackendSpec
    fallbacks: tuple[BackendSpec, ...] = Field(default=(), max_length=4)
    price: Price | None = Field(default=None, description="What its tokens cost; without it, the tenant's price of the model.")

    def digest(self) -> str:
        """SHA-256 (hex) of the bundle's canonical JSON: equal bundles have equal digests."""
        return hash_canonical_json(self.model_dump(mode="json", include=set(PolicyBundle.model_fields)))


class Policy(PolicyBundle):
    """An immutable version of a bundle, `<skill>@v<N>`."""

    policy_id: PolicyId
    tenant_id: TenantId
    skill: SkillName
    version: int = Field(ge=1)
    sha256: Sha256
    created_at: Timestamp

    @classmethod
    def of(cls, bundle: PolicyBundle, *, tenant_id: str, skill: str, version: int, created_at: Timestamp) -> Self:
        """Version `version` of `skill`'s policy with `bundle`'s content."""
        return cls(
            **{name: getattr(bundle, name) for name in PolicyBundle.model_fields},
            policy_id=make_policy_id(skill, version),
            tenant_id=tenant_id,
            skill=skill,
            version=version,
            sha256=bundle.digest(),
            created_at=created_at,
        )


def check_components(bundle: PolicyBundle, tenant_id: str, *, endpoint: str) -> None:
    """Refuse a policy that would ask other components of the stage's `endpoint` than the base model and its own
    tenant's adapters: all tenants share the endpoint.

    Raises: InvalidInput naming the backend's field.
    """
    places = {"backend": bundle.backend, **{f"fallbacks.{at}": backend for at, backend in enumerate(bundle.fallbacks)}}
    for place, backend in places.items():
        if not isinstance(backend, SageMakerBackend):
            continue
        if backend.endpoint != endpoint:
            raise InvalidInput(f"the endpoint must be the stage's, {endpoint!r}, and not {backend.endpoint!r}", param=f"{place}.endpoint")
        component = backend.component or ""
        if component != make_base_component_name(endpoint) and find_adapter_owner(component, endpoint) != tenant_id:
            expected = f"{make_base_component_name(endpoint)!r} or an adapter of the tenant, '{endpoint}--{tenant_id}--<skill>--v<N>'"
            raise InvalidInput(f"the component must be {expected}, and {component!r} is neither", param=f"{place}.component")


def list_servers(bundle: PolicyBundle) -> "dict[str, BackendSpec | Service]":
    """The servers that a policy asks for answers and judgements, by their field in the policy (`fallbacks.0`)."""
    result: dict[str, BackendSpec | Service] = {"backend": bundle.backend}
    result |= {f"fallbacks.{at}": backend for at, backend in enumerate(bundle.fallbacks)}
    for side, guardrails in (("input", bundle.guardrails.input), ("output", bundle.guardrails.output)):
        result |= {f"guardrails.{side}.{at}": guardrail for at, guardrail in enumerate(guardrails) if isinstance(guardrail, Service)}
    return result


class SecretHosts(Protocol):
    """Knows the hosts that secrets may be sent to."""

    def find_refusal(self, tenant_id: str, name: str, *, base_url: str, own_host: str) -> str | None:
        """Why the secret `name` may not be sent to `base_url`; None where it may. Raises: DependencyUnavailable."""
        ...


def check_secrets(bundle: PolicyBundle, tenant_id: str, secrets: SecretHosts) -> None:
    """Refuse a policy whose secret does not exist, holds no key, or does not name the host that it would be sent to.

    Raises: InvalidInput naming the `secret`, or the `base_url` where that is not the vendor's own;
    DependencyUnavailable.
    """
    for place, server in list_servers(bundle).items():
        if not isinstance(server, OpenAIBackend | AnthropicBackend | ModerationService) or server.secret is None:
            continue
        refusal = secrets.find_refusal(tenant_id, server.secret, base_url=server.base_url, own_host=server.OWN_HOST)
        if refusal is not None:
            field = "secret" if is_own(server.base_url, server.OWN_HOST) else "base_url"
            raise InvalidInput(refusal, param=f"{place}.{field}")


class PolicyArchive(WireModel):
    """Whether a policy is archived; the policy itself never changes."""

    policy_id: PolicyId
    archived: bool


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that differs between two bundles, with both values; None where a bundle has no such field."""

    path: str
    before: JsonValue
    after: JsonValue


def list_differences(before: PolicyBundle, after: PolicyBundle) -> list[Difference]:
    """Every field that differs between the bundles, in the order of the fields, such as `prompt.nodes.1.template`."""
    fields = set(PolicyBundle.model_fields)
    return [*_list_differences("", before.model_dump(mode="json", include=fields), after.model_dump(mode="json", include=fields))]


def _list_differences(path: str, before: JsonValue, after: JsonValue) -> Iterator[Difference]:
    if isinstance(before, list) and isinstance(after, list):
        before, after = ({str(at): item for at, item in enumerate(items)} for items in (before, after))
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            yield from _list_differences(f"{path}.{name}" if path else name, before.get(name), after.get(name))
    elif before != after:
        yield Difference(path, before, after)
