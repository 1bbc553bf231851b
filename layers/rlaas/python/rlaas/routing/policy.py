"""A policy: the immutable bundle that answers, addressed by the hash of its content."""

from typing import Literal, Self

from pydantic import Field

from rlaas.clock import Timestamp
from rlaas.ids import PolicyId, Sha256, SkillName, TenantId, canonical_sha256, policy_id
from rlaas.wire import WireModel


class AdapterRef(WireModel):
    """The LoRA adapter a policy answers with, and where it came from."""

    name: str = Field(pattern=r"^[a-z0-9]+(-{1,2}[a-z0-9]+)*$", max_length=63)
    artifact_uri: str
    sha256: Sha256
    run_id: str
    dataset_version: str


class Prompt(WireModel):
    """Sandboxed Jinja2 templates over the request's inputs; rendered they are the system and the user message."""

    system: str = ""
    user: str


class Sampling(WireModel):
    """How the backend samples; `max_tokens` bounds the answer."""

    temperature: float = Field(default=0.0, ge=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(default=256, ge=1, le=32768)
    seed: int | None = None


class SageMakerBackend(WireModel):
    """A SageMaker endpoint; `component` names the inference component (base model or adapter) that answers."""

    kind: Literal["sagemaker"] = "sagemaker"
    endpoint: str
    component: str | None = None


class PolicyBundle(WireModel):
    """What a policy says and does: everything its `sha256` covers."""

    base_model: str
    adapter: AdapterRef | None = None
    prompt: Prompt
    sampling: Sampling = Sampling()
    backend: SageMakerBackend

    def digest(self) -> str:
        """SHA-256 of the bundle's canonical JSON: equal bundles, equal digest."""
        return canonical_sha256(self.model_dump(mode="json", include=set(PolicyBundle.model_fields)))


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
            policy_id=policy_id(skill, version),
            tenant_id=tenant_id,
            skill=skill,
            version=version,
            sha256=bundle.digest(),
            created_at=created_at,
        )
