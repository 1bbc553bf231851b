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
from rlaas.chat import BackendFailed

CONNECT_TIMEOUT_S = 2.0
MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""More than API Gateway hands on, and little enough to be read into values in a function's memory, whatever it is made
of."""
MAX_STREAM_BYTES = 64 * 1024 * 1024
"""128,000 tokens, each in an event of 500 bytes; read a piece at a time, and what they say is bounded apart."""
_MAX_REFUSAL_BYTES = 64 * 1024
_PIECE_BYTES = 64 * 1024
_IDLE_S = 30.0
"""A connection that lay unused for longer may be dead at the other end without our seeing it (a function is frozen
between requests)."""
# IANA's special-purpose registries (iana-ipv4-special-registry, iana-ipv6-special-registry), and multicast; not
# `is_global`: each Python knows the registries of its own day. The few anycast services among blocks that reach nobody
# are left out with them.
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
    """A vendor answered something other than 200; its adapter says what that means."""

    def __init__(self, status: int, content: bytes, retry_after_s: float | None) -> None:
        super().__init__(status)
        self.status = status
        self.content = content
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Patience:
    """How long an answer is still waited for: `timeout_s` seconds from `since`, and not beyond `ends_at`; by the
    monotonic clock."""

    timeout_s: float
    ends_at: float
    since: float = field(default_factory=time.monotonic)
    sent: bool = False
    """Whether the request may have reached the vendor."""

    def left(self) -> float:
        """In seconds."""
        return min(self.since + self.timeout_s, self.ends_at) - time.monotonic()


_PATIENCE: ContextVar[_Patience] = ContextVar("_PATIENCE")
"""Of the request that this thread is sending: urllib3 has no other way to tell a connection."""


class VendorEvents(Iterator[bytes]):
    """Each server-sent event's data as it comes. The time-out begins anew when the reader has `heard` something in
    them: a server that only keeps the connection alive is silent. Closing it closes the connection."""

    def __init__(self, events: Generator[bytes, None, None], patience: _Patience) -> None:
        self._events = events
        self._patience = patience

    def __next__(self) -> bytes:
        return next(self._events)

    def heard(self) -> None:
        """What came so far says something."""
        self._patience.since = time.monotonic()

    def close(self) -> None:
        """End it here."""
        self._events.close()


class VendorHttp:
    """POSTs JSON to vendors' servers.

    A tenant chooses the address, so it must not lead into our network (server-side request forgery): only https; the
    name is resolved once, every address it has must be a public one, and the connection is made to an address that was
    checked, so that an answer that changes between check and use gains nothing; redirects are not followed and no proxy
    is used. `private_addresses` lifts this for stages whose model servers are on the same machine.
    """

    def __init__(self, *, private_addresses: bool = False) -> None:
        self._private_addresses = private_addresses
        self._pools = urllib3.PoolManager(num_pools=100, maxsize=50, retries=False)
        self._pools.pool_classes_by_scheme = {"http": _PlainPool, "https": _SecurePool} if private_addresses else {"https": _PublicPool}

    def whole(self, vendor: str, url: str, body: Mapping[str, JsonValue], headers: Mapping[str, str], *, timeout_s: float) -> bytes:
        """The answer's content, within `timeout_s` seconds. Raises: VendorRefused, BackendFailed."""
        patience = _Patience(timeout_s, ends_at=math.inf)
        with self._answer(vendor, url, body, headers, patience) as answer:
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
        """Each server-sent event's data as it comes, up to the last one: `timeout_s` seconds until the first that says
        something and from each of these to the next, and all of them by `ends_at` on the monotonic clock. Nothing is
        sent before the first is asked for.

        Raises, when it is read: VendorRefused, BackendFailed.
        """
        patience = _Patience(timeout_s, ends_at=math.inf if ends_at is None else ends_at)

        def events() -> Generator[bytes, None, None]:
            patience.since = time.monotonic()
            with self._answer(vendor, url, body, headers, patience) as answer:
                for data in event_data(_pieces(vendor, answer, MAX_STREAM_BYTES)):
                    yield data
                    if is_last(data):
                        break

        return VendorEvents(events(), patience)

    @contextmanager
    def _answer(
        self, vendor: str, url: str, body: Mapping[str, JsonValue], headers: Mapping[str, str], patience: _Patience
    ) -> Iterator[BaseHTTPResponse]:
        if not self._private_addresses and not url.startswith("https://"):
            raise BackendFailed(f"{vendor}: models are only asked over https", nothing_done=True)
        with _failures(vendor, patience):
            answer = self._sent(
                url,
                json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(),
                {"content-type": "application/json", "accept-encoding": "identity", "user-agent": "rlaas", **headers},
                patience,
            )
            try:
                if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
                    raise BackendFailed(f"{vendor}'s answer is compressed, which it was asked not to be")
                if answer.status != 200:
                    content = _beginning(answer)
                    lower = {name.lower(): value for name, value in answer.headers.items()}
                    raise VendorRefused(answer.status, content, retry_after_s(lower))
                yield answer
                _give_back(answer, patience)
            except BaseException:
                answer.close()
                raise

    def _sent(self, url: str, body: bytes, headers: Mapping[str, str], patience: _Patience) -> BaseHTTPResponse:
        timeout_s = max(0.001, patience.left())
        asking = _PATIENCE.set(patience)
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
            _PATIENCE.reset(asking)


def _pieces(vendor: str, answer: BaseHTTPResponse, most: int) -> Iterator[bytes]:
    """The answer's content as it comes, up to `most` bytes."""
    size = 0
    while piece := answer.read1(_PIECE_BYTES):
        size += len(piece)
        if size > most:
            raise BackendFailed(f"{vendor}'s answer is larger than {most} bytes")
        yield piece


def _beginning(answer: BaseHTTPResponse) -> bytes:
    content = b""
    while len(content) < _MAX_REFUSAL_BYTES and (piece := answer.read1(_PIECE_BYTES)):
        content += piece
    return content


def _give_back(answer: BaseHTTPResponse, patience: _Patience) -> None:
    """To the pool if the answer ends here, as it should once its reader is content; closed if there is more."""
    patience.ends_at = time.monotonic() + 0.1
    rest: bytes | None = b"?"
    with suppress(HTTPError, OSError):
        rest = answer.read1(_PIECE_BYTES)
    if rest:
        answer.close()
    else:
        answer.release_conn()


@contextmanager
def _failures(vendor: str, patience: _Patience) -> Iterator[None]:
    """Turn urllib3's errors inside into BackendFailed; a request that was never sent is safe to repeat."""
    try:
        yield
    except (NewConnectionError, ConnectTimeoutError, NameResolutionError) as error:
        detail = f"{vendor} could not be reached: {type(error).__name__}"
        raise BackendFailed(detail, safe_to_repeat=True, nothing_done=True) from error
    except ReadTimeoutError as error:
        raise BackendFailed(f"{vendor} did not answer in time", nothing_done=not patience.sent) from error
    except LocationParseError as error:
        raise BackendFailed(f"{vendor}: the base_url is not an address", nothing_done=True) from error
    except (HTTPError, OSError) as error:
        raise BackendFailed(f"{vendor} broke off: {type(error).__name__}", nothing_done=not patience.sent) from error


def is_public(address: str) -> bool:
    """Whether `address` (IPv4 or IPv6) is on the public internet; for one that carries an IPv4 address inside, whether
    that is."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return not any(ip in network for network in _NOT_PUBLIC_V4)
    inner = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
    if inner is not None:
        return is_public(str(inner))
    return ip in _UNICAST and not any(ip in network for network in _NOT_PUBLIC_V6)


class _Reads(io.RawIOBase):
    """A connection's bytes, while there is patience for them: what http.client reads one call at a time, status,
    headers and content, ends with it, however slowly it drips."""

    def __init__(self, sock: socket.socket, patience: _Patience) -> None:
        self._sock = sock
        self._raw = sock.makefile("rb", buffering=0)
        self._patience = patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._patience.left()
        if left <= 0:
            raise TimeoutError("the answer's time is over")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """Reads by the patience of the request that it answers."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Reads(sock, _PATIENCE.get()))


class _Plain(HTTPConnection):
    """Gives itself up when it lay idle for long, and forgets how long its last answer was waited for."""

    response_class = _Response
    _used_at = 0.0

    def request(self, *args: Any, **kwargs: Any) -> None:
        _PATIENCE.get().sent = True
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
    """Connects to a public address or not at all; TLS still proves the name."""

    def _new_conn(self) -> socket.socket:
        # One time-out for the name and all its addresses together: who answers for it, and how many there are, is the
        # tenant's choice too.
        allowed = self.timeout if isinstance(self.timeout, float | int) else CONNECT_TIMEOUT_S
        until = time.monotonic() + allowed
        try:
            addresses = _addresses_of(self._dns_host, self.port, within_s=allowed)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        if not all(map(is_public, addresses)):
            raise BackendFailed("the base_url does not lead to a public address", nothing_done=True)
        failed: OSError | None = None
        for address in addresses:
            left = until - time.monotonic()
            if left <= 0:
                break
            try:
                sock = socket.create_connection((address, self.port), left)
            except OSError as error:
                failed = error
                continue
            for option in self.socket_options or ():
                sock.setsockopt(*option)
            return sock
        raise NewConnectionError(self, f"none of the addresses answers: {failed}")


def _addresses_of(host: str, port: int | None, *, within_s: float) -> list[str]:
    """The addresses of a name. `getaddrinfo` waits as long as the resolver says, some ten seconds: what it finds too
    late is left to its thread. Raises: socket.gaierror, also where nothing is found in `within_s` seconds."""
    found: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def look() -> None:
        try:
            found.put([str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except Exception as error:  # raised below, in the thread that asks
            found.put(error)

    threading.Thread(target=look, daemon=True, name="resolver").start()
    try:
        answer = found.get(timeout=within_s)
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
