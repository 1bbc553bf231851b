"""Images, sounds and files on the wires of the vendors that take them, and the refusals of those that do not."""

import base64
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import JsonValue

from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.adapters.models.backends import Backends
from rlaas.chat import CalledFunction, ChatCall, Message, ToolCall
from rlaas.errors import InvalidInput, PartRefused
from rlaas.parts import Part, read_part
from rlaas.policies.backend import AnthropicBackend, BackendSpec, BedrockBackend, OpenAIBackend, SageMakerBackend
from tests.fakes.model_server import ModelServer

DATA = base64.b64encode(b"\x89PNG\r\n\x1a\n-pixel").decode()
PNG = f"data:image/png;base64,{DATA}"
PDF = "data:application/pdf;base64,JVBERi0="
LINK = "https://pictures.example/a.png"
IMAGE, LINKED = read_part("image", PNG, detail="high"), read_part("image", LINK)
SOUND = read_part("audio", "data:audio/wav;base64,UklGRg==")
FILE, LINKED_FILE = read_part("file", PDF, name="a.pdf"), read_part("file", LINK)
STORED = Part.model_validate_json(IMAGE.model_dump_json())


class Keys(VendorKeys):
    """Any key."""

    def key(self, tenant_id: str, name: str, **_: str) -> str:
        return name


def make_spec(kind: str, url: str) -> BackendSpec:
    specs: dict[str, BackendSpec] = {
        "sagemaker": SageMakerBackend(endpoint="e", component="m"),
        "openai": OpenAIBackend(model="m", base_url=f"{url}/v1"),
        "anthropic": AnthropicBackend(model="m", base_url=f"{url}/v1", secret="anthropic"),
        "bedrock": BedrockBackend(model="m"),
    }
    return specs[kind]


def ask(server: ModelServer, kind: str, *messages: Message, tools: Sequence[JsonValue] = ()) -> list[Any]:
    """The messages that the vendor got, whole and in a stream."""
    backends, spec = Backends(Keys(None), private_addresses=True), make_spec(kind, server.url)
    offered: dict[str, JsonValue] = {"tools": [*tools]} if tools else {}
    call = ChatCall(messages=messages, parameters={"max_tokens": 20, **offered}, tenant_id="acme")
    backends.complete(spec, call, timeout_s=5)
    assert [*backends.stream(spec, call, timeout_s=5)]
    whole, streamed = (asked.body["messages"] for asked in server.requests[-2:])
    assert whole == streamed
    return [*whole]


def show(*parts: Part) -> Message:
    return Message(role="user", content="See: and?", parts=tuple(part.model_copy(update={"at": 4}) for part in parts))


def test_openai_gets_what_was_sent_in_its_order(server: ModelServer) -> None:
    assert ask(server, "openai", show(IMAGE, LINKED, SOUND, FILE)) == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "See:"},
                {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
                {"type": "image_url", "image_url": {"url": LINK}},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}},
                {"type": "text", "text": " and?"},
            ],
        }
    ]


def test_anthropic_gets_images_and_pdfs_as_blocks(server: ModelServer) -> None:
    [turn] = ask(server, "anthropic", show(IMAGE, LINKED, FILE, LINKED_FILE))
    assert turn["content"] == [
        {"type": "text", "text": "See:"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
        {"type": "image", "source": {"type": "url", "url": LINK}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}, "title": "a.pdf"},
        {"type": "document", "source": {"type": "url", "url": LINK}},
        {"type": "text", "text": " and?"},
    ]


def test_bedrock_gets_images(server: ModelServer) -> None:
    [turn] = ask(server, "bedrock", show(IMAGE))
    image = {"image": {"format": "png", "source": {"bytes": DATA}}}
    assert turn["content"] == [{"text": "See:"}, image, {"text": " and?"}]


@pytest.mark.parametrize("kind", ["anthropic", "bedrock"])
def test_what_a_tool_shows_is_in_its_result(server: ModelServer, kind: str) -> None:
    call = ToolCall(id="c", function=CalledFunction(name="look", arguments="{}"))
    shown = Message(role="tool", content="", tool_call_id="c", parts=(IMAGE,))
    asked = (Message(role="user", content="Look."), Message(role="assistant", content="", tool_calls=(call,)))
    block = ask(
        server, kind, *asked, shown, Message(role="user", content="And?"), tools=[{"type": "function", "function": {"name": "look"}}]
    )[2]["content"][0]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}
    expected: dict[str, Any] = {"type": "tool_result", "tool_use_id": "c", "content": [image]}
    if kind == "bedrock":
        expected = {"toolResult": {"toolUseId": "c", "content": [{"image": {"format": "png", "source": {"bytes": DATA}}}]}}
    assert block == expected


@pytest.mark.parametrize(
    ("kind", "part", "words"),
    [
        ("sagemaker", IMAGE, "the model endpoint takes no image"),
        ("sagemaker", SOUND, "the model endpoint takes no sound"),
        ("sagemaker", FILE, "the model endpoint takes no file"),
        ("openai", LINKED_FILE, "the model server takes no file by its link"),
        ("anthropic", SOUND, "Anthropic takes no sound"),
        ("anthropic", read_part("file", "data:text/csv;base64,YQ=="), "Anthropic takes no file"),
        ("bedrock", LINKED, "Bedrock takes no image by its link"),
        ("bedrock", FILE, "Bedrock takes no file"),
        ("openai", STORED, "not stored"),
        ("anthropic", STORED, "not stored"),
        ("bedrock", STORED, "not stored"),
    ],
)
def test_what_a_vendor_does_not_take_is_refused_by_name_before_it_is_asked(server: ModelServer, kind: str, part: Part, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as refusal:
        ask(server, kind, show(part))
    assert (refusal.value.param, server.requests) == ("messages", [])
    assert isinstance(refusal.value, PartRefused) == (part is not STORED)  # nobody else has what is not stored


def test_openais_chats_have_no_form_for_what_a_tool_shows(server: ModelServer) -> None:
    with pytest.raises(InvalidInput, match="what a tool answered"):
        ask(server, "openai", Message(role="tool", content="", tool_call_id="c", parts=(IMAGE,)))
