"""How alike a draft and its final form are, in time that is bounded whatever is compared."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Literal

from rapidfuzz.distance import Levenshtein, Postfix, Prefix

SimilarityMeasure = Literal["characters", "pieces"]

MOST_CELLS = 2**28
"""Characters of the one text times characters of the other that are compared as a whole, what both begin and end with
aside: 16,384 each, some 20 ms of a core."""
_PIECE = 2048
_APART = 1024
_ANCHOR = 24
_SAMPLED = 32
_MOST_ANCHORS = 20_000


@dataclass(frozen=True, slots=True)
class Similarity:
    """1 for equal texts and only for these, 0 for nothing in common; and how it was measured."""

    value: float
    measure: SimilarityMeasure


def compare_texts(draft: str, final: str) -> Similarity:
    """1 minus the edits that make one text of the other, over the longer one's length.

    By `characters`, edits are the Levenshtein distance. Texts whose changed part is too long for that are compared by
    `pieces`: cut where they have the same 24 characters, each piece by its characters. No cut can save an edit, so the
    value is never above the exact one.
    """
    longest = max(len(draft), len(final))
    begin = Prefix.similarity(draft, final)
    draft, final = draft[begin:], final[begin:]
    end = Postfix.similarity(draft, final)
    draft, final = draft[: len(draft) - end], final[: len(final) - end]
    if len(draft) * len(final) <= MOST_CELLS:
        return Similarity(1 - Levenshtein.distance(draft, final) / (longest or 1), "characters")
    edits = _count_edits_by_pieces(draft, final)
    if edits > longest / 2:  # two texts that hardly have anything in common may be cut in the wrong places
        edits = min(edits, _count_edits_side_by_side(draft, final), longest)
    return Similarity(1 - edits / longest, "pieces")


def compute_edit_similarity(draft: str, final: str) -> float:
    """How similar the texts are, in [0, 1]: the value of `compare_texts`."""
    return compare_texts(draft, final).value


def _count_edits_by_pieces(draft: str, final: str) -> int:
    edits = at = there = 0
    for cut, cut_there in [*_find_cuts(draft, final), (len(draft), len(final))]:
        edits += _count_edits_side_by_side(draft[at:cut], final[there:cut_there])
        at, there = cut, cut_there
    return edits


def _count_edits_side_by_side(one: str, other: str) -> int:
    """The edits of the first share of both, of the second, and so on."""
    parts = -(-max(len(one), len(other)) // _PIECE)
    shares = ((part, part + 1) for part in range(parts))
    return sum(
        Levenshtein.distance(one[len(one) * a // parts : len(one) * b // parts], other[len(other) * a // parts : len(other) * b // parts])
        for a, b in shares
    )


def _find_cuts(draft: str, final: str) -> Iterator[tuple[int, int]]:
    """Places where both texts have the same anchor, in the order of both, at least `_APART` characters apart."""
    here, there = _find_anchors(draft), _find_anchors(final)
    both = sorted((at, there[anchor]) for anchor, at in here.items() if anchor in there)
    last = last_there = 0
    for at, at_there in _find_longest_increasing(both):
        if at - last >= _APART and at_there > last_there:
            yield at, at_there
            last, last_there = at, at_there


def _find_anchors(text: str) -> dict[str, int]:
    """The place of each run of `_ANCHOR` characters that occurs once in the text, of the runs that begin with one of
    the `_compile_beginnings`."""
    places = [match.start() for match in islice(_compile_beginnings().finditer(text), _MOST_ANCHORS)]
    anchors = [text[at : at + _ANCHOR] for at in places]
    times = Counter(anchors)
    return {anchor: at for anchor, at in zip(anchors, places, strict=True) if times[anchor] == 1}


@cache
def _compile_beginnings() -> re.Pattern[str]:
    """One in 32 characters of every script, A and a among them."""
    return re.compile(f"[{''.join(re.escape(chr(code)) for code in range(1, 0x10000, _SAMPLED))}]")


def _find_longest_increasing(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest choice of `pairs`, which ascend by their first, that ascends by its second, too. O(n log n)."""
    ends: list[int] = []
    last: list[int] = []
    before: list[int | None] = []
    for place, (_, there) in enumerate(pairs):
        length = bisect_left(ends, there)
        before.append(last[length - 1] if length else None)
        ends[length : length + 1] = [there]
        last[length : length + 1] = [place]
    chosen: list[tuple[int, int]] = []
    place_or_none = last[-1] if last else None
    while place_or_none is not None:
        chosen.append(pairs[place_or_none])
        place_or_none = before[place_or_none]
    return chosen[::-1]
