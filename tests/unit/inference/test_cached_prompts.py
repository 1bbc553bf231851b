"""The marks of a prompt's cache go to the vendors that take them, are stored nowhere, and are paid for."""

import json
from typing import Any

import pytest
from pydantic import JsonValue, ValidationError

from rlaas.adapters.models.anthropic_requests import messages_body
from rlaas.adapters.models.bedrock import converse_request
from rlaas.adapters.models.openai_chat import chat_body
from rlaas.chat import ChatCall, Message, Usage
from rlaas.errors import InvalidInput
from rlaas.inference.cached_prompts import order_marks
from rlaas.inference.chat_completions import ChatRequest, to_infer
from rlaas.inference.decide import InferRequest
from rlaas.inference.infer import infer
from rlaas.inference.messages import MessagesRequest, build_infer_request
from rlaas.inference.spending import Spending, is_believable
from rlaas.metering.budgets import Budgets
from rlaas.metering.prices import Price, PriceTable
from rlaas.parts import read_part
from rlaas.policies.backend import AnthropicBackend, BackendSpec, BedrockBackend, OpenAIBackend, SageMakerBackend, find_cache_marks
from rlaas.prompt_cache import CacheMark
from rlaas.wire import make_invalid_input
from tests.fakes.backend import EchoBackend
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.worlds import SKILL, make_policy
from tests.unit.inference.asking import ASKER, gateway, guard_policy

MARK: Any = {"cache_control": {"type": "ephemeral"}}
HOUR: Any = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
LOOK_UP: Any = {"name": "look_up", "input_schema": {"type": "object"}}
AGENT: Any = {
    "system": [{"type": "text", "text": "You are an agent.", **HOUR}, {"type": "text", "text": "Today is Monday."}],
    "tools": [{**LOOK_UP, "name": "list"}, {**LOOK_UP, **HOUR}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Where is it?", **MARK}, {"type": "text", "text": "Hurry."}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "lost", **MARK}]},
    ],
}
CLAUDE = AnthropicBackend(model="claude-sonnet-4-5", secret="anthropic")


def read_messages(**fields: Any) -> InferRequest:
    whole = {"model": f"rlaas::{SKILL}", "max_tokens": 64, **fields}
    return build_infer_request(MessagesRequest.model_validate_json(json.dumps(whole)))


def read_chat(**fields: Any) -> InferRequest:
    return to_infer(ChatRequest.model_validate_json(json.dumps({"model": f"rlaas::{SKILL}", "max_tokens": 64, **fields})))


def ask(request: InferRequest, store: MemoryEventStore | None = None, **options: Any) -> ChatCall:
    """What the model was asked."""
    backend = EchoBackend()
    infer(request, ASKER, gateway(backend=backend, store=store, **options))
    return backend.calls[-1]


def spending(price: Price) -> Spending:
    return Spending(MemoryCounters(), Budgets(), PriceTable(version=1, prices={CLAUDE.model: price}))


def test_anthropic_gets_the_marks_of_tools_system_calls_and_results_where_they_were() -> None:
    body: Any = messages_body("claude", ask(read_messages(**AGENT)))
    assert [tool.get("cache_control") for tool in body["tools"]] == [None, HOUR["cache_control"]]
    assert body["system"] == [{"type": "text", "text": "You are an agent.", **HOUR}, {"type": "text", "text": "\n\nToday is Monday."}]
    assert body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "Where is it?", **MARK}, {"type": "text", "text": "\n\nHurry."}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "lost", **MARK}]},
    ]


def test_a_mark_that_moves_on_leaves_the_blocks_before_it_as_they_were() -> None:
    first: Any = [{"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two.", **MARK}]}]
    body: Any = messages_body("claude", ask(read_messages(messages=first)))
    [asked] = body["messages"]
    assert asked == {"role": "user", "content": [{"type": "text", "text": "One.\n\nTwo.", **MARK}]}
    later: Any = [
        {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
        {"role": "assistant", "content": "Three."},
        {"role": "user", "content": "Four."},
    ]
    body = messages_body("claude", ask(read_messages(messages=later, **MARK)))
    assert [block for turn in body["messages"] for block in turn["content"]] == [
        {"type": "text", "text": "One.\n\nTwo."},
        {"type": "text", "text": "Three."},
        {"type": "text", "text": "Four.", **MARK},
    ]


def test_images_and_assistants_are_marked_by_what_stands_last_before_the_mark() -> None:
    image: Any = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.png"}}
    turns: Any = [
        {"role": "user", "content": [{"type": "text", "text": "See:", **MARK}, {**image, **MARK}, {"type": "text", "text": "so?"}]},
        {
            "role": "assistant",
            "content": [{"type": "text", "text": "Yes.", **MARK}, {"type": "tool_use", "id": "t", "name": "f", "input": {}, **MARK}],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]},
    ]
    body: Any = messages_body("claude", ask(read_messages(messages=turns)))
    marked = [block["type"] for turn in body["messages"] for block in turn["content"] if "cache_control" in block]
    assert marked == ["text", "image", "text", "tool_use"]


def test_a_chat_is_marked_as_openrouters_and_litellms_clients_do() -> None:
    sent: Any = [
        {"role": "system", "content": "You are an agent.", **MARK},
        {"role": "user", "content": [{"type": "text", "text": "A long text.", **MARK}, {"type": "text", "text": " So?"}]},
    ]
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = ask(read_chat(messages=sent, tools=[{**tool, **MARK}], **MARK))
    body: Any = messages_body("claude", call)
    assert body["system"] == [{"type": "text", "text": "You are an agent.", **MARK}]
    assert body["messages"][0]["content"] == [{"type": "text", "text": "A long text.", **MARK}, {"type": "text", "text": " So?", **MARK}]
    assert body["tools"][0]["cache_control"] == MARK["cache_control"]
    in_function: Any = {"type": "function", "function": {**tool["function"], **MARK}}
    assert ask(read_chat(messages=sent, tools=[in_function])).tool_marks == {0: "5m"}
    openrouter: Any = chat_body(call, stream=False, marked=True)
    assert openrouter["tools"] == [{**tool, **MARK}]
    assert openrouter["messages"][0]["content"] == [{"type": "text", "text": "You are an agent.", **MARK}]
    other: Any = chat_body(call, stream=False)
    assert (other["tools"], other["messages"][0]["content"], other["messages"][1]["content"]) == (
        [tool],
        "You are an agent.",
        "A long text. So?",
    )
    assert "cache_control" not in json.dumps(other)


def test_bedrock_gets_points_behind_what_is_marked() -> None:
    call = ask(read_messages(**AGENT))
    request = converse_request("eu.anthropic.claude-sonnet-4-5-20250929-v1:0", call)
    hour, point = {"cachePoint": {"type": "default", "ttl": "1h"}}, {"cachePoint": {"type": "default"}}
    assert request["system"] == [{"text": "You are an agent."}, hour, {"text": "\n\nToday is Monday."}]
    assert [next(iter(tool)) for tool in request["toolConfig"]["tools"]] == ["toolSpec", "toolSpec", "cachePoint"]
    user, _, result = request["messages"]
    assert user["content"] == [{"text": "Where is it?"}, point, {"text": "\n\nHurry."}]
    assert result["content"] == [{"toolResult": {"toolUseId": "toolu_1", "content": [{"text": "lost"}]}}, point]
    older = converse_request("anthropic.claude-sonnet-4-20250514-v1:0", call)
    assert older["system"][1] == point
    nova = converse_request("amazon.nova-pro-v1:0", call)
    assert [next(iter(tool)) for tool in nova["toolConfig"]["tools"]] == ["toolSpec", "toolSpec"]
    assert "cachePoint" not in json.dumps(converse_request("meta.llama4-maverick-17b-instruct-v1:0", call))


@pytest.mark.parametrize(
    ("backend", "longest"),
    [
        (CLAUDE, "1h"),
        (BedrockBackend(model="us.anthropic.claude-opus-4-6-v1"), "1h"),
        (BedrockBackend(model="anthropic.claude-3-7-sonnet-20250219-v1:0"), "5m"),
        (BedrockBackend(model="anthropic.claude-3-5-haiku-20241022-v1:0"), "5m"),
        (BedrockBackend(model="anthropic.claude-3-haiku-20240307-v1:0"), None),
        (BedrockBackend(model="amazon.nova-lite-v1:0"), "5m"),
        (BedrockBackend(model="mistral.mistral-large-2407-v1:0"), None),
        (OpenAIBackend(model="anthropic/claude-sonnet-4.5", base_url="https://openrouter.ai/api/v1"), "1h"),
        (OpenAIBackend(model="gpt-5.6"), None),
        (SageMakerBackend(endpoint="e"), None),
    ],
)
def test_a_vendor_that_takes_no_marks_gets_none(backend: BackendSpec, longest: str | None) -> None:
    assert find_cache_marks(backend) == longest


@pytest.mark.parametrize(
    ("control", "param"),
    [
        ({"type": "forever"}, "messages.0.content.0.cache_control.type"),
        ({"type": "ephemeral", "ttl": "2h"}, "messages.0.content.0.cache_control.ttl"),
        ({}, "messages.0.content.0.cache_control.type"),
    ],
)
def test_a_mark_that_is_none_is_refused_by_its_place(control: Any, param: str) -> None:
    content: Any = {
        "model": f"rlaas::{SKILL}",
        "max_tokens": 1,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": control}]}],
    }
    for model in (MessagesRequest, ChatRequest):
        with pytest.raises(ValidationError) as error:
            model.model_validate_json(json.dumps(content))
        assert make_invalid_input(error.value, content).param == param
    tool: JsonValue = {"type": "function", "function": {"name": "f"}, "cache_control": control}
    with pytest.raises(InvalidInput) as refusal:
        read_chat(messages=[{"role": "user", "content": "hi"}], tools=[tool])
    assert refusal.value.param == param.replace("messages.0.content.0", "tools.0")


def test_more_than_four_marks_are_refused_by_name() -> None:
    turns: Any = [{"role": "user", "content": [{"type": "text", "text": str(number), **MARK} for number in range(4)]}]
    [message] = read_messages(messages=turns).messages or ()
    assert len(message.cache_marks) == 4
    for more in ({"system": [{"type": "text", "text": "s", **MARK}]}, {"tools": [{**LOOK_UP, **MARK}]}):
        with pytest.raises(InvalidInput, match="at most 4 cache_control marks") as refusal:
            read_messages(messages=turns, **more)
        assert refusal.value.param == "cache_control"
    calls: Any = [{"type": "tool_use", "id": f"t{number}", "name": "f", "input": {}, **MARK} for number in range(5)]
    one = read_messages(messages=[{"role": "user", "content": "hi"}, {"role": "assistant", "content": calls}])
    assert one.messages is not None
    assert one.messages[1].list_cache_ttls() == ["5m"]


def test_a_mark_of_an_hour_after_one_of_five_minutes_is_one_of_five_minutes() -> None:
    image = read_part("image", "https://x.example/a.png").model_copy(update={"at": 2, "cached_for": "1h"})
    user = Message(role="user", content="abcd", cache_marks=(CacheMark(ttl="5m", at=1), CacheMark(ttl="1h")), parts=(image,))
    system = Message(role="system", content="s", cache_marks=(CacheMark(ttl="1h"),))
    call = order_marks(ChatCall((user, system), {}, "acme", tool_marks={1: "1h"}))
    assert call.tool_marks == {1: "1h"}
    assert [message.list_cache_ttls() for message in call.messages] == [["5m", "5m", "5m"], ["1h"]]
    late = order_marks(ChatCall((user, system), {}, "acme", tool_marks={1: "5m"}))
    assert {ttl for message in late.messages for ttl in message.list_cache_ttls()} == {"5m"}


def test_marks_are_not_stored_and_the_same_request_marked_otherwise_is_the_same() -> None:
    store = MemoryEventStore()
    request = read_messages(**AGENT, **{"rlaas::interaction_id": "int_1"})
    ask(request, store)
    assert not any("cache" in stored.payload for stored in store.events.values() if stored.event_type == "interaction")
    unmarked = json.loads(json.dumps(AGENT).replace("cache_control", "nothing"))
    answer = infer(read_messages(**unmarked, **{"rlaas::interaction_id": "int_1"}), ASKER, gateway(store=store))
    assert answer.replay


def test_a_text_that_a_guardrail_changes_is_kept_up_to_its_end() -> None:
    registry = guard_policy(input=[{"kind": "block_list", "terms": ["parcel"], "action": "redact"}])
    turns: Any = [{"role": "user", "content": [{"type": "text", "text": "My parcel", **MARK}, {"type": "text", "text": "is lost"}]}]
    body: Any = messages_body("claude", ask(read_messages(messages=turns), registry=registry))
    [block] = body["messages"][-1]["content"]
    assert "parcel" not in block["text"]
    assert block["cache_control"] == {"type": "ephemeral"}


def test_what_is_set_aside_covers_a_prompt_that_is_written_to_the_cache_whole() -> None:
    policy = make_policy(1).model_copy(update={"backend": CLAUDE})
    price = Price(input=1.0, output=0)
    plain = ChatCall((Message(role="user", content="word " * 300),), {"max_tokens": 1}, "acme")
    marked = {
        ttl: ChatCall((plain.messages[0].model_copy(update={"cache_marks": (CacheMark(ttl=ttl),)}),), plain.parameters, "acme")
        for ttl in ("5m", "1h")
    }
    amounts = spending(price)
    read = amounts.most(policy, CLAUDE, plain).nano_usd
    assert amounts.most(policy, CLAUDE, marked["5m"]).nano_usd == pytest.approx(1.25 * read)
    assert amounts.most(policy, CLAUDE, marked["1h"]).nano_usd == 2 * read
    assert spending(Price(input=1.0, output=0, cache_write=3.0)).most(policy, CLAUDE, plain).nano_usd == 3 * read
    for ttl, call in marked.items():
        tokens = amounts.most(policy, CLAUDE, call).tokens - 1
        usage = Usage(input_tokens=tokens, output_tokens=0, cache_write_tokens=tokens, cache_write_1h_tokens=tokens if ttl == "1h" else 0)
        assert amounts.price(policy, CLAUDE.model, usage).nano_usd <= amounts.most(policy, CLAUDE, call).nano_usd
    assert not is_believable(Usage(input_tokens=10, output_tokens=0, cached_tokens=6, cache_write_tokens=6), plain)


@pytest.mark.parametrize(("model", "factor"), [("gpt-5.6", 1.25), ("gpt-6-mini", 1.25), ("gpt-5.4", 1), ("gpt-4.1-mini", 1), ("o3", 1)])
def test_openai_charges_for_what_it_writes_by_itself_from_its_newer_models_on(model: str, factor: float) -> None:
    backend = OpenAIBackend(model=model)
    table = PriceTable(version=1, prices={model: Price(input=1.0, output=0)})
    amounts = Spending(MemoryCounters(), Budgets(), table)
    policy = make_policy(1).model_copy(update={"backend": backend})
    call = ChatCall((Message(role="user", content="word " * 300),), {"max_tokens": 1}, "acme")
    most = amounts.most(policy, backend, call)
    assert most.nano_usd == pytest.approx(factor * 1000 * (most.tokens - 1))
