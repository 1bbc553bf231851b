"""Images, sounds and files: what they say of themselves, and what of them is kept."""

import base64
import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rlaas.chat import Message
from rlaas.parts import Part, read_part

PIXEL = b"\x89PNG\r\n\x1a\n-pixel"
PNG = f"data:image/png;base64,{base64.b64encode(PIXEL).decode()}"
LINK = "https://pictures.example/a.png?signature=s3cret"


def parse(**fields: Any) -> Part:
    return Part.model_validate_json(json.dumps(fields))


@pytest.mark.parametrize("build", [parse, Part])
def test_a_part_says_what_its_data_is_and_its_data_is_in_no_dump(build: Any) -> None:
    part = build(type="image", url=PNG, detail="low", sha256="0" * 64, size=1)
    reference = {"type": "image", "media_type": "image/png", "sha256": hashlib.sha256(PIXEL).hexdigest(), "size": len(PIXEL)}
    assert part.model_dump(exclude_none=True) == {**reference, "detail": "low", "at": 0}
    assert json.loads(part.model_dump_json(exclude_none=True)) == part.model_dump(exclude_none=True)
    assert PNG not in repr(Message(role="user", content="", parts=(part,)))
    assert part == read_part("image", PNG, detail="low")


def test_a_link_is_kept_as_its_hash_alone() -> None:
    part = read_part("image", LINK)
    assert (part.url, part.data, part.media_type, part.sha256) == (LINK, None, None, hashlib.sha256(LINK.encode()).hexdigest())
    assert "s3cret" not in part.model_dump_json()


def test_what_was_stored_is_read_again_without_its_data() -> None:
    stored = Message.model_validate_json(Message(role="user", content="Hi", parts=(read_part("image", PNG),)).model_dump_json())
    assert stored.parts[0].url is None
    assert stored.parts[0].sha256 == hashlib.sha256(PIXEL).hexdigest()


@pytest.mark.parametrize(
    ("part_type", "url"),
    [
        ("image", "data:image/png;base64,%%%"),
        ("image", "data:image/png,raw"),
        ("image", "data:image/png;base64,"),
        ("image", "data:;base64,AAAA"),
        ("image", "data:image/svg+xml;base64,PHN2Zz4="),
        ("image", "data:application/pdf;base64,JVBERg=="),
        ("audio", "data:audio/x-unknown;base64,AAAA"),
        ("image", "ftp://pictures.example/a.png"),
        ("image", "file:///etc/passwd"),
        ("image", "https://a b"),
        ("image", "https://" + "x" * 9_000),
        ("image", ""),
    ],
)
def test_what_is_no_part_is_refused_without_a_word_of_it(part_type: Any, url: str) -> None:
    with pytest.raises(ValueError, match=r"data|media|base64|link") as refusal:
        read_part(part_type, url)
    with pytest.raises(ValidationError):
        parse(type=part_type, url=url)
    assert len(str(refusal.value)) < 120


@pytest.mark.parametrize(
    "head", ["data:image/jpg;base64", "DATA:Image/JPEG;Base64", "data:image/jpeg;charset=utf-8;base64", "data:image/jpg;name=a.jpg;base64"]
)
@pytest.mark.parametrize("build", [parse, Part, lambda type, url: read_part(type, url)])
def test_a_data_url_is_written_as_all_vendors_read_it(build: Any, head: str) -> None:
    part = build(type="image", url=f"{head},AAAA")
    assert part == read_part("image", "data:image/jpeg;base64,AAAA")
    assert (part.url, part.media_type, part.data) == ("data:image/jpeg;base64,AAAA", "image/jpeg", "AAAA")


@pytest.mark.parametrize(("media_type", "name"), [("application/pdf", "file.pdf"), ("text/csv", "file.csv"), ("text/plain", "file")])
def test_a_file_without_a_name_gets_one_for_openai_which_refuses_it_otherwise(media_type: str, name: str) -> None:
    url = f"data:{media_type};base64,AAAA"
    assert read_part("file", url).plain() == {"type": "file", "file": {"filename": name, "file_data": url}}
    assert read_part("file", url, name="a.b").plain() == {"type": "file", "file": {"filename": "a.b", "file_data": url}}


def test_texts_and_parts_come_in_the_order_that_they_were_sent_in() -> None:
    first, second = read_part("image", PNG), read_part("image", LINK)
    message = Message(role="user", content="one  two", parts=(second.model_copy(update={"at": 4}), first.model_copy(update={"at": 3})))
    assert [piece if isinstance(piece, str) else piece.media_type for piece in message.pieces()] == ["one", "image/png", None, " two"]
    assert [*Message(role="user", content=" ", parts=(first,)).pieces()] == [first]


@given(st.text(max_size=20), st.lists(st.integers(0, 30), max_size=4))
def test_no_part_and_no_word_is_lost_wherever_parts_stand(content: str, places: list[int]) -> None:
    parts = tuple(read_part("image", LINK).model_copy(update={"at": place}) for place in places)
    pieces = [*Message(role="user", content=content, parts=parts).pieces()]
    assert len([piece for piece in pieces if isinstance(piece, Part)]) == len(parts)
    assert "".join("".join(piece.split()) for piece in pieces if isinstance(piece, str)) == "".join(content.split())


def test_only_users_and_tools_show_something() -> None:
    for role in ("system", "assistant"):
        with pytest.raises(ValidationError, match="parts"):
            Message.model_validate({"role": role, "content": "", "parts": (read_part("image", PNG),)})


def test_most_tokens_of_a_part_are_those_of_vendors_rules() -> None:
    ten_seconds = base64.b64encode(bytes(10_000)).decode()
    assert read_part("image", LINK).most_tokens >= 4_784
    assert read_part("audio", f"data:audio/mp3;base64,{ten_seconds}").most_tokens >= 100
    assert read_part("file", f"data:text/csv;base64,{ten_seconds}").most_tokens == 10_000
    assert read_part("file", f"data:text/csv;base64,{base64.b64encode(bytes(300_001)).decode()}").most_tokens == 300_000
    assert read_part("file", LINK).most_tokens == 300_000
    pages = b"<</Type/Pages/Count 100/Kids[" + b"3 0 R " * 100 + b"]>>"
    for media_type in ("application/pdf", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"):
        assert read_part("file", f"data:{media_type};base64,{base64.b64encode(pages).decode()}").most_tokens >= 100 * 3_000
