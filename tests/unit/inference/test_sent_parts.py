"""Images, sounds and files as clients of three APIs send them."""

import json
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from rlaas.chat import Message
from rlaas.inference.chat_messages import ChatMessage
from rlaas.inference.chat_messages import to_messages as chat_messages
from rlaas.inference.message_blocks import Turn
from rlaas.inference.response_items import InputItem
from rlaas.inference.response_items import to_messages as item_messages
from rlaas.parts import Part, read_part
from rlaas.wire import make_invalid_input

DATA = "iVBORw0KGgo="
PNG = f"data:image/png;base64,{DATA}"
PDF = "data:application/pdf;base64,JVBERi0="
LINK = "https://pictures.example/a.png"


def chat(*content: object, role: str = "user", **more: object) -> tuple[Message, ...]:
    sent = [{"role": role, "content": content, **more}]
    return chat_messages(TypeAdapter(tuple[ChatMessage, ...]).validate_json(json.dumps(sent)))


def items(*sent: object) -> tuple[Message, ...]:
    return item_messages(TypeAdapter[Any](tuple[InputItem, ...]).validate_json(json.dumps(sent)))


def turn(*content: object, role: str = "user") -> tuple[Message, ...]:
    return tuple(Turn.model_validate_json(json.dumps({"role": role, "content": content})).plain())


def at(place: int, part: Part) -> Part:
    return part.model_copy(update={"at": place})


IMAGES = (at(2, read_part("image", PNG, detail="high")), at(2, read_part("image", LINK)))


def test_images_of_the_three_apis_are_the_same_to_a_model() -> None:
    chatted = chat(
        {"type": "text", "text": "A:"},
        {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
        {"type": "image_url", "image_url": {"url": LINK}, "prompt_cache_breakpoint": None},
        {"type": "text", "text": "and?"},
    )
    assert chatted == (Message(role="user", content="A:and?", parts=IMAGES),)
    content = [
        {"type": "input_text", "text": "A:"},
        {"type": "input_image", "image_url": PNG, "detail": "high", "file_id": None},
        {"type": "input_image", "image_url": LINK},
        {"type": "input_text", "text": "and?"},
    ]
    assert items({"role": "user", "content": content}) == chatted
    blocks = turn(
        {"type": "text", "text": "A:"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}, "cache_control": {"type": "ephemeral"}},
        {"type": "image", "source": {"type": "url", "url": LINK}},
        {"type": "text", "text": "and?"},
    )
    cached = at(2, read_part("image", PNG)).model_copy(update={"cached_for": "5m"})
    assert blocks == (Message(role="user", content="A:\n\nand?", parts=(cached, IMAGES[1])),)


def test_sounds_and_files_are_parts_too() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    assert chat(sound)[0].parts == (read_part("audio", "data:audio/wav;base64,UklGRg=="),)
    pdf = read_part("file", PDF, name="a.pdf")
    assert chat({"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}})[0].parts == (pdf,)
    sent = ({"type": "input_file", "file_data": PDF, "filename": "a.pdf"}, {"type": "input_file", "file_url": LINK})
    assert items({"role": "user", "content": sent})[0].parts == (pdf, read_part("file", LINK))
    document = {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
    assert turn(document)[0].parts == (pdf,)


def test_a_document_of_text_is_read_as_text() -> None:
    document = {"type": "document", "title": "Terms", "source": {"type": "text", "media_type": "text/plain", "data": "Pay in June."}}
    assert turn(document, {"type": "text", "text": "When?"}) == (Message(role="user", content="Terms\n\nPay in June.\n\nWhen?"),)


def test_what_the_model_may_know_about_a_document_stands_before_it() -> None:
    said = {"type": "text", "text": "When?"}
    pdf = {"type": "document", "context": "Of May.", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
    assert turn(pdf, said) == (Message(role="user", content="Of May.\n\nWhen?", parts=(at(7, read_part("file", PDF)),)),)
    result = {"type": "tool_result", "tool_use_id": "c", "content": [pdf]}
    assert turn(result) == (Message(role="tool", content="Of May.", tool_call_id="c", parts=(at(7, read_part("file", PDF)),)),)
    text = {"type": "document", "title": "Terms", "context": "Of May.", "source": {"type": "text", "data": "Pay in June."}}
    assert turn(text, said) == (Message(role="user", content="Terms\n\nOf May.\n\nPay in June.\n\nWhen?"),)


def test_what_a_tool_shows_belongs_to_its_answer() -> None:
    image = {"type": "image", "source": {"type": "url", "url": LINK}}
    result = {"type": "tool_result", "tool_use_id": "c", "is_error": True, "content": [{"type": "text", "text": "No."}, image]}
    expected = Message(role="tool", content="Error: No.", tool_call_id="c", parts=(at(10, read_part("image", LINK)),))
    assert turn(result) == (expected,)
    output = [{"type": "input_text", "text": "Error: No."}, {"type": "input_image", "image_url": LINK}]
    assert items({"type": "function_call_output", "call_id": "c", "output": output}) == (expected,)


@pytest.mark.parametrize(
    ("model", "body", "param"),
    [
        (ChatMessage, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}, "content.0.image_url"),
        (ChatMessage, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PDF}}]}, "content.0.image_url"),
        (
            ChatMessage,
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]},
            "content.0.input_audio",
        ),
        (ChatMessage, {"role": "user", "content": [{"type": "file", "file": {"file_id": "file_1"}}]}, "content.0.file.file_data"),
        (ChatMessage, {"role": "system", "content": [{"type": "image_url", "image_url": {"url": LINK}}]}, None),
        (Turn, {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "a.png"}}]}, "content.0"),
        (Turn, {"role": "assistant", "content": [{"type": "image", "source": {"type": "url", "url": LINK}}]}, None),
    ],
)
def test_what_cannot_be_read_is_named_by_its_place(model: type[BaseModel], body: Any, param: str | None) -> None:
    with pytest.raises(ValidationError) as refusal:
        model.model_validate_json(json.dumps(body))
    assert make_invalid_input(refusal.value, body).param == param
