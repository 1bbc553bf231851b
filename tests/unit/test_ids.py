"""Names of adapters, which must be valid names of SageMaker's inference components."""

import re

import botocore.session
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rlaas.ids import SkillName, TenantId, find_adapter_owner, make_adapter_name, make_base_component_name
from rlaas.policies.bundle import AdapterRef

SHAPE = botocore.session.get_session().get_service_model("sagemaker").shape_for("InferenceComponentName")
SKILLS = st.one_of(
    st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,13}", fullmatch=True), st.sampled_from(["s" * 28, "s" * 27 + "t", "a-" * 13 + "a"])
)
TENANTS = st.one_of(st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,9}", fullmatch=True), st.sampled_from(["t" * 20, "base", "rlaas-prod"]))
STAGES = st.sampled_from(["rlaas-dev", "rlaas-local", "rlaas-staging", "rlaas-dev-east"])
VERSIONS = st.one_of(st.integers(1, 20), st.just(99_999_999))


@given(STAGES, TENANTS, SKILLS, VERSIONS, st.booleans())
def test_sagemaker_and_policies_accept_the_adapter_name_of_any_skill(
    endpoint: str, tenant_id: str, skill: str, version: int, sft_only: bool
) -> None:
    TypeAdapter(TenantId).validate_python(tenant_id)
    TypeAdapter(SkillName).validate_python(skill)
    name = make_adapter_name(endpoint, tenant_id, skill, version, sft_only=sft_only)
    assert len(name) <= SHAPE.metadata["max"]
    assert re.fullmatch(SHAPE.metadata["pattern"], name)
    AdapterRef(name=name, artifact_uri="s3://b/k", sha256="0" * 64, run_id="run_1", dataset_version="v1")
    assert find_adapter_owner(name, endpoint) == tenant_id
    assert find_adapter_owner(make_base_component_name(endpoint), endpoint) is None


ADAPTERS = st.tuples(STAGES, st.sampled_from(["a", "a-b", "t" * 20]), SKILLS, VERSIONS, st.booleans())


@given(ADAPTERS, ADAPTERS)
def test_two_adapters_never_share_a_name(one: tuple[str, str, str, int, bool], other: tuple[str, str, str, int, bool]) -> None:
    def name(adapter: tuple[str, str, str, int, bool]) -> str:
        return make_adapter_name(*adapter[:4], sft_only=adapter[4])

    assert (name(one) == name(other)) == (one == other)


def test_skills_that_differ_only_where_their_names_are_cut_have_adapters_of_their_own() -> None:
    tenant, beginning = "t" * 20, "answers-questions-about-bi"
    names = {make_adapter_name("rlaas-prod", tenant, f"{beginning}{end}", 1_000_000, sft_only=True) for end in ("l", "n", "ts", "ds")}
    assert len(names) == 4
    assert all(name.startswith(f"rlaas-prod--{tenant}--") for name in names)


@pytest.mark.parametrize(
    "name", ["rlaas-dev--base", "acme--mail--v1", "rlaas-dev-2--acme--mail--v1", "rlaas-dev--acme--v1", "rlaas-dev--acme--mail"]
)
def test_other_components_belong_to_no_tenant(name: str) -> None:
    assert find_adapter_owner(name, "rlaas-dev") is None


def test_an_endpoint_with_too_long_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match="the endpoint's is too long"):
        make_adapter_name("rlaas-" + "x" * 30, "t" * 20, "s" * 28, 1)
