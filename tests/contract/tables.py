"""The four tables as the data stack makes them, for moto."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_dynamodb.type_defs import AttributeDefinitionTypeDef, CreateTableInputTypeDef, GlobalSecondaryIndexTypeDef

_INDEXES = {
    "events": {
        "by_day": ("gsi_day", "received_at"),
        "by_trial": ("gsi_trial", "decided_at"),
        "by_unit": ("gsi_unit", "decided_at"),
    },
    "registry": {"trials": ("gsi_trial", "pk")},
}


def make_table(dynamodb: DynamoDBClient, name: str) -> str:
    """A table keyed by `pk` and `sk`, with its indexes."""
    indexes: list[GlobalSecondaryIndexTypeDef] = [
        {
            "IndexName": index,
            "KeySchema": [{"AttributeName": partition, "KeyType": "HASH"}, {"AttributeName": sort, "KeyType": "RANGE"}],
            "Projection": {"ProjectionType": "ALL"},
        }
        for index, (partition, sort) in _INDEXES.get(name, {}).items()
    ]
    names = {"pk", "sk", *(key["AttributeName"] for index in indexes for key in index["KeySchema"])}
    attributes: list[AttributeDefinitionTypeDef] = [{"AttributeName": attribute, "AttributeType": "S"} for attribute in sorted(names)]
    table: CreateTableInputTypeDef = {
        "TableName": name,
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        "AttributeDefinitions": attributes,
        "BillingMode": "PAY_PER_REQUEST",
    }
    if indexes:
        table["GlobalSecondaryIndexes"] = indexes
    dynamodb.create_table(**table)
    return name
