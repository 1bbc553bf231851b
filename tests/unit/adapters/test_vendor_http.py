"""What tenants' servers may not do to us: lead us inside, keep us waiting, fill our memory, cut an answer short
unseen."""

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from rlaas.adapters.models import vendor_connections, vendor_http
from rlaas.adapters.models.vendor_connections import find_server, is_public
from rlaas.adapters.models.vendor_http import VendorHttp, VendorRefused
from rlaas.chat import BackendFailed, Misconfigured

Script = Callable[[socket.socket], None]


@contextmanager
def serving(*scripts: Script) -> Iterator[tuple[str, list[int]]]:
    """A server that answers its n-th request with the n-th script; yields its address and which connection each request
    came by."""
    listener = socket.create_server(("127.0.0.1", 0))
    connections: list[int] = []
    pending = list(scripts)

    def serve() -> None:
        number = 0
        while pending:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            number += 1
            with connection:
                connection.settimeout(10)
                while pending and _request(connection):
                    connections.append(number)
                    script = pending.pop(0)
                    try:
                        script(connection)
                    except OSError:
                        break
                    if script in CLOSING:
                        break

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1", connections
    finally:
        listener.close()
        thread.join(timeout=10)


def _request(connection: socket.socket) -> bool:
    received = b""
    while b"\r\n\r\n" not in received:
        try:
            piece = connection.recv(65_536)
        except ConnectionResetError:  # the caller left while more was on its way
            return False
        if not piece:
            return False
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65_536)
    return True


def chunked(*pieces: bytes, end: bool = True) -> Script:
    def script(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in pieces:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        if end:
            connection.sendall(b"0\r\n\r\n")

    return script


def says(answer: bytes) -> Script:
    return lambda connection: connection.sendall(answer)


CLOSING: list[Script] = []


def closing(script: Script) -> Script:
    CLOSING.append(script)
    return script


OK = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
HTTP = VendorHttp(private_addresses=True)


def whole(url: str, *, timeout_s: float = 5) -> bytes:
    return HTTP.whole("the model server", url, {"a": 1}, {}, timeout_s=timeout_s)


def events(url: str, *, timeout_s: float = 5) -> Iterator[bytes]:
    return HTTP.events("the model server", url, {"a": 1}, {}, is_last=lambda data: data == b"[DONE]", timeout_s=timeout_s)


def test_connections_are_used_again_after_whole_answers_and_after_streams() -> None:
    stream = chunked(b"data: 1\n\n", b"data: [DONE]\n\n")
    with serving(OK, stream, OK) as (url, connections):
        assert whole(url) == b"{}"
        assert list(events(url)) == [b"1", b"[DONE]"]
        assert whole(url) == b"{}"
        assert connections == [1, 1, 1]


def test_a_stream_that_is_left_closes_its_connection() -> None:
    with serving(chunked(b"data: 1\n\n", b"data: 2\n\n", end=False), OK) as (url, connections):
        stream = HTTP.events("the model server", url, {}, {}, is_last=lambda data: False, timeout_s=5)
        assert next(stream) == b"1"
        stream.close()
        assert whole(url) == b"{}"
        assert connections == [1, 2]


def test_a_server_that_goes_on_after_its_last_event_is_not_waited_for() -> None:
    is_read = threading.Event()

    def script(connection: socket.socket) -> None:
        chunked(b"data: [DONE]\n\n", end=False)(connection)
        is_read.wait(10)

    with serving(script) as (url, _):
        assert list(events(url)) == [b"[DONE]"]
        is_read.set()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(says(b""), id="nothing"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), id="content-length"),
        pytest.param(chunked(b'{"cut"', end=False), id="chunk"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"), id="half a chunk"),
        pytest.param(says(b"not http\r\n\r\n"), id="not http"),
    ],
)
def test_an_answer_that_breaks_off_is_a_failure_and_not_safe_to_ask_again(answer: Script) -> None:
    with serving(closing(answer)) as (url, _), pytest.raises(BackendFailed, match="broke off") as failed:
        whole(url)
    assert not failed.value.safe_to_repeat
    with serving(closing(answer)) as (url, _), pytest.raises(BackendFailed, match="broke off"):
        list(events(url))


def test_an_answer_is_not_read_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor_http, "MAX_ANSWER_BYTES", 100_000)
    with serving(closing(chunked(*[b"x" * 50_000] * 10))) as (url, _), pytest.raises(BackendFailed, match="larger"):
        whole(url)


def test_a_stream_may_be_larger_than_a_whole_answer_since_each_token_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor_http, "MAX_ANSWER_BYTES", 100_000)
    monkeypatch.setattr(vendor_http, "MAX_STREAM_BYTES", 400_000)
    event = b"data: " + b"x" * 44_000 + b"\n\n"
    with serving(closing(chunked(*[event] * 8, b"data: [DONE]\n\n"))) as (url, _):
        assert len(list(events(url))) == 9
    with serving(closing(chunked(*[event] * 10))) as (url, _), pytest.raises(BackendFailed, match="larger than 400000 bytes"):
        list(events(url))


def test_an_answer_that_trickles_is_given_up_when_its_time_is_over() -> None:
    stop = threading.Event()

    def script(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not stop.wait(0.02):
            connection.sendall(b" ")

    with serving(closing(script)) as (url, _):
        with pytest.raises(BackendFailed, match="in time"):
            whole(url, timeout_s=0.3)
        stop.set()


def dripping(*pieces: bytes, every_s: float = 0.05) -> Script:
    """Sends the pieces over and over, each well within any time-out."""

    def script(connection: socket.socket) -> None:
        connection.sendall(pieces[0])
        with suppress(OSError):
            for _ in range(200):
                for piece in pieces[1:]:
                    connection.sendall(piece)
                time.sleep(every_s)

    return closing(script)


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize(
    "script",
    [
        dripping(b"H", b"T"),
        dripping(b"HTTP/1.1 200 OK\r\n", b"x-a: b\r\n"),
        dripping(b"HTTP/1.1 200 OK\r\nx-", b"a"),
        dripping(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        dripping(b"HTTP/1.1 429 Busy\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        dripping(STREAM, b": still here\n\n"),
        dripping(STREAM, b"data"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_server_that_only_drips_is_given_up_when_its_time_is_over(script: Script, streaming: bool) -> None:
    started = time.monotonic()
    with serving(script) as (url, _), pytest.raises(BackendFailed) as failed:
        list(events(url, timeout_s=0.5)) if streaming else whole(url, timeout_s=0.5)
    assert time.monotonic() - started < 5
    assert not failed.value.nothing_done


def test_a_stream_that_only_keeps_alive_is_silent_and_one_that_speaks_ends_by_its_end() -> None:
    pings = dripping(STREAM, b"data: ping\n\n")
    with serving(pings, pings) as (url, _):
        with pytest.raises(BackendFailed, match="in time"):
            list(events(url, timeout_s=0.5))
        speaking = HTTP.events("the model server", url, {}, {}, is_last=lambda data: False, timeout_s=0.5, ends_at=time.monotonic() + 1.5)
        chunks: list[bytes] = []

        def listen() -> None:
            for data in speaking:
                chunks.append(data)
                speaking.restart_timeout()

        with pytest.raises(BackendFailed, match="in time"):
            listen()
        assert len(chunks) > 10


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: br, gzip, gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\xff\xfe" * 1_000,
    ],
)
def test_what_is_no_answer_is_a_failure_that_may_have_been_charged_for(answer: bytes) -> None:
    with serving(closing(says(answer))) as (url, _), pytest.raises(BackendFailed) as failed:
        whole(url, timeout_s=2)
    assert not failed.value.nothing_done


def test_interim_answers_are_passed_over() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"
    with serving(says(interim + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), OK) as (url, connections):
        assert (whole(url), whole(url)) == (b"{}", b"{}")
        assert connections == [1, 1]


def test_an_answer_that_can_have_no_content_is_not_waited_for() -> None:
    with serving(says(b"HTTP/1.1 204 No Content\r\n\r\n")) as (url, _), pytest.raises(VendorRefused) as refused:
        whole(url)
    assert (refused.value.status, refused.value.content) == (204, b"")


@pytest.mark.parametrize("value", ["a\r\nx-admin: yes", "a\nx-admin: yes", "a\rb"])
def test_a_header_with_a_line_break_is_never_sent(value: str) -> None:
    with serving(OK) as (url, connections):
        with pytest.raises(ValueError, match="line break"):
            HTTP.whole("the model server", url, {}, {"authorization": value}, timeout_s=5)
        assert connections == []


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://models.example/v1", "models.example"),
        ("https://models.example:8443/v1", "models.example:8443"),
        ("http://models.example:443/v1", "models.example:443"),
        ("https://[2606:4700::1111]/v1", "[2606:4700::1111]"),
    ],
)
def test_a_request_names_its_server_as_the_address_does(url: str, name: str) -> None:
    server, _ = find_server(url)
    assert server.name == name


def test_a_redirect_is_not_followed() -> None:
    answer = closing(says(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"))
    with serving(answer) as (url, connections):
        with pytest.raises(VendorRefused) as refused:
            whole(url)
        assert refused.value.status == 307
        assert connections == [1]


def test_a_refusal_brings_its_content_and_how_long_to_wait() -> None:
    answer = closing(says(b"HTTP/1.1 429 Too Many\r\nRetry-After: 3\r\nContent-Length: 4\r\n\r\nbusy"))
    with serving(answer) as (url, _), pytest.raises(VendorRefused) as refused:
        whole(url)
    assert (refused.value.status, refused.value.content, refused.value.retry_after_s) == (429, b"busy", 3.0)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "169.254.170.2",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::a9fe:a9fe",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "192.0.2.1",
        "198.18.0.1",
        "192.0.0.192",
        "192.88.99.1",
        "fec0::1",
        "3fff::1",
        "5f00::1",
        "64:ff9b:1::808:808",
        "::8.8.8.8",
        "::ffff:0:8.8.8.8",
    ],
)
def test_an_address_that_is_not_on_the_public_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_address_that_is(address: str) -> None:
    assert is_public(address)


# What IANA's registries of special-purpose addresses call not globally reachable, as of November 2026, and what they
# withdrew.
V4 = (
    *("0.0.0.0/8", "0.0.0.0/32", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/29"),
    *("192.0.0.8/32", "192.0.0.11/32", "192.0.0.128/25", "192.0.0.170/31", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32"),
)
V6 = (
    *("::1/128", "::/128", "::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/32", "2001:2::/48"),
    *("2001:10::/28", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
)
CARRIED = {
    "mapped": lambda inner: 0xFFFF << 32 | inner,
    "compatible": lambda inner: inner,
    "translated": lambda inner: 0xFFFF << 48 | inner,
    "NAT64": lambda inner: 0x64FF9B << 96 | inner,
    "local NAT64": lambda inner: 0x64FF9B0001 << 80 | inner,
    "6to4": lambda inner: 0x2002 << 112 | inner << 80 | 1,
    "Teredo": lambda inner: 0x20010000 << 96 | 0x41414141 << 64 | inner ^ 0xFFFFFFFF,
}


@given(st.sampled_from(V4).flatmap(lambda network: st.ip_addresses(network=network)), st.sampled_from(sorted(CARRIED)))
def test_no_ipv4_address_of_a_special_purpose_is_public_whatever_carries_it(ip: ipaddress.IPv4Address, carrier: str) -> None:
    assert not is_public(str(ip))
    assert not is_public(str(ipaddress.IPv6Address(CARRIED[carrier](int(ip)))))


@given(st.sampled_from(V6).flatmap(lambda network: st.ip_addresses(network=network)))
def test_no_ipv6_address_of_a_special_purpose_is_public(ip: ipaddress.IPv6Address) -> None:
    assert not is_public(str(ip))


@given(st.ip_addresses())
def test_nothing_is_public_that_python_knows_is_not(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert ip.is_global or not is_public(str(ip)) or (ip.version == 6 and ip.sixtofour is not None)


@given(st.sampled_from(["8.0.0.0/8", "52.0.0.0/8", "2600::/12", "2a00::/12"]).flatmap(lambda network: st.ip_addresses(network=network)))
def test_addresses_of_internet_providers_are_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    assert is_public(str(ip))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "2130706433", "127.1", "[::ffff:127.0.0.1]"])
def test_a_name_or_number_that_leads_inside_is_never_connected_to(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    with pytest.raises(BackendFailed):
        VendorHttp().whole("the model server", f"https://{host}/v1", {}, {}, timeout_s=1)


def test_one_address_inside_among_several_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("8.8.8.8", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("connected"))
    with pytest.raises(BackendFailed, match="public address"):
        VendorHttp().whole("the model server", "https://models.example/v1", {}, {}, timeout_s=1)


def test_a_name_that_nobody_answers_for_takes_no_longer_than_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    is_over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: is_over.wait(60))
    with pytest.raises(BackendFailed, match="could not be reached") as failed:
        VendorHttp().whole("the model server", "https://models.example/v1", {}, {}, timeout_s=0.2)
    is_over.set()
    assert failed.value.safe_to_repeat


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], timeout: float) -> socket.socket:
        addresses.append(address)
        raise ConnectionRefusedError

    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in ("8.8.8.8", "1.1.1.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(BackendFailed) as failed:
        VendorHttp().whole("the model server", "https://models.example/v1", {}, {}, timeout_s=1)
    assert addresses == [("8.8.8.8", 443), ("1.1.1.1", 443)]
    assert failed.value.safe_to_repeat


def test_a_connection_that_lay_idle_for_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(OK, OK) as (url, connections):
        whole(url)
        monkeypatch.setattr(vendor_connections, "_IDLE_S", 0.0)
        whole(url)
        assert connections == [1, 2]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", b"HTTP/1.0 200 OK\r\n\r\n{}"])
def test_a_connection_that_the_server_closes_is_not_used_again(answer: bytes) -> None:
    with serving(closing(says(answer)), OK) as (url, connections):
        assert (whole(url), whole(url)) == (b"{}", b"{}")
        assert connections == [1, 2]


def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again() -> None:
    closed = threading.Event()

    def answer_and_close(connection: socket.socket) -> None:
        OK(connection)
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    with serving(answer_and_close, OK) as (url, connections):
        whole(url)
        assert closed.wait(5)
        whole(url)
        assert connections == [1, 2]


def test_of_too_many_unused_connections_the_oldest_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor_connections, "_MOST_IDLE", 1)
    http = VendorHttp(private_addresses=True)
    with serving(OK, OK) as (old, first), serving(OK, OK) as (new, second):
        for url in (old, new, new, old):
            assert http.whole("the model server", url, {}, {}, timeout_s=5) == b"{}"
        assert (first, second) == ([1, 2], [1, 1])


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", "a_[", "models.example:99999", ""])
@pytest.mark.parametrize("http", [HTTP, VendorHttp()])
def test_what_can_be_no_address_is_the_policys_mistake(http: VendorHttp, host: str) -> None:
    with pytest.raises(Misconfigured, match="not an address"):
        http.whole("the model server", f"https://{host}/v1", {}, {}, timeout_s=1)


def test_plain_http_is_refused_where_addresses_must_be_public() -> None:
    with pytest.raises(BackendFailed, match="https"):
        VendorHttp().whole("the model server", "http://models.example/v1", {}, {}, timeout_s=1)


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            context.wrap_socket(listener.accept()[0], server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        with pytest.raises(BackendFailed, match="SSLCertVerificationError"):
            whole(f"https://localhost:{listener.getsockname()[1]}/v1")
        thread.join(timeout=10)
