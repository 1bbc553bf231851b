"""HTTP to the servers that tenants name: pooled, bounded in time and size, and never into a private network."""

import http.client
import math
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress

from pydantic import JsonValue
from pydantic_core import to_json
from urllib3.exceptions import LocationParseError

from rlaas.adapters.models.server_sent_events import event_data
from rlaas.adapters.models.vendor_connections import (
    CONNECT_TIMEOUT_S,
    Connection,
    Deadline,
    ServerAnswer,
    UnusedConnections,
    connect_anywhere,
    connect_publicly,
    find_server,
)
from rlaas.adapters.models.vendor_failures import retry_after_s
from rlaas.chat import BackendFailed, Misconfigured

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""More than API Gateway passes on, and little enough to be parsed in a function's memory, whatever it contains."""
MAX_STREAM_BYTES = 64 * 1024 * 1024
"""128,000 tokens, each in an event of 500 bytes. A stream is read piece by piece; the length of its text has a limit of
its own."""
_MAX_REFUSAL_BYTES = 64 * 1024
_PIECE_BYTES = 64 * 1024


class VendorRefused(Exception):
    """A vendor answered another status than 200; its adapter turns this into RLaaS's own errors."""

    def __init__(self, status: int, content: bytes, retry_after_s: float | None) -> None:
        super().__init__(status)
        self.status = status
        self.content = content
        self.retry_after_s = retry_after_s


class VendorEvents(Iterator[bytes]):
    """Each server-sent event's data as it comes. The reader restarts the time-out when an event brought content, so
    that a server that only keeps the connection alive runs into it. Closing it closes the connection."""

    def __init__(self, events: Generator[bytes, None, None], deadline: Deadline) -> None:
        self._events = events
        self._deadline = deadline

    def __next__(self) -> bytes:
        return next(self._events)

    def restart_timeout(self) -> None:
        """Give the server the full time-out again."""
        self._deadline.since = time.monotonic()

    def close(self) -> None:
        """Close the connection, unless all events were read."""
        self._events.close()


class VendorHttp:
    """POSTs JSON to vendors' servers.

    A tenant chooses the address, so it must not lead into our network (server-side request forgery). Only https is
    used. The name is resolved once, all its addresses must be public, and the connection goes to one of the addresses
    that were checked, so that a name that resolves differently the next time gains nothing. Redirects are not followed
    and no proxy is used. `private_addresses` lifts these rules for stages whose model servers are on the same machine.
    """

    def __init__(self, *, private_addresses: bool = False) -> None:
        self._private_addresses = private_addresses
        self._unused = UnusedConnections()

    def whole(self, vendor: str, url: str, body: Mapping[str, JsonValue], headers: Mapping[str, str], *, timeout_s: float) -> bytes:
        """The answer's content, within `timeout_s` seconds. Raises: VendorRefused, BackendFailed."""
        deadline = Deadline(timeout_s, ends_at=math.inf)
        with self._answer(vendor, url, body, headers, deadline) as answer:
            return b"".join(_pieces(vendor, answer, MAX_ANSWER_BYTES))

    def events(
        self,
        vendor: str,
        url: str,
        body: Mapping[str, JsonValue],
        headers: Mapping[str, str],
        *,
        is_last: Callable[[bytes], bool],
        timeout_s: float,
        ends_at: float | None = None,
    ) -> VendorEvents:
        """Each server-sent event's data as it comes, up to the event that `is_last`. The first event with content may
        take `timeout_s` seconds, and so may each next one, if the reader calls `restart_timeout` after it; all must
        have come by `ends_at` on the monotonic clock. The request is sent when the first event is read.

        Raises, when it is read: VendorRefused, BackendFailed.
        """
        deadline = Deadline(timeout_s, ends_at=math.inf if ends_at is None else ends_at)

        def events() -> Generator[bytes, None, None]:
            deadline.since = time.monotonic()
            with self._answer(vendor, url, body, headers, deadline) as answer:
                for data in event_data(_pieces(vendor, answer, MAX_STREAM_BYTES)):
                    yield data
                    if is_last(data):
                        break

        return VendorEvents(events(), deadline)

    @contextmanager
    def _answer(
        self, vendor: str, url: str, body: Mapping[str, JsonValue], headers: Mapping[str, str], deadline: Deadline
    ) -> Iterator[ServerAnswer]:
        if not self._private_addresses and not url.startswith("https://"):
            raise Misconfigured(f"{vendor}: models are only asked over https")
        content = to_json(body)
        headers = {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "rlaas", **headers}
        connection, path = self._connect(vendor, url, deadline)
        is_free = False
        try:
            with _failures(vendor), connection.post(path, content, headers, deadline) as answer:
                if answer.fields.get("content-encoding", "identity").lower() != "identity":
                    raise BackendFailed(f"{vendor}'s answer is compressed, which it was asked not to be")
                if answer.status != 200:
                    raise VendorRefused(answer.status, _read_beginning(answer), retry_after_s(answer.fields))
                yield answer
                is_free = _has_ended(answer, deadline)
        finally:
            if is_free:
                self._unused.keep(connection)
            else:
                connection.close()

    def _connect(self, vendor: str, url: str, deadline: Deadline) -> tuple[Connection, str]:
        """A connection to the server of `url`, and the path there. Raises: BackendFailed, which is safe to repeat where
        the server was not reached."""
        try:
            server, path = find_server(url)
            connection = self._unused.take(server)
            if connection is None:
                connect = connect_anywhere if self._private_addresses else connect_publicly
                timeout_s = min(CONNECT_TIMEOUT_S, max(0.001, deadline.seconds_left()))
                connection = Connection(server, connect(server, timeout_s))
            return connection, path
        except (LocationParseError, UnicodeError) as error:
            raise Misconfigured(f"{vendor}: the base_url is not an address") from error
        except ssl.SSLError as error:
            raise BackendFailed(f"{vendor} broke off: {type(error).__name__}", nothing_done=True) from error
        except OSError as error:
            detail = f"{vendor} could not be reached: {type(error).__name__}"
            raise BackendFailed(detail, safe_to_repeat=True, nothing_done=True) from error


def _pieces(vendor: str, answer: ServerAnswer, most: int) -> Iterator[bytes]:
    """The answer's content as it comes, up to `most` bytes."""
    size = 0
    while piece := _read_piece(answer):
        size += len(piece)
        if size > most:
            raise BackendFailed(f"{vendor}'s answer is larger than {most} bytes")
        yield piece


def _read_beginning(answer: ServerAnswer) -> bytes:
    """About the first `_MAX_REFUSAL_BYTES` of the answer."""
    content = b""
    while len(content) < _MAX_REFUSAL_BYTES and (piece := _read_piece(answer)):
        content += piece
    return content


def _read_piece(answer: ServerAnswer) -> bytes:
    """The next piece of the content; empty at its end. Raises: IncompleteRead."""
    piece = answer.read1(_PIECE_BYTES)
    if not piece and answer.length:
        raise http.client.IncompleteRead(b"", answer.length)
    return piece


def _has_ended(answer: ServerAnswer, deadline: Deadline) -> bool:
    """Whether nothing more comes of the answer, so that its connection can be used again."""
    deadline.ends_at = time.monotonic() + 0.1
    with suppress(http.client.HTTPException, OSError):
        return not _read_piece(answer)
    return False


@contextmanager
def _failures(vendor: str) -> Iterator[None]:
    """Turn the errors of sending and reading into BackendFailed."""
    try:
        yield
    except TimeoutError as error:
        raise BackendFailed(f"{vendor} did not answer in time") from error
    except (http.client.HTTPException, OSError) as error:
        raise BackendFailed(f"{vendor} broke off: {type(error).__name__}") from error
