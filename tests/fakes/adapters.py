"""An endpoint's adapters in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from rlaas.errors import Conflict
from rlaas.learning.adapter_upkeep import LoadedAdapter
from tests.fakes.worlds import NOW


@dataclass
class MemoryAdapters:
    """`loaded` by name; adapters in `stuck` cannot be unloaded, a `full` endpoint loads no more. Loads and unloads are
    under way until `settle`."""

    by_name: dict[str, LoadedAdapter] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    stuck: set[str] = field(default_factory=set)
    full: bool = False
    awake: bool = True

    def add(self, name: str, created_at: datetime = NOW, status: str = "InService", reason: str | None = None) -> None:
        self.by_name[name] = LoadedAdapter(name, status, created_at, reason)

    def settle(self) -> None:
        """Finish the loads and unloads under way."""
        remaining = {name: adapter for name, adapter in self.by_name.items() if adapter.status != "Deleting"}
        self.by_name = {name: replace(adapter, status="InService") for name, adapter in remaining.items()}

    def iterate_loaded(self) -> Iterator[LoadedAdapter]:
        return iter([*self.by_name.values()])

    def find(self, name: str) -> LoadedAdapter | None:
        return self.by_name.get(name)

    def load(self, name: str, artifact_uri: str) -> None:
        if self.full:
            raise Conflict(f"SageMaker does not load the adapter {name}: ResourceLimitExceeded: too many")
        self.requests.append(("load", artifact_uri))
        self.by_name.setdefault(name, LoadedAdapter(name, "Creating", NOW))

    def unload(self, name: str) -> None:
        if name in self.stuck:
            raise Conflict(f"SageMaker does not unload the adapter {name}: it is being loaded")
        self.requests.append(("unload", name))
        if name in self.by_name:
            self.by_name[name] = replace(self.by_name[name], status="Deleting")

    def base_is_awake(self) -> bool:
        return self.awake
