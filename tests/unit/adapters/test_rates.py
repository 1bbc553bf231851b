from collections.abc import Iterator
from datetime import datetime, timedelta

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from rlaas.adapters.aws.rates import DynamoRates
from rlaas.errors import DependencyUnavailable, QuotaExceeded
from tests.contract.tables import make_table
from tests.fakes.worlds import NOW, TENANT


class Watch:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.fixture
def rates() -> Iterator[tuple[list[DynamoRates], Watch]]:
    """Two processes' rates of three requests a second, on one table."""
    with mock_aws():
        dynamodb, watch = boto3.client("dynamodb"), Watch()
        make_table(dynamodb, "counters")
        yield [DynamoRates("counters", per_second=3, clock=watch, dynamodb=dynamodb) for _ in range(2)], watch


def test_a_tenant_sends_so_many_a_second_over_all_processes_and_nobody_else_waits(rates: tuple[list[DynamoRates], Watch]) -> None:
    (one, other), watch = rates
    for process in (one, other, one):
        process.take(TENANT)
    with pytest.raises(QuotaExceeded, match="more than 3 requests a second") as refused:
        other.take(TENANT)
    assert refused.value.retry_after_s == 1
    other.take("another")
    watch.now += timedelta(seconds=1)
    other.take(TENANT)


def test_a_page_has_half_of_it_in_events_for_each_key_and_takes_nothing_from_the_servers(rates: tuple[list[DynamoRates], Watch]) -> None:
    (one, other), watch = rates
    one.take_page(TENANT, "key1", events=25)
    with pytest.raises(QuotaExceeded, match="more than 1 events a second") as refused:
        other.take_page(TENANT, "key1", events=1)
    assert refused.value.retry_after_s == 1
    other.take_page(TENANT, "key2", events=1)
    for process in (one, other, one):
        process.take(TENANT)
    watch.now += timedelta(seconds=1)
    other.take_page(TENANT, "key1", events=1)


def test_what_was_counted_is_forgotten_by_the_table(rates: tuple[list[DynamoRates], Watch]) -> None:
    rates[0][0].take(TENANT)
    (item,) = boto3.client("dynamodb").scan(TableName="counters")["Items"]
    assert 0 < int(item["expires_at"]["N"]) - NOW.timestamp() <= 61


@pytest.mark.parametrize(("code", "raised"), [("ThrottlingException", QuotaExceeded), ("InternalServerError", DependencyUnavailable)])
def test_a_flood_that_the_item_does_not_bear_is_the_senders_fault_and_a_failure_is_not(code: str, raised: type[Exception]) -> None:
    dynamodb = boto3.client("dynamodb")
    rates = DynamoRates("counters", per_second=3, clock=lambda: NOW, dynamodb=dynamodb)
    with Stubber(dynamodb) as stub:
        stub.add_client_error("update_item", code)
        with pytest.raises(raised):
            rates.take(TENANT)
