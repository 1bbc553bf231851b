"""Scrubbing: what is found, what stays, and what replaces it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaas.errors import DependencyUnavailable, InvalidInput
from rlaas.privacy.scrub import EntityFinder, Scrubber
from rlaas.privacy.settings import (
    MODEL_ENTITIES,
    PATTERN_ENTITIES,
    CustomEntity,
    ModelEntity,
    PrivacySettings,
    SearchBudget,
    check_custom,
    compile_pattern,
)
from tests.fakes.entities import WordFinder

BY_DEFAULT = Scrubber(PrivacySettings(), salt=b"pinch")


def make_scrubber(finder: EntityFinder | None = None, **settings: object) -> Scrubber:
    return Scrubber(PrivacySettings.model_validate(settings, strict=False), salt=b"pinch", finder=finder)


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("ada.park+news@mail.example.co.uk", "EMAIL_ADDRESS"),
        ("müller@bücher.example", "EMAIL_ADDRESS"),
        ("4111 1111 1111 1111", "CREDIT_CARD"),
        ("378282246310005", "CREDIT_CARD"),
        ("6011-1111-1111-1117", "CREDIT_CARD"),
        ("GB82 WEST 1234 5698 7654 32", "IBAN_CODE"),
        ("de89370400440532013000", "IBAN_CODE"),
        ("NO93 8601 1117 947", "IBAN_CODE"),
        ("536-90-4399", "US_SSN"),
        ("536 90 4399", "US_SSN"),
        ("536.90.4399", "US_SSN"),
        ("4222222222222", "CREDIT_CARD"),
        ("3782 822463 10005", "CREDIT_CARD"),
        ("6304 0000 0000 0000 000", "CREDIT_CARD"),
        ("gb82 west 1234 5698 7654 32", "IBAN_CODE"),
        ("GB82-WEST-1234-5698-7654-32", "IBAN_CODE"),
        ("192.168.1.17", "IP_ADDRESS"),
        ("2001:DB8:0:0:8A2E:370:7334:1", "IP_ADDRESS"),
        ("::ffff:192.0.2.128", "IP_ADDRESS"),
        ("fe80::", "IP_ADDRESS"),
        ("2001:db8::8a2e:370:7334", "IP_ADDRESS"),
        ("::1", "IP_ADDRESS"),
        ("+44 20 7946 0958", "PHONE_NUMBER"),
        ("+1 (415) 555-2671", "PHONE_NUMBER"),
        ("0049 30 901820", "PHONE_NUMBER"),
        ("+44 (0)20 7946 0958", "PHONE_NUMBER"),
        ("+1.415.555.2671", "PHONE_NUMBER"),
        ("+49/30/901820-12", "PHONE_NUMBER"),
        ("+33-1-44-55-66-77", "PHONE_NUMBER"),
        ("+442079460958", "PHONE_NUMBER"),
        ("+254 722 123456", "PHONE_NUMBER"),
        ("+1 415-555-2671 ext. 12", "PHONE_NUMBER"),
        ("+44\u00a020\u00a07946\u00a00958", "PHONE_NUMBER"),
        ("+44\u201120\u20117946\u20110958", "PHONE_NUMBER"),
        ("00 44 20 7946 0958", "PHONE_NUMBER"),
        ("011 44 20 7946 0958", "PHONE_NUMBER"),
        ("(415) 555-2671", "PHONE_NUMBER"),
        ("020 7946 0958", "PHONE_NUMBER"),
        ("https://example.com/a?b=1#c", "URL"),
        ("www.example.com/path", "URL"),
        ("00:1A:2B:3C:4D:5E", "MAC_ADDRESS"),
        ("001A.2B3C.4D5E", "MAC_ADDRESS"),
        ("4111\u00a01111\u00a01111\u00a01111", "CREDIT_CARD"),
        ("4111\u20111111\u20111111\u20111111", "CREDIT_CARD"),
        ("\u0664\u0661\u0661\u0661" + "\u0661" * 12, "CREDIT_CARD"),
        ("ada\uff20example.com", "EMAIL_ADDRESS"),
        ("1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2", "CRYPTO"),
        ("943 476 5919", "UK_NHS"),
    ],
)
def test_what_looks_like_personal_data_and_passes_its_checksum_is_masked(text: str, entity: str) -> None:
    assert BY_DEFAULT.scrub([f"It is {text}, thanks."]) == [f"It is <{entity}>, thanks."]


@pytest.mark.parametrize(
    "text",
    [
        "order 4412223155 of 2024-01-02 at 12:30:45",
        "4111 1111 1111 1112 has a wrong check digit",
        "GB82 WEST 1234 5698 7654 33",
        "version 1.2.3, section 4.5.6",
        "999.1.1.1 and 12:34:56",
        "000-12-3456 and 666-12-3456",
        "it costs 1,234,567.89 or 39.99",
        "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3",
        "a@b, @ada, me @ home",
        "invoice 2024/11/0001234",
    ],
)
def test_what_only_resembles_personal_data_stays(text: str) -> None:
    assert BY_DEFAULT.scrub([text]) == [text]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("+44 20 7946 0958 4111 1111 1111 1111", "<PHONE_NUMBER> <CREDIT_CARD>"),
        ("+1 415 555 2671 2024-05-06", "<PHONE_NUMBER> 2024-05-06"),
        ("+44 20 7946 0958, +1 415 555 2671", "<PHONE_NUMBER>, <PHONE_NUMBER>"),
        ("[2001:db8::1]:8080 and 10.0.0.0/8", "[<IP_ADDRESS>]:8080 and <IP_ADDRESS>/8"),
        ("GB82 WEST 1234 5698 7654 32 is mine", "<IBAN_CODE> is mine"),
    ],
)
def test_what_stands_beside_a_number_does_not_hide_it(text: str, clean: str) -> None:
    assert BY_DEFAULT.scrub([text]) == [clean]


def test_each_kind_gets_what_the_tenant_wants_in_its_place() -> None:
    scrubber = make_scrubber(actions={"EMAIL_ADDRESS": "hash", "URL": "drop", "IP_ADDRESS": "keep"})
    [text] = scrubber.scrub(["a@example.com https://example.com 10.0.0.1 +44 20 7946 0958"])
    assert text.startswith("<EMAIL_ADDRESS:")
    assert text.endswith(">  10.0.0.1 <PHONE_NUMBER>")


def test_a_hash_is_the_same_within_a_tenant_and_another_for_others() -> None:
    settings = PrivacySettings(actions={"EMAIL_ADDRESS": "hash"})
    ours, theirs = Scrubber(settings, salt=b"ours"), Scrubber(settings, salt=b"theirs")
    first, second = ours.scrub(["from a@example.com", "to a@example.com"])
    assert first.removeprefix("from ") == second.removeprefix("to ")
    assert theirs.scrub(["from a@example.com"]) != [first]


@pytest.mark.parametrize(
    ("entity", "ways"),
    [
        ("CREDIT_CARD", ["4111 1111 1111 1111", "4111111111111111", "4111-1111-1111-1111", "4111\u00a01111\u00a01111\u00a01111"]),
        ("EMAIL_ADDRESS", ["ada@example.com", "Ada@Example.com", "a\u200bda@example.com"]),
        ("IBAN_CODE", ["GB82 WEST 1234 5698 7654 32", "gb82west12345698765432"]),
        ("PHONE_NUMBER", ["+44 20 7946 0958", "+442079460958", "+44 (20) 7946-0958"]),
        ("MAC_ADDRESS", ["00:1A:2B:3C:4D:5E", "00-1a-2b-3c-4d-5e", "001A.2B3C.4D5E"]),
    ],
)
def test_all_ways_to_write_the_same_have_one_hash(entity: str, ways: list[str]) -> None:
    scrubber = make_scrubber(actions={entity: "hash"})
    hashes = set(scrubber.scrub(ways))
    assert len(hashes) == 1
    assert hashes.pop().startswith(f"<{entity}:")


class CountingAllowList(frozenset[str]):
    """Counts how often it is asked."""

    lookups = 0

    def __contains__(self, text: object) -> bool:
        self.lookups += 1
        return super().__contains__(text)


def test_a_text_full_of_finds_takes_one_look_at_each() -> None:
    scrubber = make_scrubber()
    scrubber.__dict__["_allowed"] = allowed = CountingAllowList()
    finds = 20_000
    [text] = scrubber.scrub(["10.0.0.1 " * finds])
    assert text == "<IP_ADDRESS> " * finds
    assert allowed.lookups == finds


def test_texts_on_the_allow_list_stay() -> None:
    scrubber = make_scrubber(allow=["help@example.com"])
    assert scrubber.scrub(["help@example.com, a@example.com"]) == ["help@example.com, <EMAIL_ADDRESS>"]


def test_characters_without_width_hide_nothing() -> None:
    assert BY_DEFAULT.scrub(["to a\u200bda@exam\u00adple.com now"]) == ["to <EMAIL_ADDRESS> now"]


def test_of_overlapping_finds_the_longest_counts() -> None:
    assert BY_DEFAULT.scrub(["see https://example.com/?mail=a@example.com&ip=10.0.0.1 now"]) == ["see <URL> now"]


@given(st.lists(st.text(max_size=200), max_size=5))
def test_texts_keep_their_number_and_are_clean_after_one_pass(texts: list[str]) -> None:
    once = BY_DEFAULT.scrub(texts)
    assert len(once) == len(texts)
    assert BY_DEFAULT.scrub(once) == once


# A tenant's own kinds


def test_a_kind_of_the_tenants_own_is_found_by_its_expression() -> None:
    scrubber = make_scrubber(custom=[{"name": "CUSTOMER_NUMBER", "pattern": r"\bC-\d{6}\b", "action": "mask"}])
    assert scrubber.scrub(["Customer C-123456 wrote"]) == ["Customer <CUSTOMER_NUMBER> wrote"]


@pytest.mark.parametrize("pattern", [r"(a)\1", r"(?=a)b", "(", "a*", "(a{1000}){1000}"])
def test_an_expression_that_is_not_linear_or_matches_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError):
        CustomEntity(name="MINE", pattern=pattern)


def test_a_built_in_kind_cannot_be_redefined() -> None:
    with pytest.raises(ValidationError, match="choose its action"):
        CustomEntity(name="EMAIL_ADDRESS", pattern="a")


def test_an_expression_that_would_backtrack_for_ever_elsewhere_ends() -> None:
    scrubber = make_scrubber(custom=[{"name": "TRAP", "pattern": "(a+)+$"}])
    text = "a" * 50_000 + "b"
    assert scrubber.scrub([text]) == [text]


# Names, which a model finds


def test_the_model_is_asked_once_for_all_texts_and_only_where_the_tenant_wants_it() -> None:
    model = WordFinder()
    texts = ["Hi Ada Park", "a@example.com", "Bye"]
    assert make_scrubber(model, actions={"PERSON": "mask"}).scrub(texts) == ["Hi <PERSON>", "<EMAIL_ADDRESS>", "Bye"]
    assert model.requests == [(texts, ["PERSON"])]
    make_scrubber(model).scrub(["Hi Ada Park"])
    assert len(model.requests) == 1


@pytest.mark.parametrize("finder", [None, WordFinder(down=True)])
def test_without_the_model_that_the_settings_need_scrubbing_fails(finder: EntityFinder | None) -> None:
    with pytest.raises(DependencyUnavailable):
        make_scrubber(finder, actions={"PERSON": "mask"}).scrub(["Hi Ada Park"])


def test_a_name_on_the_allow_list_stays() -> None:
    assert make_scrubber(WordFinder(), actions={"PERSON": "mask"}, allow=["Ada Park"]).scrub(["Hi Ada Park"]) == ["Hi Ada Park"]


def test_a_name_has_one_hash_however_it_is_spaced_and_cased() -> None:
    words: dict[str, ModelEntity] = {"Ada Park": "PERSON", "ada\u00a0PARK": "PERSON", "Ada\n  Park": "PERSON"}
    hashes = make_scrubber(WordFinder({word.replace("\u00a0", " "): "PERSON" for word in words}), actions={"PERSON": "hash"}).scrub(
        list(words)
    )
    assert len(set(hashes)) == 1
    assert hashes[0].startswith("<PERSON:")


def test_characters_without_width_hide_no_name() -> None:
    assert make_scrubber(WordFinder(), actions={"PERSON": "mask"}).scrub(["Hi A\u200bda Pa\u00adrk!"]) == ["Hi <PERSON>!"]


def test_half_a_surrogate_pair_shifts_no_position() -> None:
    assert make_scrubber(WordFinder(), actions={"PERSON": "mask"}).scrub(["\ud83d Hi Ada Park"]) == ["\ud83d Hi <PERSON>"]


@pytest.mark.parametrize(
    ("words", "text", "clean"),
    [
        (["Ada ada@example.com"], "Ada ada@example.com", "<PERSON><EMAIL_ADDRESS>"),
        (["Ada <ada"], "To: Ada <ada@example.com>", "To: <PERSON><EMAIL_ADDRESS>>"),
        (["example.com Bo"], "ada@example.com Bo", "<EMAIL_ADDRESS><PERSON>"),
        (["ada@example.com"], "ada@example.com", "<EMAIL_ADDRESS>"),
        (["ada@example.com,"], "ada@example.com, hi", "<EMAIL_ADDRESS>, hi"),
        (["Ada 10.0.0.1 Bo"], "Ada 10.0.0.1 Bo", "<PERSON><IP_ADDRESS><PERSON>"),
        (["Ada Park", "Park Lane"], "Ada Park Lane", "<PERSON><PERSON>"),
    ],
)
def test_where_finds_overlap_the_pattern_counts_and_the_rest_does_not_leak(words: list[str], text: str, clean: str) -> None:
    model = WordFinder(dict.fromkeys(words, "PERSON"))
    assert make_scrubber(model, actions={"PERSON": "mask"}).scrub([text]) == [clean]


def test_every_kind_has_an_action_by_default() -> None:
    settings = PrivacySettings()
    assert {settings.action(entity) for entity in PATTERN_ENTITIES} == {"mask"}
    assert {settings.action(entity) for entity in MODEL_ENTITIES} == {"keep"}


def test_an_expression_that_looks_to_the_end_for_each_find_is_stopped_and_lets_nothing_through() -> None:
    work, text = SearchBudget(left=100_000), "x" * 10_000
    finds = [*work.find_all(compile_pattern("x.*y|x"), text)]
    assert len(finds) < 50
    assert [*range(len(text))] == [place for start, end in finds for place in range(start, end)]
    assert len([*SearchBudget().find_all(compile_pattern("[0-9]+"), "1 " * 5_000)]) == 5_000


@pytest.mark.parametrize("patterns", [["([a-z]{1,30}){1,30}Z"], ["(?:ab){1,200}c"] * 9])
def test_expressions_of_too_many_instructions_are_refused(patterns: list[str]) -> None:
    custom = tuple(CustomEntity(name=f"C{at}", pattern=pattern) for at, pattern in enumerate(patterns))
    with pytest.raises(InvalidInput, match="instructions"):
        check_custom(PrivacySettings(custom=custom))
    check_custom(PrivacySettings(custom=(CustomEntity(name="C", pattern=r"\bCUST-\d{4,12}\b"),)))
