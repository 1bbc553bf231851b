"""HTTP to the servers that tenants name: pooled, bounded in time and size, and never into a private network."""

import http.client
import io
import ipaddress
import json
import math
import queue
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import urllib3
from pydantic import JsonValue
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.response import BaseHTTPResponse

from rlaas.adapters.models.server_sent_events import event_data
from rlaas.adapters.models.vendor_failures import retry_after_s
from rlaas.chat import BackendFailed, Misconfigured

CONNECT_TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""More than API Gateway passes on, and little enough to be parsed in a function's memory, whatever it contains."""
MAX_STREAM_BYTES = 64 * 1024 * 1024
"""128,000 tokens, each in an event of 500 bytes. A stream is read piece by piece; the length of its text has a limit of
its own."""
_MAX_REFUSAL_BYTES = 64 * 1024
_PIECE_BYTES = 64 * 1024
_IDLE_S = 30.0
"""Seconds after which an unused connection is not used again: the server may have closed it unnoticed, since a function
is frozen between requests."""
# IANA's special-purpose registries (iana-ipv4-special-registry, iana-ipv6-special-registry), and multicast. Not
# `is_global`, which follows the registries as they were when that Python was released. The few public anycast services
# within these blocks are left out too.
_NOT_PUBLIC_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24"),
        *("192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3"),
    )
)
_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_V6 = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20")))
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class VendorRefused(Exception):
    """A vendor answered another status than 200; its adapter turns this into RLaaS's own errors."""

    def __init__(self, status: int, content: bytes, retry_after_s: float | None) -> None:
        super().__init__(status)
        self.status = status
        self.content = content
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Deadline:
    """When the wait for an answer ends: `timeout_s` seconds after `since`, and at `ends_at` at the latest, on the
    monotonic clock."""

    timeout_s: float
    ends_at: float
    since: float = field(default_factory=time.monotonic)
    is_sent: bool = False
    """Whether the request may have reached the vendor."""

    def seconds_left(self) -> float:
        """Seconds until then."""
        return min(self.since + self.timeout_s, self.ends_at) - time.monotonic()


_DEADLINE: ContextVar[_Deadline] = ContextVar("_DEADLINE")
"""The deadline of the request that this thread sends: urllib3 has no other way to pass it to a connection."""


class VendorEvents(Iterator[bytes]):
    """Each server-sent event's data as it comes. The reader restarts the time-out when an event brought content, so
    that a server that only keeps the connection alive runs into it. Closing it closes the connection."""

    def __init__(self, events: Generator[bytes, None, None], deadline: _Deadline) -> None:
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
        self._pools = urllib3.PoolManager(num_pools=100, maxsize=50, retries=False)
        self._pools.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool} if private_addresses else {"https": _PublicPool}

    def whole(self, vendor: str, url: str, body: Mapping[str, JsonValue], headers: Mapping[str, str], *, timeout_s: float) -> bytes:
        """The answer's content, within `timeout_s` seconds. Raises: VendorRefused, BackendFailed."""
        deadline = _Deadline(timeout_s, ends_at=math.inf)
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
        deadline = _Deadline(timeout_s, ends_at=math.inf if ends_at is None else ends_at)

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
        self, vendor: str, url: str, body: Mapping[str, JsonValue], headers: Mapping[str, str], deadline: _Deadline
    ) -> Iterator[BaseHTTPResponse]:
        if not self._private_addresses and not url.startswith("https://"):
            raise Misconfigured(f"{vendor}: models are only asked over https")
        with _failures(vendor, deadline):
            answer = self._send(
                url,
                json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
                {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "rlaas", **headers},
                deadline,
            )
            try:
                if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
                    raise BackendFailed(f"{vendor}'s answer is compressed, which it was asked not to be")
                if answer.status != 200:
                    content = _read_beginning(answer)
                    lower = {name.lower(): value for name, value in answer.headers.items()}
                    raise VendorRefused(answer.status, content, retry_after_s(lower))
                yield answer
                _give_back(answer, deadline)
            except BaseException:
                answer.close()
                raise

    def _send(self, url: str, body: bytes, headers: Mapping[str, str], deadline: _Deadline) -> BaseHTTPResponse:
        timeout_s = max(0.001, deadline.seconds_left())
        token = _DEADLINE.set(deadline)
        try:
            return self._pools.urlopen(
                "POST",
                url,
                body=body,
                headers=headers,
                timeout=urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, timeout_s), read=timeout_s),
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        finally:
            _DEADLINE.reset(token)


def _pieces(vendor: str, answer: BaseHTTPResponse, most: int) -> Iterator[bytes]:
    """The answer's content as it comes, up to `most` bytes."""
    size = 0
    while piece := answer.read1(_PIECE_BYTES):
        size += len(piece)
        if size > most:
            raise BackendFailed(f"{vendor}'s answer is larger than {most} bytes")
        yield piece


def _read_beginning(answer: BaseHTTPResponse) -> bytes:
    """About the first `_MAX_REFUSAL_BYTES` of the answer."""
    content = b""
    while len(content) < _MAX_REFUSAL_BYTES and (piece := answer.read1(_PIECE_BYTES)):
        content += piece
    return content


def _give_back(answer: BaseHTTPResponse, deadline: _Deadline) -> None:
    """Give the connection back to the pool if the answer ends here; close it if there is more."""
    deadline.ends_at = time.monotonic() + 0.1
    rest: bytes | None = b"?"
    with suppress(HTTPError, OSError):
        rest = answer.read1(_PIECE_BYTES)
    if rest:
        answer.close()
    else:
        answer.release_conn()


@contextmanager
def _failures(vendor: str, deadline: _Deadline) -> Iterator[None]:
    """Turn urllib3's errors inside into BackendFailed; a request that was never sent is safe to repeat."""
    try:
        yield
    except (NewConnectionError, ConnectTimeoutError, NameResolutionError) as error:
        detail = f"{vendor} could not be reached: {type(error).__name__}"
        raise BackendFailed(detail, safe_to_repeat=True, nothing_done=True) from error
    except ReadTimeoutError as error:
        raise BackendFailed(f"{vendor} did not answer in time", nothing_done=not deadline.is_sent) from error
    except LocationParseError as error:
        raise Misconfigured(f"{vendor}: the base_url is not an address") from error
    except (HTTPError, OSError) as error:
        raise BackendFailed(f"{vendor} broke off: {type(error).__name__}", nothing_done=not deadline.is_sent) from error


def is_public(address: str) -> bool:
    """Whether `address` (IPv4 or IPv6) is on the public internet; for an IPv6 address that contains an IPv4 address,
    whether the latter is. Raises: ValueError for a text that is no address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _NOT_PUBLIC_V4)
    inner = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
    if inner is not None:
        return is_public(str(inner))
    return ip in _UNICAST and not any(ip in network for network in _NOT_PUBLIC_V6)


class _Reads(io.RawIOBase):
    """A connection's bytes, until the deadline: http.client reads status, headers and content through it, so that all
    of them end then, however slowly the server sends."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline.seconds_left()
        if left <= 0:
            raise TimeoutError("the answer's time is over")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Reads until the deadline of the request that it answers."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Reads(sock, _DEADLINE.get()))


class _Plain(HTTPConnection):
    """Opens a new connection when it was idle for long, and begins each request with the time-out to connect."""

    response_class = _Response
    _used_at = 0.0

    def request(self, *args: Any, **kwargs: Any) -> None:
        _DEADLINE.get().is_sent = True
        self._used_at = time.monotonic()
        if self.sock is not None:
            self.sock.settimeout(CONNECT_TIMEOUT_S)
        super().request(*args, **kwargs)

    @property
    def is_connected(self) -> bool:
        return super().is_connected and time.monotonic() - self._used_at < _IDLE_S


class _Secure(_Plain, HTTPSConnection):
    pass


class _Public(_Secure):
    """Connects to a public address or not at all; TLS still checks the name."""

    def _new_conn(self) -> socket.socket:
        # One time-out for resolving the name and for all its addresses together: a tenant chooses the name server and
        # the number of addresses, too.
        timeout_s = self.timeout if isinstance(self.timeout, float | int) else CONNECT_TIMEOUT_S
        until = time.monotonic() + timeout_s
        try:
            addresses = _resolve(self._dns_host, self.port, within_s=timeout_s)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        if not all(map(is_public, addresses)):
            raise Misconfigured("the base_url does not lead to a public address")
        last_error: OSError | None = None
        for address in addresses:
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                sock = socket.create_connection((address, self.port), left)
            except OSError as error:
                last_error = error
                continue
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            return sock
        raise NewConnectionError(self, f"none of the addresses answers: {last_error}")


def _resolve(host: str, port: int | None, *, within_s: float) -> list[str]:
    """The addresses of a name. `getaddrinfo` waits as long as the resolver does, some ten seconds, so it runs in a
    thread, whose late result is dropped. Raises: socket.gaierror, also after `within_s` seconds."""
    results: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            results.put([str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except Exception as error:  # raised below, in the calling thread
            results.put(error)

    threading.Thread(target=look_up, daemon=True, name="resolver").start()
    try:
        answer = results.get(timeout=within_s)
    except queue.Empty:
        raise socket.gaierror(socket.EAI_AGAIN, f"the name was not resolved in {within_s:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _Secure


class _PublicPool(HTTPSConnectionPool):
    ConnectionCls = _Public
