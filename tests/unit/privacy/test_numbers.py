"""Cards and phone numbers beside other numbers, and phones that words beside them give away."""

import re

import pytest

from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import PrivacySettings

BY_DEFAULT = Scrubber(PrivacySettings(), salt=b"pinch")


def clean(text: str) -> str:
    return BY_DEFAULT.scrub([text])[0]


@pytest.mark.parametrize(
    "card", ["4111 1111 1111 1111", "4111-1111-1111-1111", "4111111111111111", "3782 822463 10005", "6304 0000 0000 0000 000"]
)
@pytest.mark.parametrize(
    "line",
    [
        "{} 12/27",
        "{} 12/27 123",
        "Card {} 123 please",
        "{} 05 28",
        "2026 {}",
        "Order 4471 {}",
        "1. {}",
        "{}/123",
        "My card is {}, exp 12/27",
        "20261127 4471 {} 0528 737",
        "No.{}",
    ],
)
def test_a_card_is_masked_whatever_numbers_stand_beside_it(card: str, line: str) -> None:
    assert clean(line.format(card)) == line.format("<CREDIT_CARD>")


@pytest.mark.parametrize(
    "card",
    [
        "4111.1111.1111.1111",
        "4111 1111\n1111 1111",
        "4111  1111  1111  1111",
        "4111 - 1111 - 1111 - 1111",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        "41 11 11 11 11 11 11 11",
        "41111111 11111111",
        "2200 0000 0000 0004",
        "180016070420458",
        "213176828496175",
        "060426070011",
        "1111 2222 3333 4444",
    ],
)
def test_a_card_is_masked_however_it_is_grouped_and_of_whatever_network(card: str) -> None:
    assert clean(f"It is {card}, thanks") == "It is <CREDIT_CARD>, thanks"


def test_a_card_of_an_unknown_network_is_masked_where_a_word_says_that_it_is_one() -> None:
    assert clean("my debit card number is 100000000000009") == "my debit card number is <CREDIT_CARD>"
    assert clean("the meter shows 100000000000009") == "the meter shows 100000000000009"


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112 12/27",
        "score 0.4111111111111111",
        "order 2026-11-27 9471 5523 1234",
        "1732669512345 ms",
        "0000 0000 0000 0000",
        "Debit the checking account 632825788169.",
    ],
)
def test_what_only_resembles_a_card_stays(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("text", "phone"),
    [
        ("Phone: 60-56-85-91", "60-56-85-91"),
        ("Please call me at 0494 92 82 32, I am in", "0494 92 82 32"),
        ("Can someone call me on 9472 7916? Thanks", "9472 7916"),
        ("Phone: (99) 645-791", "(99) 645-791"),
        ("They are not answering at 78 651 450", "78 651 450"),
        ("my registered mobile 668 5702.", "668 5702"),
        ("416 60 039 office", "416 60 039"),
        ("085 175 7641-Office", "085 175 7641"),
        ('{"phone": "5403926876"}', "5403926876"),
        ("Tel.: 01.84.17.61.18", "01.84.17.61.18"),
        ("Fax\n930 167 394", "930 167 394"),
        ("WhatsApp 0961-7596216", "0961-7596216"),
        ("Mobil: 0171 1234567", "0171 1234567"),
        ("My number is 699 956 915", "699 956 915"),
        ("Ring 833.719.3994x1887 now", "833.719.3994x1887"),
        ("Dial 166-684-7899 and", "166-684-7899"),
        ("it is 06 12 34 56 78 as before", "06 12 34 56 78"),
        ("it is 930-167-3943 as before", "930-167-3943"),
    ],
)
def test_a_phone_number_is_masked_where_words_or_its_grouping_give_it_away(text: str, phone: str) -> None:
    assert clean(text) == text.replace(phone, "<PHONE_NUMBER>")


@pytest.mark.parametrize(
    "text",
    [
        "Call me about order 4412223155",
        "Please call back on ticket 4471-2231-99",
        "I called on 2024-05-06 and on 06.05.2024",
        "Ring me at 10.30-11.30",
        "The call costs 1 000 000 EUR",
        "The text on invoice 2024-1234567 is wrong",
        "We contacted case 00412345",
        "I phoned twice. Order 20261127 has not come",
        "Reach $1234567 or 1234567%",
        "the contact at 10.0.0.1",
    ],
)
def test_other_numbers_near_such_words_stay(text: str) -> None:
    scrubber = Scrubber(PrivacySettings(actions={"IP_ADDRESS": "keep"}), salt=b"pinch")
    assert scrubber.scrub([text]) == [text]


def test_the_number_of_a_card_is_no_phone_number() -> None:
    assert clean("Order 4471 4111 1111 1111 1111") == "Order 4471 <CREDIT_CARD>"
    assert not re.search("PHONE", clean("4111 1111 1111 1111 call 0494 92 82 32 x")[:20])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from A099::09C0:876A:130B to", "from <IP_ADDRESS> to"),
        ("not 2001::25de::cade here", "not 2001::25de::cade here"),
        ("It is 2001:db8::1.", "It is <IP_ADDRESS>."),
    ],
)
def test_an_address_is_masked_whole_or_not_at_all(text: str, expected: str) -> None:
    assert clean(text) == expected
