"""A synthesized stack, as the tests read it."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

Resource = dict[str, Any]


@dataclass(frozen=True)
class Template:
    """A synthesized stack."""

    stage: str
    stack: str
    path: Path

    @property
    def id(self) -> str:
        return f"{self.stage}/{self.stack}"

    @cached_property
    def body(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.path.read_text())
        return loaded

    def resources(self, *types: str) -> dict[str, Resource]:
        """Logical id -> resource, of these types."""
        return {name: resource for name, resource in self.body["Resources"].items() if not types or resource["Type"] in types}
