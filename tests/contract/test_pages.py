"""Queries and scans of several pages are read whole, a page at a time, and a page that does not come is DynamoDB's
failure."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import EndpointConnectionError

from rlaas.adapters.aws.item_keys import item_key
from rlaas.adapters.aws.pages import read_items, read_pages
from rlaas.errors import DependencyUnavailable
from tests.contract.tables import make_table

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import QueryInputTypeDef

IN_PAIRS: QueryInputTypeDef = {
    "TableName": "counters",
    "KeyConditionExpression": "pk = :pk",
    "ExpressionAttributeValues": {":pk": {"S": "a"}},
    "Limit": 2,
}


@pytest.fixture
def requests(dynamodb: DynamoDBClient) -> list[object]:
    """The requests that come after five items of one partition were written."""
    make_table(dynamodb, "counters")
    for number in range(5):
        dynamodb.put_item(TableName="counters", Item=item_key("a", str(number)))
    requests: list[object] = []
    dynamodb.meta.events.register("provide-client-params.dynamodb", lambda params, **_: requests.append(dict(params)))
    return requests


def test_all_pages_are_read_each_when_it_is_asked_for(dynamodb: DynamoDBClient, requests: list[object]) -> None:
    items = read_items(dynamodb, "query", IN_PAIRS)
    assert requests == []
    first_three = [item["sk"]["S"] for item in islice(items, 3)]
    assert (first_three, len(requests)) == (["0", "1", "2"], 2)
    assert [item["sk"]["S"] for item in items] == ["3", "4"]
    assert len(requests) == 3


def test_no_more_pages_are_read_than_wanted(dynamodb: DynamoDBClient, requests: list[object]) -> None:
    assert len(list(read_items(dynamodb, "query", IN_PAIRS, most_pages=2))) == 4
    assert len(requests) == 2


def test_a_scan_begins_after_the_key_it_is_given(dynamodb: DynamoDBClient, requests: list[object]) -> None:
    scan = read_items(dynamodb, "scan", {"TableName": "counters", "ExclusiveStartKey": item_key("a", "1"), "Limit": 2})
    assert [item["sk"]["S"] for item in scan] == ["2", "3", "4"]
    assert len(requests) == 2


def test_a_later_page_that_does_not_come_is_a_failure_of_dynamodb(dynamodb: DynamoDBClient, requests: list[object]) -> None:
    pages = read_pages(dynamodb, "query", IN_PAIRS)
    assert next(pages)["Count"] == 2

    def fail(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://dynamodb")

    dynamodb.meta.events.register("before-send.dynamodb", fail)
    with pytest.raises(DependencyUnavailable, match="DynamoDB could not be reached"):
        next(pages)
