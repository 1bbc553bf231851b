"""Tar archives, taken apart in a directory that they cannot lead out of. Standard library only: the emulator's
environment uses it, too."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path


def extract(archive: tarfile.TarFile, directory: Path) -> None:
    """Put the archive's files and directories below `directory`, links as copies of what they name in the archive.

    `extractall(filter="data")` came with Python 3.11.4, and Debian 12 has 3.11.2. As with it nothing lands outside, no
    device is made, and owner and special mode bits are dropped; a link is followed inside the archive and never made,
    so that none can lead out later.

    Raises: tarfile.ReadError naming the member that is refused; what came before it stays.
    """
    root = directory.resolve()
    for member in archive:
        if "\0" in member.name or not (target := (root / member.name).resolve()).is_relative_to(root):
            raise tarfile.ReadError(f"{member.name!r} leads out of the archive's directory")
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            continue
        try:
            source = archive.extractfile(member)
        except (KeyError, RecursionError):
            raise tarfile.ReadError(f"{member.name!r} is a link to {member.linkname!r}, which is no file of the archive") from None
        if source is None:
            raise tarfile.ReadError(f"{member.name!r} is neither a file nor a directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        with source, target.open("wb") as file:
            shutil.copyfileobj(source, file)
        target.chmod(0o755 if member.mode & 0o100 else 0o644)
