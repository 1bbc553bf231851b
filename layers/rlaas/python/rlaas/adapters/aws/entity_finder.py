"""Finds names by the function `find_entities`."""

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from pydantic import ValidationError

from rlaas.adapters.aws.clients import dependency
from rlaas.errors import DependencyUnavailable
from rlaas.privacy.entities import FindEntities, FoundEntities
from rlaas.privacy.patterns import Span
from rlaas.privacy.settings import ModelEntity

if TYPE_CHECKING:
    from types_boto3_lambda import LambdaClient

CALL_CHARACTERS = 32 * 1024
"""Most characters in one call: a second of work, and far below Lambda's 6 MB of payload whatever the characters."""
TIMEOUT_S = 8.0
"""Seconds that one call may take: a cold start, which loads the model, and the most work of one call."""

_WORD_CHARACTER = re.compile(r"[^\W\d_]")
_SERVICE = "the function that finds names"


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of text number `text` that begins at its code point `offset`."""

    text: int
    offset: int
    content: str


class LambdaEntityFinder:
    """`EntityFinder` by a synchronous Invoke of the function `name` (its ARN).

    One call for each request, unless its texts are longer than `CALL_CHARACTERS`: then several, up to `at_once` at the
    same time. Each call is tried once. If one fails, the whole request fails: the caller stores nothing, and its client
    tries again.
    """

    def __init__(self, name: str, *, at_once: int, client: "LambdaClient | None" = None) -> None:
        self._name = name
        self._at_once = at_once
        self._client = client

    def find(self, texts: Sequence[str], entities: Sequence[ModelEntity]) -> list[list[Span]]:
        """The spans in each of `texts`. Raises: DependencyUnavailable when the function fails, is late or answers
        nonsense."""
        calls = list(_plan_calls(texts))
        spans_by_text: list[list[Span]] = [[] for _ in texts]
        if len(calls) < 2:
            answers = [self._ask(pieces, entities) for pieces in calls]
        else:
            with ThreadPoolExecutor(self._at_once) as pool:
                answers = list(pool.map(lambda pieces: self._ask(pieces, entities), calls))
        for pieces, answer in zip(calls, answers, strict=True):
            for piece, spans in zip(pieces, answer.spans, strict=True):
                spans_by_text[piece.text] += [Span(piece.offset + start, piece.offset + end, entity) for start, end, entity in spans]
        return spans_by_text

    def _ask(self, pieces: list[_Piece], entities: Sequence[ModelEntity]) -> FoundEntities:
        request = FindEntities(texts=tuple(piece.content for piece in pieces), entities=tuple(entities))
        with dependency(_SERVICE):
            response = (self._client or _lambda_client()).invoke(FunctionName=self._name, Payload=request.model_dump_json().encode())
            body = response["Payload"].read()
        if "FunctionError" in response:
            raise DependencyUnavailable(f"{_SERVICE} failed")
        try:
            answer = FoundEntities.model_validate_json(body)
        except ValidationError:
            raise DependencyUnavailable(f"the answer of {_SERVICE} is not one") from None  # its cause would hold the names
        if len(answer.spans) != len(pieces) or any(
            not 0 <= start < end <= len(piece.content) for piece, spans in zip(pieces, answer.spans, strict=True) for start, end, _ in spans
        ):
            raise DependencyUnavailable(f"the answer of {_SERVICE} fits other texts")
        return answer


def _plan_calls(texts: Sequence[str]) -> Iterator[list[_Piece]]:
    """The pieces for each call: of the texts that contain a letter, at most `CALL_CHARACTERS` a call."""
    pieces: list[_Piece] = []
    characters_left = CALL_CHARACTERS
    for number, text in enumerate(texts):
        if not _WORD_CHARACTER.search(text):
            continue
        for offset, content in _cut_pieces(text):
            if len(content) > characters_left and pieces:
                yield pieces
                pieces, characters_left = [], CALL_CHARACTERS
            pieces.append(_Piece(number, offset, content))
            characters_left -= len(content)
    if pieces:
        yield pieces


def _cut_pieces(text: str) -> Iterator[tuple[int, str]]:
    """`text` cut where a line or at least a word ends, each piece with its offset."""
    start = 0
    while len(text) - start > CALL_CHARACTERS:
        last = start + CALL_CHARACTERS
        end = max(text.rfind("\n", start + CALL_CHARACTERS // 2, last), text.rfind(" ", last - 1_000, last)) + 1 or last
        yield start, text[start:end]
        start = end
    yield start, text[start:]


@cache
def _lambda_client() -> "LambdaClient":
    config = Config(connect_timeout=1, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 1}, max_pool_connections=50)
    client: LambdaClient = boto3.client("lambda", config=config)
    return client
