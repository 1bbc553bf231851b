"""The check that no mirrored request is lost: sampled = outputs + dead + under way."""

from collections.abc import Mapping
from datetime import timedelta

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.clock import utc_now
from rlaas.runtime.metrics import emit
from rlaas.runtime.stage import current_stage

SETTLED = timedelta(minutes=5)
"""Younger entries may not have reached the queue yet, and the queue's counts lag by up to a minute."""


def handler(_: Mapping[str, object], __: LambdaContext) -> dict[str, int]:
    """Compare the ledger's entries, each a sampled request without an output, with the messages in the queues. An entry
    without a message is lost. The answer counts requests.

    The queues are counted first: a request that gets its output before the ledger is read is no longer an entry. So
    work in between can hide a loss until the next check, and never shows a false one.
    """
    stage = current_stage()
    before = utc_now() - SETTLED
    under_way, dead_letters = stage.shadow_queue.measure_depth().total, stage.dead_shadows.measure_depth().total
    entries = stage.shadow_ledger.entries(before=before)
    counts = {"entries": entries, "under_way": under_way, "dead": dead_letters, "lost": max(0, entries - under_way - dead_letters)}
    if entries or under_way or dead_letters:  # CloudWatch bills a metric for each hour in which it is sent
        emit(
            {
                "ShadowOpen": (entries, "Count"),
                "ShadowUnderWay": (under_way, "Count"),
                "ShadowDead": (dead_letters, "Count"),
                "ShadowLost": (counts["lost"], "Count"),
            },
            dimensions={"stage": stage.name},
            at=utc_now(),
            properties={},
        )
    return counts
