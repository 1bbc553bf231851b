"""Budgets on the laptop cloud's DynamoDB, over HTTP, with as many callers at once as there may be."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.config import Config

from rlaas.adapters.aws.counters import DynamoCounters
from rlaas.errors import QuotaExceeded
from rlaas.metering.budgets import Amount, Budget, Budgets, SpendingRequest, list_charges
from rlaas.metering.counters import WHOLE
from rlaas.metering.ledger import GRACE, Reservation, read_window, reserve, settle
from tests.contract.tables import make_table
from tests.fakes.worlds import NOW
from tests.local_cloud.conftest import Emulator

CALLERS = 64
BUDGETS = Budgets(
    budgets=(
        Budget(name="spend", measure="usd", limit=1.0, window="month"),
        Budget(name="tokens", measure="tokens", limit=1_000_000, window="hour"),
        Budget(name="rate", measure="requests", limit=10_000, window="second"),
    )
)
DIME = Amount(tokens=10, nano_usd=100_000_000)


@pytest.fixture(scope="module")
def counters(emulator: Emulator) -> DynamoCounters:
    dynamodb: Any = boto3.client(
        "dynamodb",
        endpoint_url=emulator.url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(max_pool_connections=CALLERS, read_timeout=120),
    )
    return DynamoCounters(make_table(dynamodb, f"counters-{uuid.uuid4().hex[:8]}"), dynamodb)


def reserve_dime(counters: DynamoCounters, tenant_id: str, name: str, now: datetime, shard: int = WHOLE) -> Reservation | QuotaExceeded:
    due = list_charges(BUDGETS, SpendingRequest(skill="reply", key_id="key1"), now=now)
    try:
        reservation = reserve(counters, tenant_id, due, DIME, reservation_id=name, now=now, lifetime_s=30, shard=shard)
    except QuotaExceeded as refusal:
        return refusal
    assert reservation is not None
    return reservation


def test_of_64_callers_at_once_exactly_10_are_served_and_what_crashed_comes_back(counters: DynamoCounters) -> None:
    with ThreadPoolExecutor(CALLERS) as callers:
        answers = list(callers.map(lambda number: reserve_dime(counters, "crowd", f"r{number}", NOW), range(CALLERS)))
    reservations = [answer for answer in answers if isinstance(answer, Reservation)]
    assert len(reservations) == 10
    assert {answer.retry_after_s for answer in answers if isinstance(answer, QuotaExceeded)} == {1}

    # Four settle for half, six are killed; when those have expired, 64 callers at once find room for eight.
    with ThreadPoolExecutor(CALLERS) as callers:
        list(
            callers.map(
                lambda reservation: settle(counters, reservation, Amount(tokens=10, nano_usd=50_000_000), now=NOW), reservations[:4]
            )
        )
    later = NOW + timedelta(seconds=60 + GRACE)
    with ThreadPoolExecutor(CALLERS) as callers:
        later_answers = list(callers.map(lambda number: reserve_dime(counters, "crowd", f"a{number}", later), range(CALLERS)))
    assert len([answer for answer in later_answers if isinstance(answer, Reservation)]) == 8
    month = list_charges(BUDGETS, SpendingRequest(skill="reply", key_id="key1"), now=NOW)[0]
    assert read_window(counters.read("crowd"), month.counter, month.start) == (1_000_000_000, 800_000_000)


def test_settlements_give_their_money_back_to_those_who_come_again(counters: DynamoCounters) -> None:
    """Every caller comes until it is served; each spends a hundredth of what it sets aside, so all of them are."""

    def persistent(number: int) -> None:
        for attempt in range(1000):
            reservation = reserve_dime(counters, "patient", f"r{number}-{attempt}", NOW)
            if isinstance(reservation, Reservation):
                settle(counters, reservation, Amount(tokens=10, nano_usd=1_000_000), now=NOW)
                return
        raise AssertionError("never served while money was left")

    with ThreadPoolExecutor(CALLERS) as callers:
        list(callers.map(persistent, range(CALLERS)))
    month = list_charges(BUDGETS, SpendingRequest(skill="reply", key_id="key1"), now=NOW)[0]
    assert read_window(counters.read("patient"), month.counter, month.start) == (CALLERS * 1_000_000, 0)


def test_callers_in_several_shards_are_served_exactly_what_the_budget_has(counters: DynamoCounters) -> None:
    def reserve_in_turn(number: int) -> Reservation | QuotaExceeded:
        return reserve_dime(counters, "shared", f"r{number}", NOW, shard=number % 4)

    answers = [reserve_in_turn(number) for number in range(16)]
    assert [isinstance(answer, Reservation) for answer in answers] == [True] * 10 + [False] * 6
    month = list_charges(BUDGETS, SpendingRequest(skill="reply", key_id="key1"), now=NOW)[0]
    assert read_window(counters.read("shared"), month.counter, month.start) == (1_000_000_000, 1_000_000_000)
