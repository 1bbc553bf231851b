"""Vendors' keys from Secrets Manager."""

import json
import re
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from rlaas.aws.clients import error_code
from rlaas.inference.backend import BackendFailed

if TYPE_CHECKING:
    from types_boto3_secretsmanager import SecretsManagerClient

_HELD_S = 300.0
_MISSED_S = 30.0
_WORDS = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")


class VendorKeys:
    """A tenant's vendor keys: secret `rlaas/<stage>/<tenant>/<name>`, the key alone or `{"api_key": ...}`.

    The tenant is the caller's own, as its key says, and neither it nor the name can hold a `/`: a tenant's policy cannot name another
    tenant's secret. Without a stage there are no keys. A key is held for five minutes, so a rotated one is used that much later; a
    missing one is asked for again after 30 s.
    """

    def __init__(
        self, stage: str | None, *, client: "SecretsManagerClient | None" = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stage = stage
        self._client = client
        self._clock = clock
        self._held: dict[tuple[str, str], tuple[float, str | BackendFailed]] = {}

    def key(self, tenant_id: str, name: str) -> str:
        """The key `name` of `tenant_id`. Raises: BackendFailed when there is none, or Secrets Manager does not answer."""
        held = self._held.get((tenant_id, name))
        if held is None or held[0] <= self._clock():
            found = self._found(tenant_id, name)
            held = self._clock() + (_HELD_S if isinstance(found, str) else _MISSED_S), found
            self._held[tenant_id, name] = held
        if isinstance(held[1], BackendFailed):
            raise BackendFailed(held[1].detail)
        return held[1]

    def _found(self, tenant_id: str, name: str) -> str | BackendFailed:
        if self._stage is None:
            return BackendFailed("there are no vendors' keys here")
        if not _WORDS.fullmatch(tenant_id) or not _WORDS.fullmatch(name):
            return BackendFailed("the policy's secret has no valid name")
        try:
            client = self._client or _secretsmanager()
            text = client.get_secret_value(SecretId=f"rlaas/{self._stage}/{tenant_id}/{name}").get("SecretString", "")
        except ClientError as error:
            if error_code(error) == "ResourceNotFoundException":
                return BackendFailed(f"the secret {name!r} does not exist")
            raise BackendFailed(f"Secrets Manager answered {error_code(error)}", safe_to_repeat=True) from error
        except BotoCoreError as error:
            raise BackendFailed(f"Secrets Manager could not be reached: {type(error).__name__}", safe_to_repeat=True) from error
        key = _api_key(text)
        return key if _KEY.fullmatch(key) else BackendFailed(f"the secret {name!r} does not hold a key")


def _api_key(text: str) -> str:
    """The secret's text itself, or its field `api_key` where it is key/value pairs, as the console writes them."""
    if not text.lstrip().startswith("{"):
        return text.strip()
    try:
        pairs = json.loads(text)
    except ValueError:
        return ""
    return str(pairs.get("api_key", "")).strip()


@cache
def _secretsmanager() -> "SecretsManagerClient":
    config = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "max_attempts": 2})
    client: SecretsManagerClient = boto3.client("secretsmanager", config=config)
    return client
