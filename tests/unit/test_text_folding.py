"""What characters stand for, and which are invisible."""

import re
import sys
import unicodedata

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from rlaas.policies.guardrails.injection_signals import rate_suspicion
from rlaas.policies.guardrails.terms import Terms
from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import PrivacySettings
from rlaas.text_folding import INVISIBLE, SHAPING, find_positions, fold

EVERY_CHARACTER = [chr(code) for code in range(sys.maxunicode + 1)]
INVISIBLE_CHARACTERS = [character for character in EVERY_CHARACTER if re.match(f"[{INVISIBLE}]", character)]


def test_what_unicode_calls_ignorable_is_invisible_and_little_else() -> None:
    ignorable = regex.compile(r"\p{Default_Ignorable_Code_Point}")
    ignorable_characters = {character for character in EVERY_CHARACTER if ignorable.match(character)}
    assert {*INVISIBLE_CHARACTERS} - ignorable_characters == {"\ufff9", "\ufffa", "\ufffb"}
    assert ignorable_characters <= {*INVISIBLE_CHARACTERS}
    assert {character for character in EVERY_CHARACTER if re.match(f"[{SHAPING}]", character)} < ignorable_characters


def test_no_invisible_character_hides_a_card_an_address_or_a_term() -> None:
    scrubber, terms = Scrubber(PrivacySettings(), salt=b"pinch"), Terms(["bomb"])
    for invisible in INVISIBLE_CHARACTERS:
        text = f"4111 1111{invisible} 11{invisible}11 1111 or a{invisible}da@example.com, b{invisible}omb"
        [clean] = scrubber.scrub([text])
        assert clean.startswith("<CREDIT_CARD> or <EMAIL_ADDRESS>, "), hex(ord(invisible))
        assert [text[hit.start : hit.end] for hit in terms.find_hits(text)] == [f"b{invisible}omb"]


def test_no_control_character_hides_a_card_a_phone_number_or_an_address() -> None:
    scrubber = Scrubber(PrivacySettings(), salt=b"pinch")
    controls = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"]
    for invisible in controls:
        for foreign in ("", " ñ"):
            text = f"4111 1111{invisible} 11{invisible}11 1111, +44 20{invisible} 7946 09{invisible}58, a{invisible}da@example.com{foreign}"
            [clean] = scrubber.scrub([text])
            assert clean == f"<CREDIT_CARD>, <PHONE_NUMBER>, <EMAIL_ADDRESS>{foreign}", hex(ord(invisible))


def test_a_number_that_a_line_end_of_windows_breaks_is_found_and_other_line_ends_stay() -> None:
    scrubber = Scrubber(PrivacySettings(), salt=b"pinch")
    texts = ["my card 4111 1111\r\n1111 1111 ok", "call me at 020 7946\r\n0958\r\nbye", "one\r\ntwo\r\n"]
    assert scrubber.scrub(texts) == [
        "my card <CREDIT_CARD> ok",
        scrubber.scrub([texts[1].replace("\r", "")])[0].replace("\n", "\r\n"),
        texts[2],
    ]


@pytest.mark.parametrize("invisible", ["\u2061", "\u2064", "\u206a", "\u200b", "\u00ad", "\u2060", "\u034f"])
def test_a_word_split_by_invisible_characters_looks_like_an_attack(invisible: str) -> None:
    assert "invisible_characters" in rate_suspicion(f"please ig{invisible}nore this").signals


def test_what_scripts_and_emoji_are_shaped_by_is_no_sign_of_an_attack() -> None:
    texts = ["\u0645\u06cc\u200d\u062e\u0648\u0627\u0647\u0645", "\u845b\U000e0100\u57ce", "ok \u2764\ufe0f\u200d\U0001f525 go"]
    assert [rate_suspicion(text).signals for text in texts] == [(), (), ()]


def test_every_digit_dash_and_space_of_unicode_is_read_as_such() -> None:
    scrubber = Scrubber(PrivacySettings(), salt=b"pinch")
    ones = [character for character in EVERY_CHARACTER if unicodedata.digit(character, None) == 1 and not character.isascii()]
    between = [character for character in EVERY_CHARACTER if unicodedata.category(character) in ("Zs", "Pd")]
    assert len(ones) > 70
    assert len(between) > 40
    cards = [f"4{one * 3} 1111 1111 {one * 4}" for one in ones] + [f"4111{gap}1111{gap}1111{gap}1111" for gap in between]
    assert {*scrubber.scrub(cards)} == {"<CREDIT_CARD>"}


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("\uff14\uff11\uff11\uff11", "4111"),
        ("4\ufe0f\u20e31\ufe0f\u20e3", "41"),
        ("\u2463\u2460", "41"),
        ("\U0001d41a\U0001d41d\U0001d41a\uff20example\uff0ecom", "ada@example.com"),
        ("+44\u221220\u20110958", "+44-20-0958"),
        ("Zoë Ñandú 東京", "Zoë Ñandú 東京"),
        ("a\tb\r\nc\x00\x7f", "a\tb\nc"),
        ("ä\tb\r\nc\x00\x9f", "ä\tb\nc"),
    ],
)
def test_characters_fold_to_what_they_stand_for(text: str, plain: str) -> None:
    assert fold(text) == plain


@given(st.text(max_size=100) | st.text(alphabet=st.sampled_from("4 1-a\r\n\x00\u200b\ufe0f\u20e3\u0661\ud83d")))
def test_each_folded_character_has_its_place(text: str) -> None:
    plain, positions = fold(text), find_positions(text)
    assert len(plain) == len(positions)
    assert all(fold(text[place]) == character for place, character in zip(positions, plain, strict=True))
