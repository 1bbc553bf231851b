"""Requests that failed: in which words to say so, and whether another try can help."""

from __future__ import annotations

import ssl

import httpx


def read_error(response: httpx.Response) -> dict[str, object] | None:
    """The service's own error in `response`; None where something else answered, such as a proxy."""
    try:
        error = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return error if isinstance(error, dict) and isinstance(error.get("message"), str) else None


def describe_response(response: httpx.Response) -> str:
    """The status with the service's message, or with what shows that something else answered; never the body."""
    status = f"HTTP {response.status_code}"
    if (error := read_error(response)) is not None:
        return f"{status}: {error['message']}" + (f" (at {error['param']})" if error.get("param") else "")
    if response.is_redirect:
        return f"{status}, sent on to {response.headers['Location']}; give that address"
    kind = response.headers.get("Content-Type", "no content type").split(";")[0]
    return f"{status} ({kind}), and the response is not one of RLaaS's"


def describe_failure(error: Exception) -> str:
    """Why no response came, and what to do where that is known."""
    refusal = _find_tls_error(error)
    if isinstance(refusal, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted ({refusal.verify_message}); SSL_CERT_FILE names the file of a company's own authorities"
    if refusal is not None:
        return f"TLS failed ({refusal.reason or refusal}); an address without TLS begins with http://"
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def is_final(error: Exception) -> bool:
    """Whether another try would fail alike: the service's certificate is not trusted, or it does not speak TLS."""
    return _find_tls_error(error) is not None


def is_refused(error: BaseException | None) -> bool:
    """Whether the address refused the connection: nothing listens there."""
    while error is not None:
        if isinstance(error, ConnectionRefusedError) or any(map(is_refused, getattr(error, "exceptions", ()))):
            return True
        error = error.__cause__ or error.__context__
    return False


def _find_tls_error(error: BaseException | None) -> ssl.SSLError | None:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return error
        error = error.__cause__ or error.__context__
    return None
