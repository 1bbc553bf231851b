"""Sends one batch over HTTP and reads what became of it."""

from __future__ import annotations

import encodings.idna  # noqa: F401 (the first connection would import it, and a fork at that moment would hang the child)
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from rlaas_sdk.errors import NotConfigured
from rlaas_sdk.failures import describe_failure, describe_response, read_error
from rlaas_sdk.version import VERSION

BASE_S = 0.2
CAP_S = 30.0
LONGEST_RETRY_AFTER_S = 3600.0
# Their sum is below the spool's lease, so that a hanging request ends before another process may send.
TIMEOUT = httpx.Timeout(connect=3.0, write=5.0, read=10.0, pool=1.0)
DEFAULT_LIMITS = httpx.Limits()


@dataclass(frozen=True)
class BatchResults:
    """What became of each event of a batch, in order: True where it is stored, None where it has to be sent again, a
    text that says why it was refused."""

    results: list[bool | str | None]
    retry_after_s: float


@dataclass(frozen=True)
class NotABatch:
    """The service refused the body as a whole (malformed or too large): smaller batches may pass."""

    why: str


@dataclass(frozen=True)
class Failed:
    """No event is known to be stored: send all of them again, not before `retry_after_s` seconds have passed, and in
    smaller batches where the service got `too_much` to answer in time."""

    why: str
    retry_after_s: float = 0.0
    too_much: bool = False


class Transport:
    """Posts batches to `/v1/events:batch`. No failure of the network or the server raises."""

    def __init__(self, api_url: str, api_key: str) -> None:
        self._api_url = api_url.rstrip("/")
        self._api_key = api_key
        self._http: httpx.Client | None = None
        self._client_lock = threading.Lock()

    def send(self, bodies: Sequence[bytes]) -> BatchResults | NotABatch | Failed:
        """Post the events' JSON `bodies` as one batch, once."""
        with self._client_lock:
            if self._http is None:
                try:
                    self._http = open_client(self._api_key, TIMEOUT)
                except NotConfigured as error:
                    return Failed(str(error))
            http = self._http
        try:
            response = http.post(f"{self._api_url}/v1/events:batch", content=b'{"events":[' + b",".join(bodies) + b"]}")
            if is_body_refused(response):
                return NotABatch(describe_response(response))
            if response.status_code != 200:
                return Failed(describe_response(response), read_retry_after_s(response), too_much=response.status_code >= 500)
            results = [_read_result(item) for item in response.json()["results"]]
        except httpx.HTTPError as error:
            return Failed(describe_failure(error), too_much=isinstance(error, (httpx.ReadTimeout, httpx.WriteTimeout)))
        except (ValueError, KeyError, TypeError):
            return Failed(describe_response(response))
        if len(results) != len(bodies):
            return Failed(f"{len(results)} results for {len(bodies)} events")
        return BatchResults(results, read_retry_after_s(response))

    def close(self) -> None:
        """Close the connections; the next batch opens new ones."""
        if self._http is not None:
            self._http.close()
            self._http = None

    def before_fork(self) -> None:
        """Let no thread create a client during a fork: httpx then imports modules, and a child would wait for ever for
        the import locks."""
        self._client_lock.acquire()

    def after_fork_in_parent(self) -> None:
        """Release the lock."""
        self._client_lock.release()

    def after_fork_in_child(self) -> None:
        """Leave the sockets to the parent; the next batch opens new ones."""
        self._client_lock = threading.Lock()
        self._http = None


def open_client(api_key: str, timeout: httpx.Timeout, limits: httpx.Limits = DEFAULT_LIMITS) -> httpx.Client:
    """A client whose requests have the key. Raises: NotConfigured where the environment's proxy or its certificates
    cannot be used."""
    try:
        return httpx.Client(headers=build_headers(api_key), timeout=timeout, limits=limits)
    except (OSError, ValueError, ImportError) as error:
        names = "HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE"
        raise NotConfigured(f"no connection can be made with what the environment says ({names}): {error}") from error


def is_body_refused(response: httpx.Response) -> bool:
    """Whether the body is at fault, so that a part of it may pass: the service says so, or it is too large for anything
    on the way. What else answers 400 has not read the events."""
    return response.status_code == 413 or (response.status_code in (400, 422) and read_error(response) is not None)


def build_headers(api_key: str) -> dict[str, str]:
    """The headers of every request."""
    return {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json", "User-Agent": f"rlaas-sdk-python/{VERSION}"}


def draw_backoff_s(failures: int) -> float:
    """The seconds to wait after so many failures in a row: uniform in [0, min(CAP_S, BASE_S * 2^failures)] (full
    jitter)."""
    return random.uniform(0, min(CAP_S, BASE_S * 2 ** min(failures, 16)))


def read_retry_after_s(response: httpx.Response) -> float:
    """The seconds that the service asks to wait, as a number or an HTTP date, at most an hour; 0 where it does not
    ask."""
    header = response.headers.get("Retry-After", "")
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (TypeError, ValueError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S) if seconds == seconds else 0.0


def _read_result(result: object) -> bool | str | None:
    if not isinstance(result, dict) or not isinstance(status := result.get("status"), int):
        raise TypeError("not a result")
    if status in (200, 201, 202):
        return True
    if status == 429 or status >= 500:
        return None
    error = result.get("error")
    return f"{status} {error.get('code')}, {error.get('param')}" if isinstance(error, dict) else str(status)
