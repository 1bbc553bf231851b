"""Where events go and where they wait: arguments first, then the environment."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from rlaas_sdk.errors import NotConfigured
from rlaas_sdk.spool import MEMORY


def destination(api_url: str | None, api_key: str | None) -> tuple[str, str]:
    """The API's URL and the key, from RLAAS_API_URL and RLAAS_API_KEY where not given. Raises: NotConfigured."""
    url, key = api_url or os.environ.get("RLAAS_API_URL", ""), api_key or os.environ.get("RLAAS_API_KEY", "")
    if not url or not key:
        raise NotConfigured("no API URL or key: give api_url and api_key, or set RLAAS_API_URL and RLAAS_API_KEY")
    if not url.strip().startswith(("http://", "https://")):
        raise NotConfigured("the API's URL must begin with https:// or http://")
    return url.strip().rstrip("/"), key.strip()


def owner_of(api_url: str, api_key: str) -> str:
    """Whose events a spool's are: the URL and the key's public part, so that nothing is ever sent with another tenant's
    key."""
    return hashlib.sha256(f"{api_url} {'_'.join(api_key.split('_')[:2])}".encode()).hexdigest()[:16]


def spool_path(spool: str | os.PathLike[str] | None) -> str:
    """`spool`, else RLAAS_SPOOL, else `rlaas/spool.db` in the user's state directory, else in a private one of the
    temporary directory (AWS Lambda), else memory."""
    given = spool if spool is not None else os.environ.get("RLAAS_SPOOL")
    if given:
        return os.fspath(given)
    for place in (_in_state, _in_temporary):
        with contextlib.suppress(OSError, RuntimeError):  # a user without a home, a machine without a temporary directory
            if _private(folder := place()):
                return str(folder / "spool.db")
    return MEMORY


def _in_state() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()) / "rlaas"


def _in_temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"rlaas-{os.getuid() if hasattr(os, 'getuid') else 'me'}"


def _private(folder: Path) -> bool:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    mine = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
    return stat.S_ISDIR(found.st_mode) and mine and os.access(folder, os.W_OK)
