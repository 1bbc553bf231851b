"""Every item that a query or a scan of DynamoDB matches, page by page, by boto3's paginators."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, cast

from rlaas.adapters.aws.clients import dependency

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeValueTypeDef, QueryInputTypeDef, QueryOutputTypeDef, ScanInputTypeDef

ReadOperation = Literal["query", "scan"]


def read_pages(
    dynamodb: "DynamoDBClient", operation: ReadOperation, request: "QueryInputTypeDef | ScanInputTypeDef"
) -> "Iterator[QueryOutputTypeDef]":
    """Pages of up to 1 MB, each read when it is asked for. Raises: DependencyUnavailable."""
    pages = iter(_paginator(dynamodb, operation).paginate(**request))
    while True:
        with dependency("DynamoDB"):
            page = next(pages, None)
        if page is None:
            return
        yield page


def read_items(
    dynamodb: "DynamoDBClient", operation: ReadOperation, request: "QueryInputTypeDef | ScanInputTypeDef", *, most_pages: int | None = None
) -> "Iterator[Mapping[str, AttributeValueTypeDef]]":
    """The items of all pages, or of the first `most_pages`. Raises: DependencyUnavailable."""
    for page in islice(read_pages(dynamodb, operation, request), most_pages):
        yield from page["Items"]


@lru_cache(maxsize=8)
def _paginator(dynamodb: "DynamoDBClient", operation: ReadOperation) -> Any:
    """Made once for each client: boto3 makes a class for each paginator, which takes as long as some requests do."""
    return cast(Any, dynamodb).get_paginator(operation)
