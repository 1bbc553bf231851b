"""Texts that RLaaS hands out and recognizes later: the text in base64url, a dot, and 128 bits of a keyed digest."""

import base64
import hmac

from rlaas.privacy.scrub import Digest

_PROOF = 32
"""Hexadecimal digits of the digest in a token."""


def sign_text(text: str, *, digest: Digest) -> str:
    """`text` as a token that nobody without the key of `digest` can make."""
    payload = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return f"{payload}.{digest(text)[:_PROOF]}"


def read_signed_text(token: str, *, digest: Digest) -> str | None:
    """The text in `token`; `None` for a token that `sign_text` did not make with this key."""
    payload = token.partition(".")[0]
    try:
        text = base64.b64decode(payload + "=" * (-len(payload) % 4), altchars=b"-_", validate=True).decode()
        return text if hmac.compare_digest(sign_text(text, digest=digest).encode(), token.encode()) else None
    except ValueError:
        return None
