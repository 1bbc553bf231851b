"""The firewall passes what the API documents."""

import json
import re

import pytest

from infra.config import STAGES
from rlaas.api.http import MAX_BATCH_BYTES
from tests.infra.template import Template


@pytest.fixture(scope="session")
def firewalls(templates: list[Template]) -> list[dict[str, object]]:
    return [resource["Properties"] for template in templates for resource in template.resources("AWS::WAFv2::WebACL").values()]


def test_a_batch_of_full_size_passes_and_nothing_that_lambda_would_not_take(firewalls: list[dict[str, object]]) -> None:
    assert firewalls
    for firewall in firewalls:
        expression = re.search(r"'RegexString': '([^']+)'", str(firewall))
        assert expression
        refused = [
            size for size in (1, 1_000_000, MAX_BATCH_BYTES, 4_600_000, 6_000_000, 10_000_000) if re.search(expression[1], str(size))
        ]
        assert refused == [4_600_000, 6_000_000, 10_000_000]


def test_what_people_write_is_never_refused(firewalls: list[dict[str, object]]) -> None:
    for firewall in firewalls:
        for rule in ("Log4JRCE_BODY", "CrossSiteScripting_BODY"):
            assert f"{{'ActionToUse': {{'Count': {{}}}}, 'Name': '{rule}'}}" in str(firewall)


def test_a_key_may_send_what_its_tenant_may_and_an_address_what_the_api_takes(templates: list[Template]) -> None:
    """Back ends of many users, and the pages of all of them, may have one address."""
    for config in STAGES:
        for template in templates:
            if template.stage != config.id:
                continue
            for firewall in template.resources("AWS::WAFv2::WebACL").values():
                rules = {rule["Name"]: rule for rule in firewall["Properties"]["Rules"]}
                key, address = (rules[name]["Statement"]["RateBasedStatement"] for name in ("RatePerKey", "RatePerAddress"))
                assert key["AggregateKeyType"] == "CUSTOM_KEYS"
                assert [custom["Header"]["Name"] for custom in key["CustomKeys"]] == ["authorization"]
                assert key["Limit"] / key["EvaluationWindowSec"] == config.api.tenant_rate_per_second
                assert address["AggregateKeyType"] == "IP"
                assert address["Limit"] / address["EvaluationWindowSec"] == config.api.rate_per_second
                for name in ("RatePerKey", "RatePerAddress"):
                    answer = rules[name]["Action"]["Block"]["CustomResponse"]
                    assert (answer["ResponseCode"], answer["ResponseHeaders"][0]["Name"]) == (429, "Retry-After")
                    body = json.loads(firewall["Properties"]["CustomResponseBodies"][answer["CustomResponseBodyKey"]]["Content"])
                    assert body["error"]["code"] == "quota_exceeded"


def test_a_client_needs_no_user_agent(firewalls: list[dict[str, object]]) -> None:
    for firewall in firewalls:
        assert "{'ActionToUse': {'Count': {}}, 'Name': 'NoUserAgent_HEADER'}" in str(firewall)
