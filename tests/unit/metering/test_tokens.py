"""The estimate of tokens against what five tokenizers make of the same texts, as they were recorded from their
packages."""

import json
from pathlib import Path
from typing import Any

import pytest

from rlaas.metering.budgets import estimate_tokens

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("token_counts.json").read_text())


@pytest.mark.parametrize("recorded", RECORDED["texts"], ids=lambda recorded: recorded["kind"])
def test_no_tokenizer_makes_much_more_of_a_text_than_is_estimated_nor_all_of_them_much_less(recorded: dict[str, Any]) -> None:
    estimate, most = estimate_tokens([recorded["text"]]), max(recorded["tokens"].values())
    assert 0.9 * most <= estimate <= 2.2 * most + 4


def test_each_text_costs_something_and_halves_of_surrogate_pairs_are_counted() -> None:
    assert estimate_tokens([]) == 0
    assert estimate_tokens(["", ""]) == 8
    assert estimate_tokens(["\ud83d"]) == 5
    assert estimate_tokens(["abc"]) == 5
