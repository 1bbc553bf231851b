"""Where events go and where they wait: taken from arguments first, then from the environment."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
from pathlib import Path

import httpx

from rlaas_sdk.errors import NotConfigured
from rlaas_sdk.spool import MEMORY


def resolve_destination(api_url: str | None, api_key: str | None) -> tuple[str, str]:
    """The API's URL and the key, from RLAAS_API_URL and RLAAS_API_KEY where not given, without the blanks and line
    breaks around them. Raises: NotConfigured, which never repeats the key."""
    url = (api_url or os.environ.get("RLAAS_API_URL", "")).strip().rstrip("/")
    key = (api_key or os.environ.get("RLAAS_API_KEY", "")).strip()
    if not url:
        raise NotConfigured("no service is given: give its address as api_url (--api-url), or set RLAAS_API_URL")
    if not key:
        raise NotConfigured("no key is given: give it as api_key (--api-key), or set RLAAS_API_KEY")
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise NotConfigured(f"{url!r} is no address: {error}") from None
    if address.scheme not in ("http", "https") or not address.host:
        raise NotConfigured(f"{url!r} is no address: an address begins with https:// or http://")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise NotConfigured("the key holds characters that no key has; copy it again, it begins with rlk_")
    return url, key


def derive_owner(api_url: str, api_key: str) -> str:
    """The name under which events wait in a spool: a hash (16 hexadecimal digits) of the URL and the key's public part,
    so that no event is ever sent with another tenant's key."""
    return hashlib.sha256(f"{api_url} {'_'.join(api_key.split('_')[:2])}".encode()).hexdigest()[:16]


def choose_spool_path(spool: str | os.PathLike[str] | None) -> str:
    """`spool`, else RLAAS_SPOOL, else `rlaas/spool.db` in the user's state directory, else `spool.db` in a private
    folder of the temporary directory (AWS Lambda), else `MEMORY`."""
    path = spool if spool is not None else os.environ.get("RLAAS_SPOOL")
    if path:
        return os.fspath(path)
    for find_folder in (_find_state_folder, _find_temporary_folder):
        with contextlib.suppress(OSError, RuntimeError):  # a user without a home, a machine without a temporary directory
            if _make_private(folder := find_folder()):
                return str(folder / "spool.db")
    return MEMORY


def _find_state_folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()) / "rlaas"


def _find_temporary_folder() -> Path:
    return Path(tempfile.gettempdir()) / f"rlaas-{os.getuid() if hasattr(os, 'getuid') else 'me'}"


def _make_private(folder: Path) -> bool:
    """Make `folder` where it is missing; whether it is ours, and writable by us alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    is_ours = not hasattr(os, "getuid") or (status.st_uid == os.getuid() and not status.st_mode & 0o022)
    return stat.S_ISDIR(status.st_mode) and is_ours and os.access(folder, os.W_OK)
