"""Connections to the servers that tenants name: each used for one request after another, read until a deadline, and,
where addresses must be public, never into a private network."""

import http.client
import io
import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url, wait_for_read

from rlaas.chat import Misconfigured

CONNECT_TIMEOUT_S = 2.0
_MOST_IDLE = 100
"""Unused connections that are kept, to all servers together."""
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


@dataclass(slots=True)
class Deadline:
    """When the wait for an answer ends: `timeout_s` seconds after `since`, and at `ends_at` at the latest, on the
    monotonic clock."""

    timeout_s: float
    ends_at: float
    since: float = field(default_factory=time.monotonic)

    def seconds_left(self) -> float:
        """Seconds until then."""
        return min(self.since + self.timeout_s, self.ends_at) - time.monotonic()


class Server(NamedTuple):
    """Where a connection leads."""

    secure: bool
    host: str
    port: int


@lru_cache(maxsize=1024)
def find_server(url: str) -> tuple[Server, str]:
    """The server of an address, and the path that it is asked for. Raises: urllib3's LocationParseError."""
    parts = parse_url(url)
    if parts.scheme not in ("http", "https") or not parts.host:
        raise LocationParseError(url)
    secure = parts.scheme == "https"
    host = parts.host.strip("[]").rstrip(".")
    return Server(secure, host, parts.port or (443 if secure else 80)), parts.request_uri


class _Reads(io.RawIOBase):
    """A connection's bytes, until the deadline: http.client reads status, headers and content through it, so that all
    of them end then, however slowly the server sends."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
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

    def makefile(self, _: str) -> io.BufferedReader:
        """The bytes as http.client asks a socket for them."""
        return io.BufferedReader(self)

    def close(self) -> None:
        self._raw.close()
        super().close()


class Connection(http.client.HTTPConnection):
    """A connection that was opened, to be used for one request after another."""

    auto_open = 0

    def __init__(self, server: Server, sock: socket.socket) -> None:
        super().__init__(server.host, server.port)
        self.default_port = 443 if server.secure else 80
        self.server = server
        self.sock: socket.socket | None = sock
        self._used_at = 0.0

    def post(self, path: str, content: bytes, headers: Mapping[str, str], deadline: Deadline) -> http.client.HTTPResponse:
        """Send a request; its answer, of which everything is read by the deadline. Raises: OSError,
        http.client.HTTPException."""
        assert self.sock is not None
        self.sock.settimeout(CONNECT_TIMEOUT_S)
        self._used_at = time.monotonic()
        self._deadline = deadline
        self.request("POST", path, content, headers)
        return self.getresponse()

    def response_class(self, sock: socket.socket, **options: Any) -> http.client.HTTPResponse:  # type: ignore[override]
        """The answer, which `getresponse` begins to read."""
        return http.client.HTTPResponse(cast(socket.socket, _Reads(sock, self._deadline)), **options)

    @property
    def is_usable(self) -> bool:
        """Whether it is open and was used a short while ago, and nothing has come since, as it does when a server
        leaves."""
        return self.sock is not None and time.monotonic() - self._used_at < _IDLE_S and not wait_for_read(self.sock, timeout=0)


class UnusedConnections:
    """The connections that wait for another request."""

    def __init__(self) -> None:
        self._connections: list[Connection] = []
        self._lock = threading.Lock()

    def take(self, server: Server) -> Connection | None:
        """The one to `server` that was used last; it is the caller's then."""
        while True:
            with self._lock:
                place = next((place for place, one in enumerate(self._connections) if one.server == server), None)
                if place is None:
                    return None
                connection = self._connections.pop(place)
            if connection.is_usable:
                return connection
            connection.close()

    def keep(self, connection: Connection) -> None:
        """Keep it if the server left it open, in place of the one that was used longest ago if there are too many."""
        if connection.sock is None:
            return
        with self._lock:
            self._connections.insert(0, connection)
            surplus = self._connections[_MOST_IDLE:]
            del self._connections[_MOST_IDLE:]
        for one in surplus:
            one.close()


def connect_anywhere(server: Server, timeout_s: float) -> socket.socket:
    """A connection to the server. Raises: OSError, UnicodeError for what cannot be a name."""
    return _secure(socket.create_connection((server.host, server.port), timeout_s), server)


def connect_publicly(server: Server, timeout_s: float) -> socket.socket:
    """The same at a public address; TLS still checks the name. Raises: as `connect_anywhere`, Misconfigured for any
    other address."""
    # One time-out for resolving the name and for all its addresses together: a tenant chooses the name server and the
    # number of addresses, too.
    until = time.monotonic() + timeout_s
    addresses = _resolve(server.host, server.port, within_s=timeout_s)
    if not all(map(is_public, addresses)):
        raise Misconfigured("the base_url does not lead to a public address")
    last_error: OSError = TimeoutError("no address answers in time")
    for address in addresses:
        left = until - time.monotonic()
        if left <= 0:
            break
        try:
            sock = socket.create_connection((address, server.port), left)
        except OSError as error:
            last_error = error
            continue
        return _secure(sock, server)
    raise last_error


def _secure(sock: socket.socket, server: Server) -> socket.socket:
    """The connection `sock`, through TLS where the server speaks it. Raises: OSError."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _make_tls_context().wrap_socket(sock, server_hostname=server.host) if server.secure else sock
    except BaseException:
        sock.close()
        raise


@cache
def _make_tls_context() -> ssl.SSLContext:
    """Servers must prove their names to the system's authorities, which take milliseconds to read."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


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
