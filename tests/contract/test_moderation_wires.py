"""What the services that guardrails are judged by are asked and answer, in the shapes of their public API
references."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaas.adapters.models import bedrock as bedrock_backend
from rlaas.adapters.models.moderators import Moderators
from rlaas.errors import RlaasError
from rlaas.policies.guardrails.moderation import BedrockService, ModerationService
from tests.contract.test_vendor_wires import Keys, Vendor, Wire, serving

WIRES = Path(__file__).parent / "moderation_wires"


@pytest.fixture(scope="module")
def service() -> Iterator[Vendor]:
    with serving() as vendor, pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", vendor.url)
        bedrock_backend.runtime.cache_clear()
        yield vendor
        bedrock_backend.runtime.cache_clear()


def guardrail(kind: str, url: str, wire: Wire) -> BedrockService | ModerationService:
    if kind == "bedrock":
        return BedrockService(guardrail_id="gr1abc", version="7")
    return ModerationService(base_url=f"{url}/v1", secret="vendor", **wire.get("guardrail", {}))


@pytest.mark.parametrize("path", sorted(WIRES.glob("*/*.json")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_wire(service: Vendor, path: Path) -> None:
    wire: Wire = json.loads(path.read_text())
    service.response, service.requests = wire["response"], []
    moderators = Moderators(Keys(None), private_addresses=True)

    def judged() -> object:
        judgement = moderators.judge(guardrail(path.parent.name, service.url, wire), wire["texts"], source=wire["source"], tenant_id="acme")
        return judgement and json.loads(json.dumps(judgement._asdict()))

    if "failed" in wire:
        with pytest.raises(RlaasError) as failed:
            judged()
        assert failed.value.detail == wire["failed"]
    else:
        assert judged() == wire["judgement"]
    ((sent_to, headers, body),) = service.requests
    assert (sent_to, body) == (wire["request"]["path"], wire["request"]["body"])
    assert {name: headers.get(name) for name in wire["request"].get("headers", {})} == wire["request"].get("headers", {})


def test_no_server_in_a_private_network_is_asked(service: Vendor) -> None:
    service.requests = []
    with pytest.raises(RlaasError, match="https"):
        Moderators(Keys(None)).judge(ModerationService(base_url=f"{service.url}/v1"), ["Hi"], source="input", tenant_id="acme")
    assert service.requests == []
