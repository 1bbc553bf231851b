"""Prompts and routes that could not answer are refused when they are made, quickly and by name."""

import pytest

from tests.laptop_cloud import SKILL, Tenant

FORGED = "evil.example"


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a'" + "|upper" * 40 + " }}",
        "{{ " + "(" * 5_000 + "x" + ")" * 5_000 + " }}",
        "{{ " + "not " * 5_000 + "x }}",
        "{% if x %}" * 300 + "{% endif %}" * 300,
        "{{ x.text }}",
        "{{ x > 3 }}",
        "{{ 1e999 }}",
        "{{ '\\ud800' }}",
    ],
)
def test_a_template_that_could_not_be_rendered_is_400_and_names_its_node(tenant: Tenant, template: str) -> None:
    tenant.admin("PUT", f"skills/{SKILL}", {})
    answer = tenant.post(f"v1/admin/skills/{SKILL}/policies", {"prompt": {"user": template}})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt.user.template"), answer.text
    assert answer.elapsed.total_seconds() < 10


def test_a_route_with_more_shadows_than_decisions_name_is_400(tenant: Tenant) -> None:
    tenant.admin("PUT", f"skills/{SKILL}", {})
    arms = [{"policy_id": f"{SKILL}@v{at}", "mode": "shadow", "weight": 1.0} for at in range(2, 35)]
    answer = tenant.http.put(f"v1/admin/skills/{SKILL}/route", json={"expected_version": 0, "control": f"{SKILL}@v1", "arms": arms})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "arms")


@pytest.mark.parametrize("path", ["v1/admin/skills/", "v1/admin/audit/", "v1/infer/", "v1/chat/completions/"])
def test_no_path_redirects_to_a_host_that_the_request_names(tenant: Tenant, path: str) -> None:
    for header in ({"Host": FORGED}, {"X-Forwarded-Host": FORGED}):
        for method in ("GET", "POST"):
            answer = tenant.http.request(method, path, headers=header, follow_redirects=False)
            assert not answer.is_redirect
            assert FORGED not in str(answer.headers)
