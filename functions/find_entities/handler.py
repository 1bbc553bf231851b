"""Finds names of people and places, and other personal data that needs a model or its context, for the functions that
store texts."""

from collections.abc import Mapping

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.presidio.finder import PresidioFinder
from rlaas.privacy.entities import FindEntities, FoundEntities

finder = PresidioFinder()
"""Made, and used once, while Lambda initializes the process, so that the first request does not wait for it."""


def handler(event: Mapping[str, object], context: LambdaContext) -> dict[str, object]:
    """The Lambda entry point. Logs nothing of the texts."""
    request = FindEntities.model_validate(event, strict=False)
    return FoundEntities.of(finder.find(request.texts, request.entities)).model_dump(mode="json")
