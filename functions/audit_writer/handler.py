"""Enters each change of a tenant's records, from the registry's stream, into the tenant's audit chain."""

from collections.abc import Mapping
from functools import partial

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.audit_log import read_registry_change
from rlaas.adapters.aws.stream_batches import BatchResponse, StreamRecord, do_in_order, list_records, report_first_failure
from rlaas.runtime.stage import current_stage
from rlaas.tenancy.audit import append_change


def enter(record: StreamRecord) -> None:
    """Append one change to its tenant's chain. Raises: DependencyUnavailable."""
    change = read_registry_change(record)
    if change is not None:
        append_change(change, current_stage().audit)


def handler(event: Mapping[str, object], _: LambdaContext) -> BatchResponse:
    """The Lambda entry point."""
    return report_first_failure(event, do_in_order(event, [([record], partial(enter, record)) for record in list_records(event)]))
