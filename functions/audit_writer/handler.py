"""The registry's stream into the audit: no change of a tenant's records without its entry in the chain."""

from collections.abc import Mapping
from functools import partial

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.aws.audit_log import registry_change
from rlaas.adapters.aws.stream_batches import BatchResponse, StreamRecord, do_in_order, records_of, report_first_failure
from rlaas.runtime.stage import current_stage
from rlaas.tenancy.audit import append_change


def follow(record: StreamRecord) -> None:
    """Chain one change onto its tenant's log."""
    change = registry_change(record)
    if change is not None:
        append_change(change, current_stage().audit)


def handler(event: Mapping[str, object], _: LambdaContext) -> BatchResponse:
    """The Lambda entry point."""
    return report_first_failure(event, do_in_order(event, [([record], partial(follow, record)) for record in records_of(event)]))
