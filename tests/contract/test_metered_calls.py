"""The price of a million events is computed from a store in memory, which counts the calls that DynamoDB would get."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.office_requests import ingest, requests
from benchmarks.telemetry_price import MeteredStore, follow_up
from rlaas.adapters.aws.events import DynamoEventStore
from tests.contract.tables import make_table
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.worlds import clock

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient


def test_the_metered_store_counts_the_calls_that_dynamodb_gets(dynamodb: DynamoDBClient) -> None:
    calls: Counter[str] = Counter()

    def count(params: dict[str, dict[str, dict[str, list[object]]]], event_name: str, **_: object) -> None:
        operation = event_name.rpartition(".")[2]
        calls[operation] += sum(len(request["Keys"]) for request in params["RequestItems"].values()) if operation == "BatchGetItem" else 1

    real, metered = DynamoEventStore(make_table(dynamodb, "events"), dynamodb=dynamodb, clock=clock), MeteredStore()
    dynamodb.meta.events.register("provide-client-params.dynamodb", count)
    for store in (real, metered):
        ingest(requests(2), store, AS_IT_IS)
    assert calls == {"PutItem": metered.puts, "BatchGetItem": metered.keys_read}
    landed = list(metered.events.values())
    for store in (real, metered):
        follow_up(landed, store)
    assert calls == {"PutItem": metered.puts, "BatchGetItem": metered.keys_read, "GetItem": metered.gets}


def test_events_that_land_together_make_one_write_of_a_reward() -> None:
    store = MeteredStore()
    ingest(requests(4), store, AS_IT_IS)
    landed = list(store.events.values())
    follow_up(landed, store)
    assert store.puts == len(landed) + sum(event.event_type == "interaction" for event in landed)
