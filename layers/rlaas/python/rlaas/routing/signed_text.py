"""Texts that RLaaS hands out and knows again: the text in base64url, a dot, and 128 bits of a keyed digest."""

import base64
import hmac

from rlaas.privacy.scrub import Digest

_PROOF = 32
"""Hexadecimal digits."""


def signed(text: str, *, digest: Digest) -> str:
    """`text` as a token that nobody without the key of `digest` can make."""
    said = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return f"{said}.{digest(text)[:_PROOF]}"


def signed_text(token: str, *, digest: Digest) -> str | None:
    """The text that `token` proves; `None` for what `signed` did not make with this key."""
    said = token.partition(".")[0]
    try:
        text = base64.b64decode(said + "=" * (-len(said) % 4), altchars=b"-_", validate=True).decode()
        return text if hmac.compare_digest(signed(text, digest=digest).encode(), token.encode()) else None
    except ValueError:
        return None
