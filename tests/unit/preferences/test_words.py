"""Counting words and comparing texts in any script."""

import pytest

from rlaas.preferences.words import count_words, normalize_spacing


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("It left today.", 3),
        ("\u00a0 It\u3000left - 2 days ago! ", 5),
        ("退款已经发出", 3),
        ("我们用Python写的API", 5),
        ("ご返金", 2),
        ("ｺﾞ返金", 2),
        ("ขอบคุณ", 2),
        ("환불이 오늘 처리되었습니다.", 3),
        ("आपका पैसा", 2),
        ("e\u0301tait la\u0300", 2),
        ("👍🏽 👩‍👩‍👧 ✅", 0),
        ("\u202bشكرا لك\u202c", 2),
    ],
)
def test_words_are_counted_as_a_reader_of_the_script_would(text: str, words: int) -> None:
    assert count_words(text) == words


def test_texts_compare_without_their_spacing_and_composed() -> None:
    assert normalize_spacing(" e\u0301te\u0301 \r\n\u200b dernier ") == "\u00e9t\u00e9 dernier"
