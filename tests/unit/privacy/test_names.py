"""Names found by the words around them, and other mentions of the same names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.privacy.names import (
    Lexicon,
    Name,
    find_cued_names,
    find_cued_places,
    find_mentions,
    find_uncapitalised_names,
    is_full_name,
    is_in_mid_sentence,
    trim_name,
)

ENGLISH = Lexicon(
    others=frozenset("be send call fast great will ship shipped mark the is was here sign single on export".split()),
    nouns=frozenset("parcel customer invoice window setting care maria order desk".split()),
)


def find_people(*texts: str) -> list[list[str]]:
    names_by_text = find_mentions(texts, [list(find_cued_names(text, ENGLISH)) for text in texts], ENGLISH)
    return [[text[name.start : name.end] for name in names] for text, names in zip(texts, names_by_text, strict=True)]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Hi Ngozi,\nthe parcel is late.", ["Ngozi"]),
        ("hey ngozi, it is late", ["ngozi"]),
        ("Dear Mr. van der Berg,", ["van der Berg"]),
        ("Hello Zoë and Łukasz,", ["Zoë", "Łukasz"]),
        ("It came.\n\nKind regards,\nJürgen Weiß\nCustomer Care", ["Jürgen Weiß"]),
        ("It came. Cheers, Ngozi", ["Ngozi"]),
        ("From: Íñigo O'Brien <x@example.com>\nTo: Support", ["Íñigo O'Brien"]),
        ("My name is Nguyễn Văn Minh and I wait.", ["Nguyễn Văn Minh"]),
        ("I'm Ngozi Okafor from the shop.", ["Ngozi Okafor"]),
        ("This is Ngozi from the shop.", ["Ngozi"]),
        ("I spoke to Ngozi Okafor's colleague Jean-Luc.", ["Ngozi Okafor", "Jean-Luc"]),
        ("[09:14] Ngozi: hello", ["Ngozi"]),
        ("Cardholder: J. Okafor", ["J. Okafor"]),
        ("According to Dr Okafor it is broken.", ["Okafor"]),
    ],
)
def test_names_of_people_are_found_by_where_they_stand(text: str, names: list[str]) -> None:
    assert find_people(text) == [names]


@pytest.mark.parametrize(
    "text",
    [
        "Dear Sir or Madam,\n\nDear Customer,\n\nHi team,\n\nHello everyone,",
        "hi there, hey again, thanks so much, hello all!",
        "Kind regards,\nThe Finance Team",
        "Name: Support\nFrom: Sales",
        "I'm here. This is great. Mark the order as shipped.",
        "Export said no. Everything was fine.",
    ],
)
def test_words_that_name_nobody_stay(text: str) -> None:
    assert find_people(text) == [[]]


def test_a_name_found_once_is_found_wherever_it_or_a_part_of_it_is_mentioned() -> None:
    assert find_people("My name is Ngozi Okafor.", "Ngozi rang. OKAFOR did not; Okafor's phone", "send ngozi") == [
        ["Ngozi Okafor"],
        ["Ngozi", "OKAFOR", "Okafor"],
        [],
    ]


def test_a_word_of_the_language_is_no_mention_of_a_name() -> None:
    assert find_people("Hi Mark,\nhow are you?", "Mark all as read") == [["Mark"], []]


def test_an_address_names_its_owner_with_and_without_accents() -> None:
    assert find_people("write to jose.nunez@example.com", "José rang, then Núñez.") == [[], ["José", "Núñez"]]


def test_a_first_name_takes_its_unknown_last_name_along() -> None:
    assert find_people("Hi Ngozi,", "Give it to Ngozi Okafor today, Ngozi Invoice") == [["Ngozi"], ["Ngozi Okafor", "Ngozi"]]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Mrs Okafor", "Okafor"),
        ("Ngozi Okafor\nCustomer Care", "Ngozi Okafor"),
        ("Okafor's", "Okafor"),
        ("Lidingö? Amanda", "Lidingö"),
        ("Globex Corporation", None),
        ("KB631082D", None),
        ("the", None),
    ],
)
def test_only_the_part_of_a_text_that_is_a_name_counts(text: str, name: str | None) -> None:
    result = trim_name(text, 0, len(text))
    assert (result and text[result.start : result.end]) == name


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ngozi okafor", ["ngozi okafor"]),
        ("will okafor to tamsin's", ["okafor", "tamsin"]),  # `to` and `will` are words of the language
        ("ngozi\nokafor", ["ngozi", "okafor"]),
        ("maria okafor", ["maria okafor"]),
        ("maria", []),
        ("the customer", []),
    ],
)
def test_in_a_text_without_capitals_unknown_words_are_names(text: str, names: list[str]) -> None:
    result = find_uncapitalised_names(text, 0, len(text), Lexicon(others=ENGLISH.others | {"to"}, nouns=ENGLISH.nouns))
    assert [text[name.start : name.end] for name in result] == names


@pytest.mark.parametrize(
    ("before", "expected"), [("she named him ", True), ("from Mali, but ", True), ("Thanks. ", False), ("", False), ("I ", False)]
)
def test_a_capital_counts_after_a_word_in_lower_case(before: str, expected: bool) -> None:
    assert is_in_mid_sentence(f"{before}Mark", len(before), len(before) + 4) == expected
    assert not is_in_mid_sentence(f"{before}Mark Order", len(before), len(before) + 4)


@pytest.mark.parametrize(
    ("text", "expected"), [("Ngozi Okafor", True), ("Ngozi", False), ("Single Sign", False), ("Acme Bank", False), ("Parcel Desk", False)]
)
def test_a_full_name_is_neither_an_institution_nor_words_of_the_language(text: str, expected: bool) -> None:
    assert is_full_name(text, ENGLISH) == expected


def test_places_are_found_by_the_words_before_them() -> None:
    text = "I live in Zabrze. We moved to São Tomé.\nCity: Kisumu\nLook in Settings."
    assert [text[place.start : place.end] for place in find_cued_places(text, ENGLISH)] == ["Zabrze", "São Tomé", "Kisumu"]


@given(st.lists(st.text(alphabet=st.sampled_from("AaÉé. ,:\n'-@>0(") | st.characters(), max_size=80), max_size=4))
def test_names_lie_within_their_texts_in_order_and_do_not_overlap(texts: list[str]) -> None:
    names_by_text = find_mentions(texts, [list(find_cued_names(text, ENGLISH)) for text in texts], ENGLISH)
    for text, names in zip(texts, names_by_text, strict=True):
        ends = [Name(0, 0), *names]
        assert all(before.end <= name.start < name.end <= len(text) for before, name in zip(ends, names, strict=False))
