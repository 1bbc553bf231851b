"""After masking, JSON is still JSON of the same shape, and its escapes hide no personal data."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaas.chat import Message, ToolCall
from rlaas.policies.guardrails.checks import check_input, check_output
from rlaas.policies.guardrails.guardrail_list import Guardrails
from rlaas.privacy.reading import read_text
from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import PrivacySettings
from rlaas.telemetry.events import InteractionCreated
from rlaas.telemetry.scrubbing import scrub_events

SCRUBBER = Scrubber(PrivacySettings(), salt=b"s" * 32)
CARD = "4111111111111111"
MAIL = "ada@shop.example"


def clean(text: str) -> str:
    return SCRUBBER.scrub([text])[0]


def make_call(arguments: str) -> ToolCall:
    return ToolCall.model_validate({"id": "call_1", "type": "function", "function": {"name": "refund", "arguments": arguments}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f'{{"card": {CARD}, "to": "{MAIL}"}}', '{"card": "<CREDIT_CARD>", "to": "<EMAIL_ADDRESS>"}'),
        (f'{{ "n":1.50,\n "to" : "for {MAIL}!" }}', '{ "n":1.50,\n "to" : "for <EMAIL_ADDRESS>!" }'),  # the rest is the same to the byte
        (f"[{CARD}, -4111111111111111, 17]", '["<CREDIT_CARD>", "<CREDIT_CARD>", 17]'),
        (r'{"card": "\u0034\u0031\u0031\u0031 1111 1111 1111", "note": "a\nb\u00e9"}', r'{"card": "<CREDIT_CARD>", "note": "a\nb\u00e9"}'),
        (rf'{{"note": "to\n{MAIL}\nor \ud83d\ude00{MAIL}"}}', r'{"note": "to\n<EMAIL_ADDRESS>\nor \ud83d\ude00<EMAIL_ADDRESS>"}'),
        ('{"ssn": "457555462"}', '{"ssn": "<US_SSN>"}'),  # the name beside it says what it is
        (f'{{"{MAIL}": 1, "b@shop.example": {{"{MAIL}": 3}}}}', '{"<EMAIL_ADDRESS>": 1, "<EMAIL_ADDRESS> (2)": {"<EMAIL_ADDRESS>": 3}}'),
        (f'{{"a": {CARD}, "a": {CARD}}}', '{"a": "<CREDIT_CARD>", "a": "<CREDIT_CARD>"}'),
        (f'```json\n{{"card": {CARD}}}\n```', '```json\n{"card": "<CREDIT_CARD>"}\n```'),
        (f'["4111","1111 1111 1111 {CARD}"]', '["4111","1111 1111 1111 <CREDIT_CARD>"]'),
        (f'{{"cut": "{MAIL}", "off": {CARD}', '{"cut": "<EMAIL_ADDRESS>", "off": "<CREDIT_CARD>"'),
        (rf'[{{"in": "a text\n{MAIL} an', r'[{"in": "a text\n<EMAIL_ADDRESS> an'),
        (f'{{"{MAIL}', '{"<EMAIL_ADDRESS>'),
        (f'{{"a": {CARD}}}\n{{"b": "{MAIL}"}}\n', '{"a": "<CREDIT_CARD>"}\n{"b": "<EMAIL_ADDRESS>"}\n'),
        (f'Ask {MAIL}: {{"a": {CARD}}}, [1], {CARD}.', 'Ask <EMAIL_ADDRESS>: {"a": "<CREDIT_CARD>"}, [1], <CREDIT_CARD>.'),
        (f"Dear {{{{ name }}}}, {CARD}", "Dear {{ name }}, <CREDIT_CARD>"),
        (CARD, "<CREDIT_CARD>"),
        (f"[see {CARD}]", "[see <CREDIT_CARD>]"),
    ],
)
def test_json_stays_json_and_all_else_stays_as_it_was(text: str, expected: str) -> None:
    assert clean(text) == expected
    assert clean(expected) == expected


def test_json_within_the_strings_of_json_stays_json_as_well() -> None:
    text = json.dumps({"arguments": json.dumps({"card": int(CARD), "more": json.dumps([MAIL, int(CARD)])})})
    outer = json.loads(clean(text))
    inner = json.loads(outer["arguments"])
    assert inner["card"] == "<CREDIT_CARD>"
    assert json.loads(inner["more"]) == ["<EMAIL_ADDRESS>", "<CREDIT_CARD>"]


@pytest.mark.parametrize(("action", "card"), [("drop", ""), ("hash", r"<CREDIT_CARD:[0-9a-f]{16}>"), ("keep", CARD)])
def test_every_action_leaves_json(action: str, card: str) -> None:
    scrubber = Scrubber(PrivacySettings.model_validate({"actions": {"CREDIT_CARD": action}}), salt=b"s" * 32)
    (text,) = scrubber.scrub([f'{{"card": {CARD}, "same": "4111 1111 1111 1111"}}'])
    result = json.loads(text)
    assert re.fullmatch(card, str(result["card"]))
    if action == "hash":
        assert result["card"] == result["same"]


def test_a_tool_call_with_masked_arguments_can_be_made_and_sent_back() -> None:
    config = Guardrails.model_validate_json(json.dumps({"input": [{"kind": "pii"}], "output": [{"kind": "pii_leak"}]}))
    arguments = f'{{"card": {CARD}, "to": "{MAIL}"}}'
    verdict = check_output(config, "", tool_calls=[make_call(arguments)])
    assert json.loads(verdict.tool_calls[0].function.arguments) == {"card": "<CREDIT_CARD>", "to": "<EMAIL_ADDRESS>"}
    history = [
        Message(role="assistant", content="", tool_calls=(make_call(arguments),)),
        Message(role="tool", tool_call_id="call_1", content=f"[{CARD}]"),
    ]
    incoming = check_input(config, history)
    assert json.loads(incoming.messages[0].tool_calls[0].function.arguments) == {"card": "<CREDIT_CARD>", "to": "<EMAIL_ADDRESS>"}
    assert json.loads(incoming.messages[1].content) == ["<CREDIT_CARD>"]


def test_data_of_the_request_is_no_leak_however_the_answer_writes_it() -> None:
    config = Guardrails.model_validate_json(json.dumps({"output": [{"kind": "pii_leak"}]}))
    messages = [Message(role="user", content="Refund 4111 1111 1111 1111")]
    assert check_output(config, "", tool_calls=[make_call(f'{{"card": {CARD}}}')], messages=messages).actions == ()


def test_a_listed_term_is_taken_out_of_json_by_its_rules() -> None:
    config = Guardrails.model_validate_json(
        json.dumps({"output": [{"kind": "block_list", "action": "redact", "terms": ["project x"], "patterns": ["77[0-9]+"]}]})
    )
    verdict = check_output(config, r'{"on": "Project\u0020X now", "of": 7712, "ids": [1, 2]}')
    assert json.loads(verdict.text) == {"on": "<BLOCKED> now", "of": "<BLOCKED>", "ids": [1, 2]}


def test_metadata_keeps_its_shape_and_loses_personal_numbers() -> None:
    metadata = {
        "card": int(CARD),
        MAIL: 1,
        "bob@shop.example": 2.5,
        "deep": [{"card": CARD, "vip": True, "none": None}],
        "ssn": "457555462",
    }
    event = InteractionCreated.model_validate({"interaction_id": "i1", "skill": "reply", "inputs": {"q": "hi"}, "metadata": metadata})
    (stored,) = scrub_events([event], SCRUBBER)
    assert stored.metadata == {
        "card": "<CREDIT_CARD>",
        "<EMAIL_ADDRESS>": 1,
        "<EMAIL_ADDRESS> (2)": 2.5,
        "deep": [{"card": "<CREDIT_CARD>", "vip": True, "none": None}],
        "ssn": "<US_SSN>",
    }


CARDS = st.sampled_from([CARD, "5555555555554444", "378282246310005"])
WORDS = st.text('abc "\\\n\té😀\u2028{}[]:,0', max_size=12)
PLANTED = st.one_of(CARDS.map(int), CARDS, st.tuples(WORDS, CARDS, WORDS).map(lambda parts: " ".join(parts)))
VALUES = st.recursive(
    PLANTED | WORDS | st.integers(0, 99) | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | CARDS, inner, max_size=4) | inner.map(json.dumps),
    max_leaves=20,
)


def hide_digits(text: str) -> str:
    """The JSON `text` with every other digit of its strings as an escape."""

    def hide(match: re.Match[str]) -> str:
        if "\\" in match[0]:
            return match[0]
        return "".join(
            f"\\u{ord(character):04x}" if character.isdigit() and place % 2 else character for place, character in enumerate(match[0])
        )

    return re.sub(r'"(?:[^"\\]|\\.)*"', hide, text)


def read_shape(value: Any) -> Any:
    """What of `value` masking leaves: its lists and objects, and where texts and other values stand."""
    if isinstance(value, list):
        return [read_shape(item) for item in value]
    if isinstance(value, dict):
        return [read_shape(item) for item in value.values()]
    return (
        "text"
        if isinstance(value, str) or (isinstance(value, int) and str(value) in (CARD, "5555555555554444", "378282246310005"))
        else value
    )


@settings(max_examples=300, deadline=None)
@given(VALUES, st.booleans(), st.booleans())
def test_any_json_keeps_its_shape_and_no_card(value: Any, ascii_only: bool, hide: bool) -> None:
    text = json.dumps([value], ensure_ascii=ascii_only)
    text = hide_digits(text) if hide else text
    masked_text = clean(text)
    result = json.loads(masked_text)
    assert read_shape(result) == read_shape(json.loads(text))
    assert not any(card in read_text(masked_text).text for card in (CARD, "5555555555554444", "378282246310005"))


def test_work_grows_no_faster_than_the_text() -> None:
    for unit in ('["', '{"a":"\\"', f'{{"card": {CARD}}},', '\\"', "[" * 50, '"\\u0034'):
        text = (unit * 60_000)[:250_000]
        assert read_text(text).text
    nested = "x"
    while len(nested) < 200_000:
        nested = json.dumps([nested, CARD])
    assert CARD not in read_text(clean(nested)).text
    many = json.dumps({f"k{number}": f"{MAIL} {number}" for number in range(8_000)})
    assert MAIL not in clean(many)
