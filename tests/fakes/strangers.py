"""What answers at a wrong address, on the loopback: another site, a proxy, a port without a server, a certificate that
nobody signed."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.fakes.loopback import QuietHandler, serve_handler

NOWHERE = "http://127.0.0.1:9"
PAGE = b"<!doctype html><title>Welcome</title><p>Ada's private page</p>"


@contextmanager
def serve_answer(
    status: int, content: bytes = PAGE, headers: dict[str, str] | None = None, *, seen: list[str] | None = None
) -> Iterator[str]:
    """The URL of a server that answers every request alike, HTML unless `headers` say otherwise; `seen` gets the
    `Authorization` of each."""

    class Stranger(QuietHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if seen is not None:
                seen.append(self.headers["Authorization"])
            self.answer(status, content, {"Content-Type": "text/html; charset=utf-8", **(headers or {})})

        do_GET = do_POST

    with serve_handler(Stranger) as url:
        yield url


@contextmanager
def serve_untrusted_tls(folder: Path) -> Iterator[str]:
    """The URL of a server whose certificate is signed by itself; the certificate lies in `folder` as `own.pem`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "own.pem", folder / "own.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, secret)
    with serve_handler(QuietHandler, context) as url:
        yield url
