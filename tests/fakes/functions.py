"""Lambda's Invoke, calling the functions' own handlers in this process."""

import io
import json
from collections.abc import Callable, Mapping
from typing import Any

from tests.fakes.gateway import make_lambda_context


class FunctionsHere:
    """Handlers by function name. A handler's exception comes back as Lambda reports it."""

    def __init__(self, handlers: Mapping[str, Callable[..., Any]]) -> None:
        self.handlers = dict(handlers)
        self.calls: list[str] = []

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:
        name = FunctionName.split(":")[6]
        self.calls.append(name)
        try:
            answer, error_fields = self.handlers[name](json.loads(Payload), make_lambda_context(name)), {}
        except Exception as error:
            answer, error_fields = {"errorType": type(error).__name__, "errorMessage": str(error)}, {"FunctionError": "Unhandled"}
        return {"Payload": io.BytesIO(json.dumps(answer).encode()), **error_fields}
