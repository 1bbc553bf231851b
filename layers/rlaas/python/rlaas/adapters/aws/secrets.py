"""Vendors' keys from Secrets Manager."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rlaas.adapters.aws.clients import error_code
from rlaas.chat import BackendFailed
from rlaas.policies.hosts import host_of, may_go

if TYPE_CHECKING:
    from types_boto3_secretsmanager import SecretsManagerClient

_HELD_S = 300.0
_MISSED_S = 30.0
_WORDS = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")


@dataclass(frozen=True, slots=True)
class _Secret:
    """A key and the hosts that it may be sent to; without any, its vendor's own."""

    key: str = field(repr=False)
    hosts: frozenset[str]


class VendorKeys:
    """A tenant's vendor keys: secret `rlaas/<stage>/<tenant>/<name>`, the key alone or `{"api_key": ..., "hosts":
    ...}`.

    A key goes to the `hosts` that stand beside it (names with spaces between, or a list) and nowhere else, and one
    without them to the host of the vendor whose API the policy speaks: a policy chooses its server, and whoever makes
    policies need not be who made the key.

    The tenant is the caller's own, as its key says, and neither it nor the name can hold a `/`: a tenant's policy
    cannot name another tenant's secret. Without a stage there are no keys. A key is held for five minutes, so a rotated
    one is used that much later; a missing one is asked for again after 30 s.
    """

    def __init__(
        self, stage: str | None, *, client: "SecretsManagerClient | None" = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stage = stage
        self._client = client
        self._clock = clock
        self._held: dict[tuple[str, str], tuple[float, _Secret | str]] = {}

    def key(self, tenant_id: str, name: str, *, base_url: str, own_host: str) -> str:
        """The key `name` of `tenant_id`, to be sent to `base_url`; `own_host` is the vendor's.

        Raises: BackendFailed when there is none, it may not go there, or Secrets Manager does not answer.
        """
        held = self._held.get((tenant_id, name))
        if held is None or held[0] <= self._clock():
            found = self._found(tenant_id, name)
            held = self._clock() + (_HELD_S if isinstance(found, _Secret) else _MISSED_S), found
            self._held[tenant_id, name] = held
        if not isinstance(held[1], _Secret):
            raise BackendFailed(held[1], nothing_done=True)
        if not may_go(base_url, hosts=held[1].hosts, own=own_host):
            raise BackendFailed(
                f"the secret {name!r} may not be sent to {host_of(base_url) or 'this base_url'!r}: "
                """name the host in it, as {"api_key": "...", "hosts": "..."}""",
                nothing_done=True,
            )
        return held[1].key

    def refusal(self, tenant_id: str, name: str, *, base_url: str, own_host: str) -> str | None:
        """Why the key may not be sent there, by the secret as it is now; None where it may. Raises: BackendFailed as
        `key`."""
        self._held.pop((tenant_id, name), None)
        try:
            self.key(tenant_id, name, base_url=base_url, own_host=own_host)
        except BackendFailed as error:
            if error.safe_to_repeat:
                raise
            return error.detail
        return None

    def _found(self, tenant_id: str, name: str) -> _Secret | str:
        """The secret, or why there is none."""
        if self._stage is None:
            return "there are no vendors' keys here"
        if not _WORDS.fullmatch(tenant_id) or not _WORDS.fullmatch(name):
            return "the policy's secret has no valid name"
        try:
            client = self._client or _secretsmanager()
            text = client.get_secret_value(SecretId=f"rlaas/{self._stage}/{tenant_id}/{name}").get("SecretString", "")
        except ClientError as error:
            if error_code(error) == "ResourceNotFoundException":
                return f"the secret {name!r} does not exist"
            raise BackendFailed(f"Secrets Manager answered {error_code(error)}", safe_to_repeat=True, nothing_done=True) from error
        except BotoCoreError as error:
            detail = f"Secrets Manager could not be reached: {type(error).__name__}"
            raise BackendFailed(detail, safe_to_repeat=True, nothing_done=True) from error
        secret = _read(text)
        return secret if _KEY.fullmatch(secret.key) else f"the secret {name!r} does not hold a key"


def _read(text: str) -> _Secret:
    """The secret's text itself, or `api_key` and `hosts` where it is key/value pairs, as the console writes them."""
    if not text.lstrip().startswith("{"):
        return _Secret(text.strip(), frozenset())
    try:
        pairs = json.loads(text)
    except (ValueError, RecursionError):
        return _Secret("", frozenset())
    named = pairs.get("hosts", "")
    hosts = [str(host) for host in named] if isinstance(named, list) else re.split(r"[\s,]+", str(named))
    return _Secret(str(pairs.get("api_key", "")).strip(), frozenset(host.lower() for host in hosts if host))


@cache
def _secretsmanager() -> "SecretsManagerClient":
    config = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "max_attempts": 2})
    client: SecretsManagerClient = boto3.client("secretsmanager", config=config)
    return client
