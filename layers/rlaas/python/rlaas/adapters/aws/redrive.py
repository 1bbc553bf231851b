"""Playing failed work again, a page a call: in this process from the places where it is kept, or by the function
`redrive`.

A piece of work is removed only after its consumer has handled it, so a process that dies in between loses nothing.
Consumers handle each piece once, however often they get it.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Protocol, cast, get_args

import boto3
from botocore.config import Config
from pydantic import JsonValue, ValidationError

from rlaas.adapters.aws.clients import dependency
from rlaas.adapters.aws.failed_work import PlayResult, Work
from rlaas.clock import Clock, utc_now
from rlaas.errors import DependencyUnavailable, InvalidInput
from rlaas.tenancy.redrive import FailedWorkKind, Left, RedrivePage

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

PAGE = timedelta(seconds=10)
"""After this time a page starts no further work; with the longest call it ends before API Gateway stops waiting, at
29 s."""
_PLACES: tuple[FailedWorkKind, ...] = get_args(FailedWorkKind)
_CURSOR = re.compile(r"(\d{13}) (batches|calls|shadows|lake) (.*)", re.DOTALL)


class FailedWork(Protocol):
    """The failed work that one place keeps."""

    def count_waiting(self) -> int:
        """How many pieces of work there are, counted up to `COUNTED`. Raises: DependencyUnavailable."""
        ...

    def iterate_work(self, after: str, until: datetime) -> Iterator[Work]:
        """The work that was kept before `until` and comes after `after`. Raises: DependencyUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class KeptRedriver:
    """`Redriver` over the four places where failed work is kept."""

    places: Mapping[FailedWorkKind, FailedWork]
    clock: Clock = utc_now

    def count_waiting(self) -> dict[FailedWorkKind, int]:
        """How many pieces of work each place keeps. Raises: DependencyUnavailable."""
        return {name: place.count_waiting() for name, place in self.places.items()}

    def play(self, cursor: str | None) -> RedrivePage:
        """Some seconds of work after `cursor`. Raises: InvalidInput, DependencyUnavailable."""
        started_at = self.clock()
        until, first, after = _read_cursor(cursor, started_at)
        outcomes: list[PlayResult] = []
        for name in _PLACES[_PLACES.index(first) :]:
            for work in self.places[name].iterate_work(after, until):
                if self.clock() - started_at > PAGE:
                    return _build_page(outcomes, _write_cursor(until, name, after))
                try:
                    outcomes.append(work.play())
                except DependencyUnavailable as error:
                    outcomes.append(Left(what=work.what, why=error.detail))
                after = work.resume()
            after = ""
        return _build_page(outcomes, None)


def _build_page(outcomes: Sequence[PlayResult], cursor: str | None) -> RedrivePage:
    left = tuple(outcome for outcome in outcomes if isinstance(outcome, Left))
    return RedrivePage(handled=outcomes.count("handled"), superseded=outcomes.count("superseded"), left=left, cursor=cursor)


def _read_cursor(cursor: str | None, now: datetime) -> tuple[datetime, FailedWorkKind, str]:
    if cursor is None:
        return now, _PLACES[0], ""
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidInput("the cursor is not one a redrive gave out", param="cursor")
    return datetime.fromtimestamp(int(match[1]) / 1000, UTC), cast(FailedWorkKind, match[2]), match[3]


def _write_cursor(until: datetime, place: FailedWorkKind, after: str) -> str:
    return f"{int(until.timestamp() * 1000):013d} {place} {after}"


class LambdaRedriver:
    """`Redriver` by the function `redrive`, which may do what the admin API may not."""

    def __init__(self, name: str, functions: "LambdaClient | None" = None) -> None:
        self._name = name
        self._functions = functions

    def count_waiting(self) -> dict[FailedWorkKind, int]:
        """How many pieces of work each place keeps. Raises: DependencyUnavailable."""
        return cast("dict[FailedWorkKind, int]", self._ask({"action": "waiting"}))

    def play(self, cursor: str | None) -> RedrivePage:
        """Some seconds of work after `cursor`. Raises: InvalidInput, DependencyUnavailable."""
        try:
            return RedrivePage.model_validate(self._ask({"action": "play", "cursor": cursor}), strict=False)
        except ValidationError:
            raise DependencyUnavailable("the answer of the function redrive is not one") from None

    def _ask(self, request: Mapping[str, JsonValue]) -> object:
        with dependency("the function redrive"):
            answer = (self._functions or _lambda_client()).invoke(FunctionName=self._name, Payload=json.dumps(request).encode())
            body = json.loads(answer["Payload"].read())
        if "FunctionError" not in answer:
            return body
        if body.get("errorType") == "InvalidInput":
            raise InvalidInput(body["errorMessage"], param="cursor")
        raise DependencyUnavailable("the function redrive failed; its log says why")


@cache
def _lambda_client() -> "LambdaClient":
    config = Config(connect_timeout=1, read_timeout=28, retries={"total_max_attempts": 1})
    client: LambdaClient = boto3.client("lambda", config=config)
    return client
