"""Inputs of functions from state machines: settings that override the stage's, and errors in Step Functions' form."""

import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from rlaas.errors import InvalidInput
from rlaas.wire import make_invalid_input

Settings = TypeVar("Settings", bound=BaseModel)


class Failure(BaseModel):
    """A caught error: `Error` is its name, `Cause` a text that is often JSON and contains the message."""

    Error: str
    Cause: str = ""

    @property
    def message(self) -> str:
        """The error in one line: a function's message, a SageMaker job's exit message or else its last status, a
        query's reason."""
        try:
            cause = json.loads(self.Cause)
        except ValueError:
            cause = None
        message = _find_message(cause) if isinstance(cause, dict) else self.Cause
        return f"{self.Error}: {message}" if message else self.Error


def _find_message(cause: Mapping[str, JsonValue]) -> str:
    """The message for a reader in a cause that is JSON; "" where it has none."""
    for name in ("errorMessage", "ExitMessage", "FailureReason"):
        if cause.get(name):
            return str(cause[name])
    match cause:
        case {"QueryExecution": {"Status": {"StateChangeReason": str(reason)}}}:
            return reason
    for kind in ("Training", "Processing"):
        if job := cause.get(f"{kind}JobName"):
            return f"the job {job} ended as {cause.get('SecondaryStatus') or cause.get(f'{kind}JobStatus')}"
    return ""


def merge_settings(model: type[Settings], stage: Mapping[str, JsonValue], overrides: Mapping[str, JsonValue]) -> Settings:
    """`overrides` over the stage's own settings over the model's defaults. Raises: InvalidInput naming the field, with
    `settings.` before it."""
    settings = {**stage, **overrides}
    try:
        return model.model_validate_json(json.dumps(settings))
    except ValidationError as error:
        fault = make_invalid_input(error, settings)
        raise InvalidInput(fault.detail, param=f"settings.{fault.param}" if fault.param else "settings") from None
