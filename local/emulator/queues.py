"""SQS's fair queues: a standard queue first delivers messages of those groups that have few in flight.

Stock ministack (services/sqs.py, _collect_msgs) keeps the group and delivers in the order of arrival, so that one
tenant's backlog makes all others wait. AWS's developer guide: "How Amazon SQS fair queues work".
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from ministack.core.responses import new_uuid
from ministack.services import sqs

Message = dict[str, Any]
_stock = sqs._collect_msgs


def collect(queue: dict[str, Any], most: int, visibility_timeout: int) -> list[Message]:
    """Up to `most` visible messages, which are then hidden for `visibility_timeout` seconds; each message without a
    group counts as a group of its own."""
    if queue["is_fifo"] or not any(message.get("group_id") for message in queue["messages"]):
        stock_messages: list[Message] = _stock(queue, most, visibility_timeout)
        return stock_messages
    now = time.time()
    under_way: Counter[str | None] = Counter(message.get("group_id") for message in queue["messages"] if message["visible_at"] > now)
    waiting = [message for message in queue["messages"] if message["visible_at"] <= now]
    messages: list[Message] = []
    while waiting and len(messages) < most:
        message = min(waiting, key=lambda one: under_way[one["group_id"]] if one.get("group_id") else 0)
        under_way[message.get("group_id")] += 1
        waiting.remove(message)
        messages.append(message)
        sqs._ensure_msg_fields(message)
        message |= {"receipt_handle": new_uuid(), "visible_at": now + visibility_timeout, "receive_count": message["receive_count"] + 1}
        if message.get("first_receive_at") is None:
            message["first_receive_at"] = now
    return messages


def install() -> None:
    """Hook in."""
    sqs._collect_msgs = collect
