"""What state machines hand to functions: settings over a stage's defaults, and errors as Step Functions tells them."""

import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from rlaas.errors import InvalidInput
from rlaas.runtime.http import invalid_input

Settings = TypeVar("Settings", bound=BaseModel)


class Failure(BaseModel):
    """A caught error: `Error` is its name, `Cause` a text that is often JSON with the message inside."""

    Error: str
    Cause: str = ""

    @property
    def told(self) -> str:
        """The error in one line: the Lambda's message or the SageMaker job's failure reason where `Cause` holds one."""
        try:
            cause = json.loads(self.Cause)
        except ValueError:
            cause = None
        if isinstance(cause, dict):
            message = next((cause[name] for name in ("errorMessage", "FailureReason") if cause.get(name)), self.Cause)
        else:
            message = self.Cause
        return f"{self.Error}: {message}" if message else self.Error


def settings_of(model: type[Settings], stage: Mapping[str, JsonValue], given: Mapping[str, JsonValue]) -> Settings:
    """`given` over the stage's own over the model's defaults. Raises: InvalidInput with `settings.` before the field."""
    settings = {**stage, **given}
    try:
        return model.model_validate_json(json.dumps(settings))
    except ValidationError as error:
        fault = invalid_input(error, settings)
        raise InvalidInput(fault.detail, param=f"settings.{fault.param}" if fault.param else "settings") from None
