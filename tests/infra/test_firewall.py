"""The firewall lets through what the API documents."""

import re

import pytest

from rlaas.runtime.http import MAX_BATCH_BYTES
from tests.infra.template import Template


@pytest.fixture(scope="session")
def firewalls(templates: list[Template]) -> list[dict[str, object]]:
    return [resource["Properties"] for template in templates for resource in template.resources("AWS::WAFv2::WebACL").values()]


def test_a_batch_of_full_size_passes_and_nothing_that_lambda_would_not_take(firewalls: list[dict[str, object]]) -> None:
    assert firewalls
    for firewall in firewalls:
        expression = re.search(r"'RegexString': '([^']+)'", str(firewall))
        assert expression
        refused = [size for size in (1, 1_000_000, MAX_BATCH_BYTES, 6_000_000, 10_000_000) if re.search(expression[1], str(size))]
        assert refused == [6_000_000, 10_000_000]


def test_what_people_write_is_never_refused(firewalls: list[dict[str, object]]) -> None:
    for firewall in firewalls:
        for rule in ("Log4JRCE_BODY", "CrossSiteScripting_BODY"):
            assert f"{{'ActionToUse': {{'Count': {{}}}}, 'Name': '{rule}'}}" in str(firewall)
