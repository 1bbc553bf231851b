import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.adapters.models.server_sent_events import MAX_LINE_BYTES, event_data
from rlaas.chat import BackendFailed

STREAM = (
    '\ufeff: hello\nevent: greeting\ndata: {"text": "grüß"}\n\nid: 1\ndata:two\ndata:  lines\n\n\nretry: 5\n\ndata: 世界\n\ndata: [DONE]'
)
EVENTS = ['{"text": "grüß"}', "two\n lines", "世界", "[DONE]"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@given(cuts=st.lists(st.integers(0, 200), max_size=12))
def test_events_are_the_same_however_the_bytes_are_cut(end: str, cuts: list[int]) -> None:
    stream = STREAM.replace("\n", end).encode()
    places = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    chunks = [stream[start:stop] for start, stop in pairwise(places)]
    assert [data.decode() for data in event_data(chunks)] == EVENTS


def test_one_byte_at_a_time() -> None:
    stream = STREAM.replace("\n", "\r\n").encode()
    assert [data.decode() for data in event_data(stream[at : at + 1] for at in range(len(stream)))] == EVENTS


def test_an_event_is_told_as_soon_as_its_blank_line_is_here() -> None:
    def chunks() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        raise AssertionError("asked for more")

    assert next(event_data(chunks())) == b"1"


def test_json_objects_without_a_blank_line_between_them_are_events_of_their_own() -> None:
    written = b'data: {"a": {\ndata: "b": 1}\ndata: }\ndata: {"c": 2}\ndata: [DONE]\n'
    assert list(event_data([written])) == [b'{"a": {\n"b": 1}\n}', b'{"c": 2}', b"[DONE]"]


def test_a_line_without_end_is_given_up() -> None:
    endless = (b"x" * 65_536 for _ in range(MAX_LINE_BYTES // 65_536 + 1))
    with pytest.raises(BackendFailed):
        list(event_data(endless))


@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_a_json_object_in_place_of_a_stream_is_one_event(cut: int) -> None:
    document = b'\n{\n  "error": {\n    "message": "no",\n\n    "code": 502\n  }\n}\n'
    [data] = event_data(document[at : at + cut] for at in range(0, len(document), cut))
    assert json.loads(data) == {"error": {"message": "no", "code": 502}}


def test_a_web_page_in_place_of_a_stream_has_no_events() -> None:
    assert list(event_data([b"<!doctype html>\n<html><body>\n502: bad gateway\n</body></html>"])) == []
