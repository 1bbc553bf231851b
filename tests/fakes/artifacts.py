"""Files of runs in memory."""

import hashlib
from dataclasses import dataclass, field

from rlaas.errors import NotFound


@dataclass
class MemoryArtifacts:
    files: dict[str, bytes] = field(default_factory=dict)

    def read(self, uri: str) -> bytes:
        if uri not in self.files:
            raise NotFound(f"there is no file {uri}")
        return self.files[uri]

    def read_sha256(self, uri: str) -> str:
        return hashlib.sha256(self.read(uri)).hexdigest()
