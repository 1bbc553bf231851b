"""What state machines hand to functions: settings over a stage's defaults, and errors as Step Functions tells them."""

import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from rlaas.errors import InvalidInput
from rlaas.wire import invalid_input

Settings = TypeVar("Settings", bound=BaseModel)


class Failure(BaseModel):
    """A caught error: `Error` is its name, `Cause` a text that is often JSON with the message inside."""

    Error: str
    Cause: str = ""

    @property
    def told(self) -> str:
        """The error in one line: of a function its message, of a SageMaker job its last words or else how it ended, of
        a query why."""
        try:
            cause = json.loads(self.Cause)
        except ValueError:
            cause = None
        message = _message(cause) if isinstance(cause, dict) else self.Cause
        return f"{self.Error}: {message}" if message else self.Error


def _message(cause: Mapping[str, JsonValue]) -> str:
    """What a cause that is JSON says to a reader; nothing where it has no words for one."""
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


def settings_of(model: type[Settings], stage: Mapping[str, JsonValue], given: Mapping[str, JsonValue]) -> Settings:
    """`given` over the stage's own over the model's defaults. Raises: InvalidInput with `settings.` before the
    field."""
    settings = {**stage, **given}
    try:
        return model.model_validate_json(json.dumps(settings))
    except ValidationError as error:
        fault = invalid_input(error, settings)
        raise InvalidInput(fault.detail, param=f"settings.{fault.param}" if fault.param else "settings") from None
