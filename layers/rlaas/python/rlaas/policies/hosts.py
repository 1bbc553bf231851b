"""Where a vendor's key may be sent: to the hosts that its secret names or, if it names none, to the vendor's own."""

import re
from collections.abc import Collection
from typing import Annotated

from pydantic import Field

OPENAI = "api.openai.com"
ANTHROPIC = "api.anthropic.com"
OPENROUTER = "openrouter.ai"
_AZURE = (".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com")

_HOST = re.compile(r"https?://(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?(?:/.*)?", re.DOTALL)


def find_host(base_url: str) -> str | None:
    """The host of an address, in lower case; None where HTTP clients might disagree about the host."""
    match = _HOST.fullmatch(base_url)
    return match[1].lower() if match else None


def is_openai(host: str | None) -> bool:
    """Whether OpenAI's own API answers at the host: OpenAI's, that of one of its regions, or a customer's on Azure."""
    return host is not None and (host == OPENAI or host.endswith((f".{OPENAI}", *_AZURE)))


def may_be_sent(base_url: str, *, hosts: Collection[str], own: str) -> bool:
    """Whether a key whose secret names `hosts` may be sent to `base_url`; `own` is the host of the vendor that the
    policy asks."""
    host = find_host(base_url)
    return host in hosts if hosts else is_own(base_url, own)


def is_own(base_url: str, own: str) -> bool:
    """Whether the address is the vendor's own host, over HTTPS."""
    return find_host(base_url) == own and base_url.startswith("https://")


SecretName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""The tenant's secret in Secrets Manager that holds a vendor's key and the hosts it may go to:
`rlaas/<stage>/<tenant>/<name>`."""


BaseUrl = Annotated[str, Field(pattern=r"^https?://[^\s?#@]{1,500}$")]
