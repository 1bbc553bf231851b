"""One batch over HTTP, and what became of it."""

from __future__ import annotations

import encodings.idna  # noqa: F401 (the first connection would import it, and a fork in that moment hang its child)
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from rlaas_sdk.version import VERSION

BASE_S = 0.2
CAP_S = 30.0
LONGEST_RETRY_AFTER_S = 3600.0
# Together below the spool's lease, so that a hanging request ends before another process may send.
TIMEOUT = httpx.Timeout(connect=3.0, write=5.0, read=10.0, pool=1.0)


@dataclass(frozen=True)
class Answered:
    """The service's word on each event of a batch, in order: True stored, None to be sent again, a text why it was
    refused."""

    results: list[bool | str | None]
    retry_after_s: float


@dataclass(frozen=True)
class NotABatch:
    """The service refused the body as a whole (malformed or too large): smaller ones may pass."""

    why: str


@dataclass(frozen=True)
class Failed:
    """Nothing is known to be stored: send all of it again, not before `retry_after_s` seconds; in smaller batches where
    it was `too_much` for the service to answer in time."""

    why: str
    retry_after_s: float = 0.0
    too_much: bool = False


class Transport:
    """Posts batches to `/v1/events:batch`. Never raises for what a network or a server does."""

    def __init__(self, api_url: str, api_key: str) -> None:
        self._api_url = api_url.rstrip("/")
        self._api_key = api_key
        self._http: httpx.Client | None = None
        self._making = threading.Lock()

    def send(self, bodies: Sequence[bytes]) -> Answered | NotABatch | Failed:
        """One attempt."""
        with self._making:
            if self._http is None:
                self._http = httpx.Client(timeout=TIMEOUT, headers=headers(self._api_key))
            http = self._http
        try:
            response = http.post(f"{self._api_url}/v1/events:batch", content=b'{"events":[' + b",".join(bodies) + b"]}")
            if response.status_code in (400, 413, 422):
                return NotABatch(_error_in(response))
            if response.status_code != 200:
                why = f"HTTP {response.status_code}: {_error_in(response)}"
                return Failed(why, retry_after_s(response), too_much=response.status_code >= 500)
            results = [_result(each) for each in response.json()["results"]]
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return Failed(f"{type(error).__name__}: {error}", too_much=isinstance(error, (httpx.ReadTimeout, httpx.WriteTimeout)))
        except (ValueError, KeyError, TypeError) as error:
            return Failed(f"an answer that is none of the service's ({type(error).__name__})")
        if len(results) != len(bodies):
            return Failed(f"{len(results)} results for {len(bodies)} events")
        return Answered(results, retry_after_s(response))

    def close(self) -> None:
        """Close the connections; the next batch opens new ones."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def before_fork(self) -> None:
        """Let no client be in the making: httpx imports modules then, whose locks a child would never see released."""
        self._making.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._making.release()

    def after_fork_in_child(self) -> None:
        """The sockets are the parent's: leave them, and open new ones."""
        self._making = threading.Lock()
        self._http = None


def headers(api_key: str) -> dict[str, str]:
    """What every request carries."""
    return {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json", "User-Agent": f"rlaas-sdk-python/{VERSION}"}


def jittered_s(failures: int) -> float:
    """How long to wait after so many failures in a row: uniform in [0, min(CAP_S, BASE_S * 2^failures)] (full
    jitter)."""
    return random.uniform(0, min(CAP_S, BASE_S * 2 ** min(failures, 16)))


def retry_after_s(response: httpx.Response) -> float:
    """Seconds the service asked to wait, by number or HTTP date, at most an hour; 0 where it did not ask."""
    asked = response.headers.get("Retry-After", "")
    try:
        seconds = float(asked)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(asked).timestamp() - time.time()
        except (TypeError, ValueError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if seconds == seconds else 0.0


def _result(result: object) -> bool | str | None:
    if not isinstance(result, dict) or not isinstance(status := result.get("status"), int):
        raise TypeError("not a result")
    if status in (200, 201, 202):
        return True
    if status == 429 or status >= 500:
        return None
    error = result.get("error")
    return f"{status} {error.get('code')}, {error.get('param')}" if isinstance(error, dict) else str(status)


def _error_in(response: httpx.Response) -> str:
    try:
        error = response.json()["error"]
        return f"{error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return "no error in the answer"
