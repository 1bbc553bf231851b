"""Names found by the function `find_entities`."""

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
"""At most so many characters a call: a second of work, and far below Lambda's 6 MB of payload whatever the
characters."""
TIMEOUT_S = 8.0
"""How long one call may take: a start, which loads the model, and the most work a call can hold."""

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

    One call a request, unless its texts are longer than `CALL_CHARACTERS`: then several, `at_once` of them side by
    side. One attempt each, and no answer but a whole one: the caller stores nothing, and its client tries again.
    """

    def __init__(self, name: str, *, at_once: int, client: "LambdaClient | None" = None) -> None:
        self._name = name
        self._at_once = at_once
        self._client = client

    def find(self, texts: Sequence[str], entities: Sequence[ModelEntity]) -> list[list[Span]]:
        """The spans in each of `texts`. Raises: DependencyUnavailable when the function fails, is late or answers
        nonsense."""
        calls = list(_calls(texts))
        found: list[list[Span]] = [[] for _ in texts]
        if len(calls) < 2:
            answers = [self._found(pieces, entities) for pieces in calls]
        else:
            with ThreadPoolExecutor(self._at_once) as pool:
                answers = list(pool.map(lambda pieces: self._found(pieces, entities), calls))
        for pieces, answer in zip(calls, answers, strict=True):
            for piece, spans in zip(pieces, answer.spans, strict=True):
                found[piece.text] += [Span(piece.offset + start, piece.offset + end, entity) for start, end, entity in spans]
        return found

    def _found(self, pieces: list[_Piece], entities: Sequence[ModelEntity]) -> FoundEntities:
        request = FindEntities(texts=tuple(piece.content for piece in pieces), entities=tuple(entities))
        with dependency(_SERVICE):
            answer = (self._client or _lambda()).invoke(FunctionName=self._name, Payload=request.model_dump_json().encode())
            body = answer["Payload"].read()
        if "FunctionError" in answer:
            raise DependencyUnavailable(f"{_SERVICE} failed")
        try:
            found = FoundEntities.model_validate_json(body)
        except ValidationError:
            raise DependencyUnavailable(f"the answer of {_SERVICE} is not one") from None  # its cause would hold what was found
        if len(found.spans) != len(pieces) or any(
            not 0 <= start < end <= len(piece.content) for piece, spans in zip(pieces, found.spans, strict=True) for start, end, _ in spans
        ):
            raise DependencyUnavailable(f"the answer of {_SERVICE} fits other texts")
        return found


def _calls(texts: Sequence[str]) -> Iterator[list[_Piece]]:
    """The texts that hold a letter, in pieces, in lots of at most `CALL_CHARACTERS`."""
    lot: list[_Piece] = []
    room = CALL_CHARACTERS
    for at, text in enumerate(texts):
        if not _WORD_CHARACTER.search(text):
            continue
        for offset, content in _pieces(text):
            if len(content) > room and lot:
                yield lot
                lot, room = [], CALL_CHARACTERS
            lot.append(_Piece(at, offset, content))
            room -= len(content)
    if lot:
        yield lot


def _pieces(text: str) -> Iterator[tuple[int, str]]:
    """`text` cut where a line or at least a word ends, with where each piece begins."""
    start = 0
    while len(text) - start > CALL_CHARACTERS:
        last = start + CALL_CHARACTERS
        end = max(text.rfind("\n", start + CALL_CHARACTERS // 2, last), text.rfind(" ", last - 1_000, last)) + 1 or last
        yield start, text[start:end]
        start = end
    yield start, text[start:]


@cache
def _lambda() -> "LambdaClient":
    config = Config(connect_timeout=1, read_timeout=TIMEOUT_S, retries={"total_max_attempts": 1}, max_pool_connections=50)
    client: LambdaClient = boto3.client("lambda", config=config)
    return client
