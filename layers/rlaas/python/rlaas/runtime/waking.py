"""Wakes a model that scaled to zero: the stage's alarm on the metric `NoCapacity` starts a copy of the base model.

SageMaker's own metric counts a call that finds no copy under the component that was asked. An adapter has no copies of
its own, so its calls would never wake the base model; this metric counts them for the stage.
"""

from collections.abc import Generator

from rlaas.chat import ChatCall, Completion, Delta, NoCapacity
from rlaas.clock import utc_now
from rlaas.policies.backend import Backend, BackendSpec
from rlaas.runtime.metrics import emit


class WakingBackend:
    """A `Backend` that emits a metric for every call that finds its model asleep, whether whole, streamed or a
    shadow's."""

    def __init__(self, backend: Backend, *, stage: str) -> None:
        self._backend = backend
        self._stage = stage

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        """As the wrapped backend. Raises: as it does."""
        try:
            return self._backend.complete(backend, call, timeout_s=timeout_s)
        except NoCapacity:
            self._emit(backend, call)
            raise

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Generator[Delta, None, None]:
        """As the wrapped backend. Raises: as it does."""
        try:
            yield from self._backend.stream(backend, call, timeout_s=timeout_s)
        except NoCapacity:
            self._emit(backend, call)
            raise

    def _emit(self, backend: BackendSpec, call: ChatCall) -> None:
        properties = {"tenant_id": call.tenant_id, "gen_ai.request.model": backend.model}
        emit({"NoCapacity": (1, "Count")}, dimensions={"stage": self._stage}, at=utc_now(), properties=properties)
