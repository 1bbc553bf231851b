"""Finds names of people and places, and other personal data that takes a model or context, for the functions that store
texts."""

from collections.abc import Mapping

from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.adapters.presidio.finder import PresidioFinder
from rlaas.privacy.entities import FindEntities, FoundEntities

finder = PresidioFinder()
"""Made while the environment is initialized, with the model's first use, so that the first request waits for nothing
else."""


def handler(event: Mapping[str, object], context: LambdaContext) -> dict[str, object]:
    """The Lambda entry point. Logs nothing of the texts."""
    request = FindEntities.model_validate(event, strict=False)
    return FoundEntities.of(finder.find(request.texts, request.entities)).model_dump(mode="json")
