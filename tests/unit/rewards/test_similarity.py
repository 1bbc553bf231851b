"""Texts of any length are compared in bounded work: exactly where that is possible, and never as more alike than they
are."""

import random
from itertools import accumulate
from string import ascii_lowercase

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rapidfuzz.distance import Levenshtein

from rlaas.rewards import similarity
from rlaas.rewards.similarity import compare_texts, compute_edit_similarity

WORDS = 3_000
FREQUENCIES = list(accumulate(1 / (rank + 1) for rank in range(WORDS)))
KINDS = ("rewrite", "cut", "add", "move", "words", "typos")


def exact(draft: str, final: str) -> float:
    return 1 - Levenshtein.distance(draft, final) / max(len(draft), len(final))


@given(st.text(max_size=30), st.text(max_size=30))
@example("", "")
def test_similarity_is_symmetric_within_bounds_and_one_only_for_equal_texts(draft: str, final: str) -> None:
    value = compute_edit_similarity(draft, final)
    assert 0 <= value <= 1
    assert value == compute_edit_similarity(final, draft)
    assert (value == 1) == (draft == final)
    assert value == pytest.approx(exact(draft, final) if draft or final else 1)


class Writer:
    """Makes long texts of words as frequent as in a language (Zipf), and edits them as people do."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.words = ["".join(self.chance.choices(ascii_lowercase, k=self.chance.randint(2, 10))) for _ in range(WORDS)]

    def sentence(self) -> str:
        return " ".join(self.chance.choices(self.words, cum_weights=FREQUENCIES, k=self.chance.randint(6, 25))).capitalize() + "."

    def text(self, length: int) -> list[str]:
        sentences = [self.sentence()]
        while sum(map(len, sentences)) < length:
            sentences.append(self.sentence())
        return sentences

    def edited(self, sentences: list[str], kind: str, share: float) -> str:
        edited, number = list(sentences), max(1, int(len(sentences) * share))
        at = self.chance.randrange(len(edited) - number + 1)
        if kind == "rewrite":
            for place in self.chance.sample(range(len(edited)), number):
                edited[place] = self.sentence()
        elif kind in ("cut", "move"):
            passage = edited[at : at + number]
            del edited[at : at + number]
            to = self.chance.randrange(len(edited) + 1)
            edited[to:to] = passage if kind == "move" else []
        elif kind == "add":
            edited[at:at] = [self.sentence() for _ in range(number)]
        units = list(" ".join(edited)) if kind == "typos" else " ".join(edited).split(" ")
        if kind in ("typos", "words"):
            for place in self.chance.sample(range(len(units)), int(len(units) * share / (5 if kind == "typos" else 1))):
                units[place] = self.chance.choice(ascii_lowercase) if kind == "typos" else self.chance.choice(self.words)
        return ("" if kind == "typos" else " ").join(units)


@pytest.mark.parametrize("kind", KINDS)
def test_long_edited_texts_are_at_most_a_little_less_alike_than_exactly(kind: str) -> None:
    measures = set()
    for seed, share in enumerate((0.05, 0.3, 0.6, 0.9)):
        writer = Writer(seed)
        sentences = writer.text(40_000)
        draft, final = " ".join(sentences), writer.edited(sentences, kind, share)
        actual, truth = compare_texts(draft, final), exact(draft, final)
        measures.add(actual.measure)
        assert truth - 0.06 <= actual.value <= truth + 1e-9, (share, actual, truth)
    assert "pieces" in measures or kind in ("cut", "add")  # what both begin and end with leaves too little for pieces


def test_texts_with_nothing_in_common_are_not_cut_apart_by_a_chance_likeness() -> None:
    one, other = (" ".join(Writer(seed).text(20_000)) for seed in (1, 2))
    phrase = Writer(3).sentence()
    draft, final = phrase + one + phrase[:5], other + phrase
    assert compare_texts(draft, final).value == pytest.approx(exact(draft, final), abs=0.06)


@pytest.mark.parametrize(("draft", "final"), [("a " * 60_000, "b " * 60_000), ("x" * 250_000, ""), ("税" * 90_000, "金" * 90_000)])
def test_hostile_texts_stay_within_bounds(draft: str, final: str) -> None:
    actual = compare_texts(draft, final)
    assert 0 <= actual.value <= 0.5
    assert actual == compare_texts(final, draft)


def test_equal_texts_are_equal_however_long_and_one_letter_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(Writer(4).text(60_000))
    assert compare_texts(text, text).value == 1
    assert compare_texts(text, text[:30_000] + "#" + text[30_001:]).value == pytest.approx(1 - 1 / len(text))
    monkeypatch.setattr(similarity, "MOST_CELLS", 0)
    assert compare_texts(text, text + "#") == similarity.Similarity(1 - 1 / (len(text) + 1), "characters")  # only an insertion is left


def test_no_comparison_looks_at_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that Levenshtein fills, over hostile pairs: at most those of one whole comparison, or linear in the
    texts."""
    cells: list[int] = []
    true_distance = Levenshtein.distance

    def count_cells(one: str, other: str) -> int:
        cells.append(len(one) * len(other))
        return int(true_distance(one, other))

    monkeypatch.setattr(Levenshtein, "distance", count_cells)
    for draft, final in (("ab" * 125_000, "ba" * 125_000 + "c"), ("a" + "xy" * 8_192, "yx" * 8_192 + "b"), ("q" * 250_000, "z" * 250_000)):
        cells.clear()
        compare_texts(draft, final)
        assert sum(cells) <= max(similarity.MOST_CELLS, 2 * 2_048 * (len(draft) + len(final)))
