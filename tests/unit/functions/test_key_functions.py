import pytest

from functions.authorizer.handler import handler as authorize
from functions.bootstrap.handler import handler as bootstrap
from rlaas.clock import utc_now
from rlaas.errors import InvalidInput
from rlaas.privacy.settings import TenantPrivacy
from rlaas.tenancy.create_tenant import create_tenant
from rlaas.tenancy.registry import TENANT as TENANT_KEY
from rlaas.tenancy.registry import Change
from rlaas.tenancy.tenant import Tenant
from tests.fakes.gateway import make_lambda_context
from tests.unit.functions.conftest import Stage

ARN = "arn:aws:execute-api:us-east-1:000000000000:abc123/v1/POST/v1/infer"


def allowed(header: str) -> dict[str, object]:
    return authorize({"methodArn": ARN, "headers": {"authorization": header}}, make_lambda_context())


def test_the_first_key_makes_the_tenant_and_opens_every_path_of_the_stage(stage: Stage) -> None:
    answer = bootstrap({"tenant_id": "acme", "scopes": ["infer", "admin"]}, make_lambda_context())
    assert stage.registry.get(Tenant, "acme", TENANT_KEY).record.tenant_id == "acme"
    policy = allowed(f"Bearer {answer['api_key']}")
    assert policy["context"] == {"tenant_id": "acme", "key_id": answer["key_id"], "scopes": "infer admin", "origins": ""}
    assert policy["policyDocument"] == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Action": "execute-api:Invoke",
                "Effect": "Allow",
                "Resource": "arn:aws:execute-api:us-east-1:000000000000:abc123/v1/*/*",
            }
        ],
    }


def test_a_second_bootstrap_makes_another_key_for_the_same_tenant(stage: Stage) -> None:
    first, second = (bootstrap({"tenant_id": "acme", "scopes": ["infer"]}, make_lambda_context()) for _ in range(2))
    assert first["key_id"] != second["key_id"]
    allowed(f"Bearer {first['api_key']}")


def test_a_bootstrap_makes_a_key_for_a_tenant_that_the_platform_made_and_leaves_it_as_it_is(stage: Stage) -> None:
    change = Change(actor="key:1", reason="tenant made", at=utc_now())
    tenant = Tenant(tenant_id="acme", name="Acme", created_at=change.at)
    create_tenant(stage.registry, tenant, privacy=TenantPrivacy(), change=change)
    allowed(f"Bearer {bootstrap({'tenant_id': 'acme', 'scopes': ['platform']}, make_lambda_context())['api_key']}")
    assert stage.registry.get(Tenant, "acme", TENANT_KEY).record == tenant


def test_a_revoked_or_unknown_key_is_unauthorized_and_logged_nowhere(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    answer = bootstrap({"tenant_id": "acme", "scopes": ["infer"]}, make_lambda_context())
    stage.registry.revoke_key("acme", answer["key_id"], Change(actor="key:1", reason="leaked", at=utc_now()))
    for header in (f"Bearer {answer['api_key']}", "Bearer rlk_nonsense", ""):
        with pytest.raises(Exception, match=r"^Unauthorized$"):
            allowed(header)
    assert answer["api_key"] not in "".join(capsys.readouterr())


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_anthropics_clients_may_send_their_key_in_a_header_of_its_own(stage: Stage, path: str) -> None:
    made = bootstrap({"tenant_id": "acme", "scopes": ["infer"]}, make_lambda_context())
    for headers in ({"X-Api-Key": made["api_key"]}, {"Authorization": "", "x-api-key": made["api_key"]}):
        policy = authorize({"methodArn": ARN, "resource": path, "headers": headers}, make_lambda_context())
        assert policy["principalId"] == made["key_id"]
    for headers in ({"x-api-key": "rlk_nonsense"}, {"x-api-key": ""}, {"x-api-key": f"Bearer {made['api_key']}"}, {}):
        with pytest.raises(Exception, match=r"^Unauthorized$"):
            authorize({"methodArn": ARN, "resource": path, "headers": headers}, make_lambda_context())


def test_a_key_beside_an_authorization_header_or_on_another_path_is_not_looked_at(stage: Stage) -> None:
    """API Gateway remembers the answer by that header: whoever sent it next would be taken for the key's owner."""
    key = bootstrap({"tenant_id": "acme", "scopes": ["infer"]}, make_lambda_context())["api_key"]
    events: list[dict[str, object]] = [
        {"resource": "/v1/messages", "headers": {"Authorization": "Bearer rlk_nonsense", "x-api-key": key}},
        {"resource": "/v1/chat/completions", "path": "/v1/messages", "headers": {"x-api-key": key}},
        {"resource": "/v1/admin/{proxy+}", "headers": {"x-api-key": key}},
        {"headers": {"x-api-key": key}},
    ]
    for event in events:
        with pytest.raises(Exception, match=r"^Unauthorized$"):
            authorize({"methodArn": ARN, **event}, make_lambda_context())


@pytest.mark.parametrize("request_", [{}, {"tenant_id": "Acme", "scopes": ["infer"]}, {"tenant_id": "acme", "scopes": ["root"]}])
def test_a_malformed_bootstrap_makes_nothing(stage: Stage, request_: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        bootstrap(request_, make_lambda_context())
    assert stage.items("registry") == []
