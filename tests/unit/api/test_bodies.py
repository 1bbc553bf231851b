"""What bodies are taken, and what is said of those that are not."""

import base64
import gzip
import json
from typing import Any

import pytest
from pydantic import JsonValue

from rlaas.api.http import MAX_BATCH_BYTES, MAX_BODY_BYTES, find_status, load_json, parse, read_body
from rlaas.errors import InvalidInput, PayloadTooLarge, UnsupportedEncoding
from rlaas.wire import Json, WireModel
from tests.fakes.gateway import make_proxy_event

LAMBDA_BYTES = 6 * 1024 * 1024
"""The largest event that Lambda takes."""
GATEWAY_HEADER_BYTES = 10_240
"""The most that API Gateway takes of all headers."""


class Note(WireModel):
    text: str
    more: Json = None


def event(content: bytes, **headers: str) -> dict[str, Any]:
    """A request with the body `content`, as API Gateway hands it on."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {**make_proxy_event("/v1/note", "", headers=named), "body": base64.b64encode(content).decode(), "isBase64Encoded": True}


def refusal(content: bytes, **headers: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as raised:
        parse(Note, event(content, **headers))
    return raised.value


def test_a_body_packed_by_gzip_is_unpacked() -> None:
    assert parse(Note, event(gzip.compress('{"text": "hé"}'.encode()), content_encoding="GZIP")).text == "hé"


def test_a_small_body_that_unpacks_to_a_huge_one_is_too_large_and_never_held_whole() -> None:
    bomb = gzip.compress(b" " * 200_000_000)
    assert len(bomb) < MAX_BODY_BYTES
    error = refusal(bomb, content_encoding="gzip")
    assert (find_status(error), type(error)) == (413, PayloadTooLarge)


@pytest.mark.parametrize(
    "content",
    [b'{"text": "a"}', gzip.compress(b'{"text": "a"}')[:-3], gzip.compress(b"{}") + b"{}", b""],
    ids=["plain", "cut off", "more behind it", "empty"],
)
def test_what_is_called_gzip_and_is_not_is_named(content: bytes) -> None:
    error = refusal(content, content_encoding="gzip")
    assert (find_status(error), error.param) == (400, "Content-Encoding")


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, br", "x"])
def test_another_packing_is_named_with_the_one_that_is_taken(encoding: str) -> None:
    error = refusal(b"...", content_encoding=encoding)
    assert (find_status(error), error.param, type(error)) == (415, "Content-Encoding", UnsupportedEncoding)
    assert "gzip" in error.detail


def test_a_byte_order_mark_is_taken() -> None:
    assert parse(Note, event(b'\xef\xbb\xbf{"text": "a"}')).text == "a"
    assert parse(Note, make_proxy_event("/v1/note", '\ufeff{"text": "a"}')).text == "a"


@pytest.mark.parametrize(
    ("content", "byte", "position"),
    [(b'{"text": "caf\xe9"}', "0xe9", 13), (b'{"text": "\xed\xa0\x80"}', "0xed", 10), (b'\xef\xbb\xbf{"text": "\xff"}', "0xff", 13)],
)
def test_a_byte_that_is_no_utf_8_is_named_with_its_position(content: bytes, byte: str, position: int) -> None:
    assert content[position] == int(byte, 16)
    assert refusal(content).detail == f"the body is not UTF-8: byte {byte} at position {position}"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_utf_16_is_named_by_every_reader(encoding: str) -> None:
    content = '{"text": "a"}'.encode(encoding)
    assert "UTF-16" in refusal(content).detail
    with pytest.raises(InvalidInput, match="UTF-16"):
        read_body(event(content))


@pytest.mark.parametrize("content", [b"", b"  \n", b"\xef\xbb\xbf"])
def test_an_empty_body_is_called_empty(content: bytes) -> None:
    assert "empty" in refusal(content).detail
    with pytest.raises(InvalidInput, match="empty"):
        parse(Note, {**make_proxy_event("/v1/note", ""), "body": None})


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(number: str) -> None:
    assert find_status(refusal(f'{{"text": "a", "more": [{number}]}}'.encode())) == 400
    if number != "1e999":
        with pytest.raises(InvalidInput, match="not valid JSON"):
            load_json(number.encode())


def test_of_a_key_given_twice_the_last_counts_for_every_reader() -> None:
    twice = b'{"text": "first", "text": "last", "more": {"a": 1, "a": 2}}'
    note = parse(Note, event(twice))
    expected: JsonValue = {"text": note.text, "more": note.more}
    assert load_json(twice) == expected == {"text": "last", "more": {"a": 2}}


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""])
def test_another_content_type_is_named(content_type: str) -> None:
    assert refusal(b"{}", content_type=content_type).param == "Content-Type"


def test_the_largest_body_fits_the_largest_event_of_lambda() -> None:
    sent = event(b"x" * MAX_BATCH_BYTES)
    assert len(json.dumps(sent)) + 3 * GATEWAY_HEADER_BYTES < LAMBDA_BYTES  # each header stands in it twice
