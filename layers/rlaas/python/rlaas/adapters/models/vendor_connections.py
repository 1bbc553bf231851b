"""Connections to the servers that tenants name: each used for one request after another, read until a deadline, and,
where addresses must be public, never into a private network."""

import http.client
import io
import ipaddress
import queue
import re
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


_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9]\d\d)\b")
_LENGTH = re.compile(r"\d{1,18}")
_LONGEST_LINE = 65_536
_MOST_HEADERS = 100


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

    @property
    def name(self) -> str:
        """How a request names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"


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


class ServerAnswer(http.client.HTTPResponse):
    """A server's answer. `fields` are its headers, by their names in lower case.

    Only the content is read by http.client: `email.parser`, by which it reads headers, takes longer than the rest of a
    call together.
    """

    fields: Mapping[str, str]

    def begin(self) -> None:
        """Read the status and the headers, past those of `100 Continue` and the like. Raises: OSError,
        http.client.HTTPException."""
        status = 100
        while status < 200:
            line = self._read_line()
            match = _STATUS_LINE.match(line)
            if match is None:
                raise http.client.BadStatusLine(repr(line[:80]))
            self.version, status = 10 + int(match[1]), int(match[2])
            self.fields = self._read_fields()
        self.code = self.status = status
        self.chunked, self.chunk_left = self.fields.get("transfer-encoding", "").lower() == "chunked", None
        length = "0" if status in (204, 304) else self.fields.get("content-length", "")
        self.length = int(length) if not self.chunked and _LENGTH.fullmatch(length) else None
        is_last = self.version == 10 or "close" in self.fields.get("connection", "").lower()
        self.will_close = is_last or (not self.chunked and self.length is None)

    def _read_fields(self) -> dict[str, str]:
        fields: dict[str, str] = {}
        for _ in range(_MOST_HEADERS):
            line = self._read_line()
            if not line.strip():
                return fields
            name, _, value = line.decode("iso-8859-1").partition(":")
            fields[name.strip().lower()] = value.strip()
        raise http.client.HTTPException(f"more than {_MOST_HEADERS} headers")

    def _read_line(self) -> bytes:
        line = self.fp.readline(_LONGEST_LINE)
        if not line.endswith(b"\n"):
            raise http.client.LineTooLong("header") if len(line) == _LONGEST_LINE else http.client.IncompleteRead(line)
        return line


class Connection:
    """A connection that was opened, to be used for one request after another."""

    def __init__(self, server: Server, sock: socket.socket) -> None:
        self.server = server
        self.sock: socket.socket | None = sock
        self._used_at = 0.0

    def post(self, path: str, content: bytes, headers: Mapping[str, str], deadline: Deadline) -> ServerAnswer:
        """Send a request; its answer, of which everything is read by the deadline. Raises: OSError,
        http.client.HTTPException, ValueError for a header that no request can have."""
        assert self.sock is not None
        self.sock.settimeout(CONNECT_TIMEOUT_S)
        self._used_at = time.monotonic()
        head = _write_head(path, {"host": self.server.name, "content-length": str(len(content)), **headers})
        self.sock.sendall(head + content)
        answer = ServerAnswer(cast(socket.socket, _Reads(self.sock, deadline)), method="POST")
        try:
            answer.begin()
        except BaseException:
            answer.close()
            raise
        if answer.will_close:
            self.close()
        return answer

    def close(self) -> None:
        """Close it, once the answer that is being read was read."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    @property
    def is_usable(self) -> bool:
        """Whether it is open and was used a short while ago, and nothing has come since, as it does when a server
        leaves."""
        return self.sock is not None and time.monotonic() - self._used_at < _IDLE_S and not wait_for_read(self.sock, timeout=0)


def _write_head(path: str, fields: Mapping[str, str]) -> bytes:
    """A request's line and headers. Raises: ValueError where one of them has a line break, or a character beyond
    Latin-1."""
    lines = (f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", "")
    head = "\r\n".join(lines)
    if len(head.splitlines()) != len(lines) - 1:
        raise ValueError("a header has a line break")
    return head.encode("iso-8859-1")


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
