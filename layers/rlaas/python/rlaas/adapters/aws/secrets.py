"""Vendors' keys from Secrets Manager."""

import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rlaas.adapters.aws.clients import read_error_code
from rlaas.chat import BackendFailed, Misconfigured
from rlaas.policies.hosts import find_host, may_be_sent

if TYPE_CHECKING:
    from types_boto3_secretsmanager import SecretsManagerClient

_KEY_LIFETIME_S = 300.0
_MISS_LIFETIME_S = 30.0
_WORDS = re.compile(r"[A-Za-z0-9_-]{1,64}")
_UNREADABLE = {
    "ResourceNotFoundException": "does not exist",
    "InvalidRequestException": "is being deleted",
    "DecryptionFailure": "cannot be decrypted by this stage",
    "AccessDeniedException": "cannot be read by this stage",
}
"""Why a secret cannot be read, by Secrets Manager's error: whoever made it mends it."""
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class _Secret:
    """A key and the hosts that it may be sent to; without any, only to its vendor's own."""

    key: str = field(repr=False)
    hosts: frozenset[str]


class VendorKeys:
    """A tenant's vendor keys: secret `rlaas/<stage>/<tenant>/<name>`, the key alone or `{"api_key": ..., "hosts":
    ...}`.

    A key is sent only to the `hosts` in its secret (names separated by spaces, or a list); a key without them only to
    the host of the vendor whose API the policy uses. A policy chooses its server, and the person who writes policies
    need not be the one who made the key.

    The tenant is the caller's own, from its API key, and neither the tenant nor the name can contain a `/`: a tenant's
    policy cannot name another tenant's secret. Without a stage there are no keys. A key is cached for five minutes, so
    a rotated one takes effect up to five minutes later; a missing one is looked up again after 30 s.
    """

    def __init__(
        self, stage: str | None, *, client: "SecretsManagerClient | None" = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stage = stage
        self._client = client
        self._clock = clock
        self._cache: dict[tuple[str, str], tuple[float, _Secret | str]] = {}

    def key(self, tenant_id: str, name: str, *, base_url: str, own_host: str) -> str:
        """The key `name` of `tenant_id`, to be sent to `base_url`; `own_host` is the vendor's.

        Raises: Misconfigured when there is none or it may not go there, BackendFailed when Secrets Manager does not
        answer.
        """
        expires_at, secret = self._cache.get((tenant_id, name), (-math.inf, ""))
        if expires_at <= self._clock():
            secret = self._fetch(tenant_id, name)
            lifetime_s = _KEY_LIFETIME_S if isinstance(secret, _Secret) else _MISS_LIFETIME_S
            self._cache[tenant_id, name] = self._clock() + lifetime_s, secret
        if not isinstance(secret, _Secret):
            raise Misconfigured(secret)
        if not may_be_sent(base_url, hosts=secret.hosts, own=own_host):
            raise Misconfigured(
                f"the secret {name!r} may not be sent to {find_host(base_url) or 'this base_url'!r}: "
                """name the host in it, as {"api_key": "...", "hosts": "..."}"""
            )
        return secret.key

    def find_refusal(self, tenant_id: str, name: str, *, base_url: str, own_host: str) -> str | None:
        """Why the key may not be sent there, by the secret as it is now; None where it may. Raises: BackendFailed where
        Secrets Manager does not answer."""
        self._cache.pop((tenant_id, name), None)
        try:
            self.key(tenant_id, name, base_url=base_url, own_host=own_host)
        except BackendFailed as error:
            if error.safe_to_repeat:
                raise
            return error.detail
        return None

    def _fetch(self, tenant_id: str, name: str) -> _Secret | str:
        """The secret, or why there is none. Raises: BackendFailed where Secrets Manager does not answer."""
        if self._stage is None:
            return "there are no vendors' keys here"
        if not _WORDS.fullmatch(tenant_id) or not _WORDS.fullmatch(name):
            return "the policy's secret has no valid name"
        try:
            client = self._client or _secretsmanager()
            text = client.get_secret_value(SecretId=f"rlaas/{self._stage}/{tenant_id}/{name}").get("SecretString", "")
        except ClientError as error:
            if (reason := _UNREADABLE.get(read_error_code(error))) is not None:
                return f"the secret {name!r} {reason}"
            raise BackendFailed(f"Secrets Manager answered {read_error_code(error)}", safe_to_repeat=True, nothing_done=True) from error
        except BotoCoreError as error:
            detail = f"Secrets Manager could not be reached: {type(error).__name__}"
            raise BackendFailed(detail, safe_to_repeat=True, nothing_done=True) from error
        secret = _read(text)
        return secret if _KEY.fullmatch(secret.key) else f"the secret {name!r} does not hold a key"


def _read(text: str) -> _Secret:
    """The key and hosts in a secret's text: the whole text is the key, or it is JSON with `api_key` and `hosts`."""
    text = text.removeprefix("\ufeff").strip()
    if not text.startswith("{"):
        return _Secret(text, frozenset())
    try:
        pairs = json.loads(text)
    except (ValueError, RecursionError):
        return _Secret("", frozenset())
    value = pairs.get("hosts", "")
    hosts = [str(host) for host in value] if isinstance(value, list) else re.split(r"[\s,]+", str(value))
    return _Secret(str(pairs.get("api_key", "")).strip(), frozenset(host.lower() for host in hosts if host))


@cache
def _secretsmanager() -> "SecretsManagerClient":
    config = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "max_attempts": 2})
    client: SecretsManagerClient = boto3.client("secretsmanager", config=config)
    return client
