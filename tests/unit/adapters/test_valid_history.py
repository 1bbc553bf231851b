"""A history of any vendor, or of a client that lost some of it, is valid for the vendor that is asked."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import JsonValue

from rlaas.adapters.models.anthropic_requests import messages_body
from rlaas.adapters.models.bedrock import converse_request
from rlaas.adapters.models.history_rules import find_rules
from rlaas.adapters.models.valid_history import make_valid
from rlaas.chat import ChatCall, Choice, Completion, Delta, Message, ToolCall, ToolCallDelta
from rlaas.errors import InvalidInput
from rlaas.inference.messages import MessagesRequest
from rlaas.policies.backend import AnthropicBackend, BackendSpec, BedrockBackend, OpenAIBackend, SageMakerBackend
from tests.fakes.vendor_rules import check_anthropic_request, check_converse_request
from tests.unit.adapters.histories import (
    ANY_MESSAGES,
    IMAGE,
    SCHEMAS,
    call,
    illustrated_histories,
    openai,
    openai_histories,
    parameters_of_calls,
    result,
    said,
    say_nothing,
    valid,
)

CLAUDES = {"claude-sonnet-4-5": True, "claude-3-haiku-20240307": True, "claude-opus-4-6": False, "claude-sonnet-5": False}
"""Models of Anthropic's, and whether they continue a last message of the assistant."""
BEDROCKS = {
    "eu.anthropic.claude-sonnet-4-5-20250929-v1:0": True,
    "us.anthropic.claude-opus-4-6-v1": False,
    "amazon.nova-pro-v1:0": True,
    "meta.llama4-maverick-17b-instruct-v1:0": False,
    "moonshot.kimi-k2-thinking": False,
}
OPENAI = OpenAIBackend(model="gpt-5.4")
MISTRAL = OpenAIBackend(model="mistral-large", base_url="https://api.mistral.ai/v1")
DEEPSEEK = OpenAIBackend(model="deepseek-chat", base_url="https://api.deepseek.com/v1")
ANY_SERVER = OpenAIBackend(model="qwen", base_url="https://models.example/v1")
VLLM = SageMakerBackend(endpoint="rlaas-prod")


def anthropic(model: str, messages: Sequence[Message], parameters: dict[str, JsonValue] | None = None) -> dict[str, Any]:
    spec = AnthropicBackend(model=model, secret="vendor")
    return messages_body(model, valid(spec, messages, parameters).call)


def bedrock(model: str, messages: Sequence[Message], parameters: dict[str, JsonValue] | None = None) -> dict[str, Any]:
    return converse_request(model, valid(BedrockBackend(model=model), messages, parameters).call)


NAMED = [
    Message(role="system", content="Be brief.", name="rules"),
    Message(role="user", content="Hi.", name="Ann"),
    Message(role="assistant", content="Hello.", name="bot"),
    Message(role="user", content="Hey.", name="<PERSON>"),
]


@pytest.mark.parametrize("spec", [OPENAI, DEEPSEEK, ANY_SERVER, VLLM])
def test_a_speakers_name_goes_to_servers_that_take_it(spec: BackendSpec) -> None:
    sent = openai(spec, NAMED)
    assert [message.get("name") for message in sent] == ["rules", "Ann", "bot", None]
    assert sent[-1]["content"] == "<PERSON>: Hey."  # as it was stored, masked: OpenAI takes no such name


@pytest.mark.parametrize("host", ["api.mistral.ai", "api.groq.com", "api.cerebras.ai", "generativelanguage.googleapis.com"])
def test_a_users_name_stands_before_the_text_where_the_server_refuses_it(host: str) -> None:
    sent = openai(OpenAIBackend(model="m", base_url=f"https://{host}/v1"), NAMED)
    assert not any("name" in message for message in sent)
    assert [message["content"] for message in sent[:4]] == ["rules: Be brief.", "Ann: Hi.", "Hello.", "<PERSON>: Hey."]


def test_a_users_name_stands_before_the_text_for_vendors_with_another_api() -> None:
    body = anthropic("claude-sonnet-4-5", NAMED)
    assert body["system"] == "rules: Be brief."
    assert [block["text"] for turn in body["messages"] for block in turn["content"]] == ["Ann: Hi.", "Hello.", "<PERSON>: Hey."]
    illustrated = Message(role="user", content="See", name="Ann", parts=(IMAGE.model_copy(update={"at": 3}),))
    [turn] = bedrock("amazon.nova-pro-v1:0", [illustrated])["messages"]
    assert [next(iter(block)) for block in turn["content"]] == ["text", "image"]
    assert turn["content"][0] == {"text": "Ann: See"}
    assert anthropic("claude-sonnet-4-5", [said("user", "x"), Message(role="user", content=" ", name="Ann")])["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "x"}]}
    ]


def offer(*names: str) -> dict[str, JsonValue]:
    return {"tools": [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in names]}


def allow(mode: str, *names: str) -> dict[str, JsonValue]:
    tools: JsonValue = [{"type": "function", "function": {"name": name}} for name in names]
    return {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}}


def test_allowed_tools_have_the_names_that_the_tools_have() -> None:
    sent: Any = valid(OPENAI, [said("user", "x")], {**offer("find.order", "refund"), **allow("required", "find.order")}).call.parameters
    new = sent["tools"][0]["function"]["name"]
    assert new != "find.order"
    assert sent["tool_choice"] == allow("required", new)["tool_choice"]


@pytest.mark.parametrize("spec", [MISTRAL, ANY_SERVER, VLLM, AnthropicBackend(model="claude", secret="s"), BedrockBackend(model="nova")])
def test_a_vendor_without_allowed_tools_is_offered_those_alone(spec: BackendSpec) -> None:
    parameters = {**offer("a", "b", "c"), **allow("required", "c", "b")}
    call = valid(spec, [said("user", "x")], parameters).call
    assert call.parameters == {"max_tokens": 64, **offer("b", "c"), "tool_choice": "required"}


def test_the_mark_of_an_allowed_tool_stays_with_it() -> None:
    parameters = {**offer("a", "b"), **allow("auto", "b")}
    call = ChatCall((said("user", "x"),), parameters, "acme", tool_marks={0: "1h", 1: "5m"})
    assert make_valid(call, find_rules(ANY_SERVER)).call.tool_marks == {0: "5m"}
    assert make_valid(call, find_rules(OPENAI)).call.tool_marks == {0: "1h", 1: "5m"}


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        (allow("auto", "unknown"), "tool_choice"),
        (allow("maybe", "a"), "tool_choice.allowed_tools.mode"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
        (allow("auto"), "tool_choice.allowed_tools.tools"),
    ],
)
def test_a_choice_that_allows_nothing_is_refused_by_its_field(choice: dict[str, JsonValue], param: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        valid(ANY_SERVER, [said("user", "x")], {**offer("a"), **choice})
    assert refusal.value.param == param


@given(st.sampled_from(list(CLAUDES)), illustrated_histories() | openai_histories(), parameters_of_calls())
def test_any_history_is_valid_for_anthropic(model: str, messages: tuple[Message, ...], parameters: dict[str, JsonValue]) -> None:
    assume(not say_nothing(messages))
    assert check_anthropic_request(anthropic(model, messages, parameters), ends_with_assistant=CLAUDES[model]) == []


@given(st.sampled_from(list(BEDROCKS)), illustrated_histories() | openai_histories(), parameters_of_calls())
def test_any_history_is_valid_for_bedrock(model: str, messages: tuple[Message, ...], parameters: dict[str, JsonValue]) -> None:
    assume(not say_nothing(messages))
    assert check_converse_request(bedrock(model, messages, parameters), ends_with_assistant=BEDROCKS[model]) == []


@given(openai_histories())
def test_a_history_by_openais_rules_comes_to_servers_of_its_api_as_it_was_sent(messages: tuple[Message, ...]) -> None:
    for spec in (OPENAI, ANY_SERVER, VLLM):
        assert openai(spec, messages) == [message.plain() for message in messages]


@given(ANY_MESSAGES, parameters_of_calls())
def test_what_is_valid_already_stays_as_it_is(messages: tuple[Message, ...], parameters: dict[str, JsonValue]) -> None:
    for spec in (AnthropicBackend(model="claude-opus-4-6", secret="vendor"), BedrockBackend(model="meta.llama4"), OPENAI, MISTRAL, VLLM):
        try:
            once = valid(spec, messages, parameters)
        except InvalidInput:
            continue
        again = make_valid(once.call, find_rules(spec))
        assert (again.call, again.callers_names, again.is_changed) == (once.call, {}, False)


CLAUDES_TEXTS = st.text("ab \n", min_size=1, max_size=6).filter(lambda text: text == text.strip())


@st.composite
def claudes_histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Histories as Claude and its clients write them: turns of blocks, results first, each call's right behind it."""
    turns: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 4))):
        texts = [{"type": "text", "text": draw(CLAUDES_TEXTS)}] if not results or draw(st.booleans()) else []
        turns.append({"role": "user", "content": [*results, *texts]})
        ids = [f"toolu_{number}_{place}" for place in range(draw(st.integers(0, 2)))]
        uses = [{"type": "tool_use", "id": id_, "name": "n" * 100, "input": {"n": [1, None, "ü"]}} for id_ in ids]
        results = [{"type": "tool_result", "tool_use_id": id_, "content": draw(CLAUDES_TEXTS)} for id_ in ids]
        said_first = [{"type": "text", "text": draw(CLAUDES_TEXTS)}] if not uses or draw(st.booleans()) else []
        turns.append({"role": "assistant", "content": [*said_first, *uses]})
    return [*turns, {"role": "user", "content": [*results, {"type": "text", "text": draw(CLAUDES_TEXTS)}]}]


@given(claudes_histories())
def test_a_history_of_claudes_comes_back_to_claude_as_it_was(turns: list[dict[str, Any]]) -> None:
    tool = {"name": "n" * 100, "input_schema": {"type": "object", "properties": {}}}
    body = {"model": "rlaas::reply", "max_tokens": 64, "messages": turns, "system": "Be kind.", "tools": [tool]}
    request = MessagesRequest.model_validate_json(json.dumps(body))
    assert anthropic("claude-opus-4-6", request.chat(), request.parameters()) == {**body, "model": "claude-opus-4-6"}


@pytest.mark.parametrize("id_", ["functions.find_order:0", "", "ü" * 200, "call\n1", "call_1__thought__" + "c2ln" * 1000])
def test_an_id_that_the_vendor_refuses_is_the_same_other_one_in_the_call_and_its_result(id_: str) -> None:
    body = anthropic("claude-opus-4-6", [said("user", "Where is it?"), said("assistant", "", call(id_)), result(id_)])
    use, answer = body["messages"][1]["content"][0]["id"], body["messages"][2]["content"][0]["tool_use_id"]
    assert use == answer != id_
    assert len(use) <= 64


def test_ids_stay_distinct_also_from_ids_that_look_like_new_ones_and_are_the_same_in_every_request() -> None:
    def ids(*calls: str) -> list[str]:
        messages = [said("user", "x"), said("assistant", "", *map(call, calls)), *map(result, calls)]
        return [block["id"] for block in anthropic("claude-opus-4-6", messages)["messages"][1]["content"]]

    (new,) = ids("a.b")
    assert ids("a:b", "a.b", "c") == [*ids("a:b"), new, "c"]
    assert ids(new, "a.b")[0] == new
    assert len({*ids(new, "a.b", "a:b", "a_b")}) == 4


def test_an_id_that_returns_in_a_later_turn_is_another_one_there() -> None:
    messages = [said("user", "x"), *(said("assistant", "", call("call_0")), result("call_0", "1"), said("user", "y")) * 2]
    turns = anthropic("claude-opus-4-6", messages)["messages"]
    first, second = turns[1]["content"][0]["id"], turns[3]["content"][0]["id"]
    assert (first, turns[2]["content"][0]["tool_use_id"], turns[4]["content"][0]["tool_use_id"]) == ("call_0", first, second)
    assert second != first


@pytest.mark.parametrize(("spec", "longest", "pattern"), [(OPENAI, 40, ".*"), (MISTRAL, 9, "[a-zA-Z0-9]{9}")])
def test_servers_with_a_rule_for_ids_get_such_ids(spec: BackendSpec, longest: int, pattern: str) -> None:
    id_ = "call_" + "x" * 60
    _, calling, answering = openai(spec, [said("user", "x"), said("assistant", "", call(id_)), result(id_)])
    assert calling["tool_calls"][0]["id"] == answering["tool_call_id"]
    assert re.fullmatch(pattern, answering["tool_call_id"])
    assert 0 < len(answering["tool_call_id"]) <= longest


def test_bedrocks_own_ids_go_back_to_the_models_that_wrote_them_but_not_to_claude() -> None:
    history = [said("user", "x"), said("assistant", "", call("functions.f:0")), result("functions.f:0")]
    tools: dict[str, JsonValue] = {"tools": [{"type": "function", "function": {"name": "f"}}]}

    def id_(model: str) -> str:
        return str(bedrock(model, history, tools)["messages"][1]["content"][0]["toolUse"]["toolUseId"])

    assert id_("moonshot.kimi-k2-thinking") == "functions.f:0"
    assert id_("us.anthropic.claude-opus-4-6-v1") != "functions.f:0"


def test_a_blank_text_beside_a_call_is_left_out() -> None:
    history = [said("user", "Where?"), said("assistant", "\n\n", call("c")), result("c"), said("user", " "), said("assistant", "")]
    assert [turn["role"] for turn in anthropic("claude-opus-4-6", history)["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in anthropic("claude-opus-4-6", history)["messages"][1]["content"]] == ["tool_use"]


def test_an_empty_result_says_that_it_is_empty() -> None:
    history = [said("user", "Run it."), said("assistant", "", call("c")), result("c", " \n")]
    tools: dict[str, JsonValue] = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    (answer,) = bedrock("meta.llama4", history, tools)["messages"][2]["content"]
    assert answer == {"toolResult": {"toolUseId": "c", "content": [{"text": "(empty)"}]}}
    (answer,) = anthropic("claude-opus-4-6", history)["messages"][2]["content"]
    assert answer == {"type": "tool_result", "tool_use_id": "c", "content": "(empty)"}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_parameters_of_a_tool_are_an_objects_schema(schema: JsonValue) -> None:
    parameters: dict[str, JsonValue] = {"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]}
    own = schema if isinstance(schema, dict) else {}
    (tool,) = anthropic("claude-opus-4-6", [said("user", "x")], parameters)["tools"]
    assert tool["input_schema"] == ({"type": "object"} if own == {"type": "object"} else {"properties": {}, **own, "type": "object"})


@pytest.mark.parametrize("effort", ["low", "medium", "high", "xhigh", "max"])
def test_every_effort_that_anthropic_knows_reaches_it(effort: str) -> None:
    assert anthropic("claude-opus-4-6", [said("user", "x")], {"reasoning_effort": effort})["output_config"] == {"effort": effort}


def test_bedrock_is_told_of_calls_where_no_tools_are_offered() -> None:
    history = [
        said("user", "Where?"),
        said("assistant", "I look.", call("c", arguments='{"order": 7}')),
        result("c"),
        said("user", "Sum up."),
    ]
    request = bedrock("meta.llama4", history)
    assert "toolConfig" not in request
    assert request["messages"][1]["content"] == [{"text": 'I look.\n\nCalled the tool f with {"order": 7}'}]
    assert request["messages"][2]["content"] == [{"text": "The tool f answered: done"}, {"text": "Sum up."}]


def test_claude_may_not_call_the_tools_that_only_the_history_has() -> None:
    body = anthropic("claude-opus-4-6", [said("user", "x"), said("assistant", "", call("c")), result("c")])
    assert (body["tools"], body["tool_choice"]) == ([{"name": "f", "input_schema": {"type": "object", "properties": {}}}], {"type": "none"})


@pytest.mark.parametrize("spec", [OPENAI, DEEPSEEK])
def test_calls_are_answered_once_and_at_once_and_results_without_calls_are_told(spec: BackendSpec) -> None:
    history = [
        result("gone00000", "lost"),
        said("user", "x"),
        said("assistant", "", call("aaaaaaaaa"), call("bbbbbbbbb")),
        said("user", "Hurry!"),
        result("bbbbbbbbb", "2"),
        result("bbbbbbbbb", "3"),
    ]
    sent = [(message["role"], message.get("tool_call_id"), message["content"]) for message in openai(spec, history)]
    assert sent == [
        ("user", None, "A tool answered: lost"),
        ("user", None, "x"),
        ("assistant", None, ""),
        ("tool", "aaaaaaaaa", "The tool was not run."),
        ("tool", "bbbbbbbbb", "2"),
        ("user", None, "Hurry!"),
        ("user", None, "A tool answered: 3"),
    ]
    assert openai(VLLM, history) == [message.plain() for message in history]


def test_a_result_is_of_the_last_call_that_has_its_id() -> None:
    calling = said("assistant", "", call("call_0"))
    turns = anthropic("claude-opus-4-6", [said("user", "x"), calling, said("user", "y"), calling, result("call_0")])["messages"]
    assert [turns[place]["content"][0]["content"] for place in (2, 4)] == ["The tool was not run.", "done"]


def test_results_of_calls_with_one_id_come_in_the_order_of_the_calls() -> None:
    history = [said("user", "x"), said("assistant", "", call(""), call("")), result("", "1"), result("", "2")]
    turns = anthropic("claude-opus-4-6", history)["messages"]
    assert [block["content"] for block in turns[2]["content"]] == ["1", "2"]
    assert [block["tool_use_id"] for block in turns[2]["content"]] == [block["id"] for block in turns[1]["content"]]


@pytest.mark.parametrize(("model", "last"), [("claude-opus-4-6", "Continue from where you left off."), ("claude-sonnet-4-5", "Once upon")])
def test_only_a_model_that_continues_the_assistants_message_gets_it_last(model: str, last: str) -> None:
    turns = anthropic(model, [said("user", "A tale."), said("assistant", "Once upon ")])["messages"]
    assert turns[-1]["content"][-1]["text"] == last


def test_a_history_that_the_assistant_begins_gets_a_turn_of_the_users_before_it() -> None:
    turns = anthropic("claude-opus-4-6", [said("system", "Be kind."), said("assistant", "Hello!"), said("user", "Hi.")])["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]


def test_a_systems_message_alone_is_the_users_and_blank_messages_alone_are_refused() -> None:
    body = anthropic("claude-opus-4-6", [said("system", "Tell a joke."), said("user", " ")])
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Tell a joke."}]}]
    assert "system" not in body
    with pytest.raises(InvalidInput) as refused:
        anthropic("claude-opus-4-6", [said("system", ""), said("user", "\n")])
    assert refused.value.param == "messages"


@pytest.mark.parametrize("arguments", ["{broken", "[1]", "7", '{"n": NaN}', '{"n": 1e400}', '{"n": "\\ud83d"}', "[" * 10_000])
def test_arguments_that_are_no_json_object_are_shown_as_the_model_wrote_them(arguments: str) -> None:
    history = [said("user", "x"), said("assistant", "", call("c", arguments=arguments)), result("c")]
    assert anthropic("claude-opus-4-6", history)["messages"][1]["content"][0]["input"] == {"INVALID_JSON": arguments}
    for spec in (ANY_SERVER, VLLM):
        assert json.loads(openai(spec, history)[1]["tool_calls"][0]["function"]["arguments"]) == {"INVALID_JSON": arguments}
    assert openai(OPENAI, history)[1]["tool_calls"][0]["function"]["arguments"] == arguments


def test_what_a_server_wants_back_goes_back_to_it_and_not_to_a_vendor_that_refuses_it() -> None:
    signed = call("call_1", extra_content={"google": {"thought_signature": "c2ln"}})
    thinking = Message(role="assistant", content="", tool_calls=(signed,), reasoning_content="Let me look.")
    history = [said("user", "x"), thinking, result("call_1")]
    sent = openai(ANY_SERVER, history)[1]
    assert (sent["reasoning_content"], sent["tool_calls"][0]["extra_content"]) == ("Let me look.", signed.extra_content)
    groq = OpenAIBackend(model="m", base_url="https://api.groq.com/openai/v1")
    for body in (openai(OPENAI, history), openai(groq, history), openai(MISTRAL, history), anthropic("claude-opus-4-6", history)):
        assert "reasoning_content" not in str(body)
        assert "extra_content" not in str(body)


def test_calls_of_another_vendors_model_are_signed_for_gemini_and_its_own_signatures_stay() -> None:
    gemini = OpenAIBackend(model="gemini-3.1-pro", base_url="https://generativelanguage.googleapis.com/v1beta/openai")
    skipped = {"google": {"thought_signature": "skip_thought_signature_validator"}}
    own = {"google": {"thought_signature": "c2ln"}}

    def signatures(spec: BackendSpec, *calls: ToolCall) -> list[JsonValue]:
        sent = openai(spec, [said("user", "x"), said("assistant", "", *calls), *(result(one.id) for one in calls)])
        return [one.get("extra_content") for one in sent[1]["tool_calls"]]

    assert signatures(gemini, call("a"), call("b")) == [skipped, None]
    assert signatures(gemini, call("a", extra_content=own), call("b")) == [own, None]
    assert signatures(gemini.model_copy(update={"model": "gemini-2.5-pro"}), call("a")) == [None]


def test_a_tools_name_that_the_vendor_refuses_is_the_callers_again_in_the_answer() -> None:
    name, other = "find.order", "find order"
    choice: JsonValue = {"type": "function", "function": {"name": name}}
    tools: list[JsonValue] = [{"type": "function", "function": {"name": one}} for one in (name, other, "get_time")]
    history = [said("user", "x"), said("assistant", "", call("c", name)), result("c")]
    asked = valid(BedrockBackend(model="meta.llama4"), history, {"tools": tools, "tool_choice": choice})
    request = converse_request("meta.llama4", asked.call)
    new, *rest = [tool["toolSpec"]["name"] for tool in request["toolConfig"]["tools"]]
    assert request["toolConfig"]["toolChoice"] == {"tool": {"name": new}}
    assert request["messages"][1]["content"][0]["toolUse"]["name"] == new
    assert rest[1] == "get_time"
    completion = Completion(choices=(Choice("", "tool_calls", (call("d", new), call("e", "get_time"))),), usage=None)
    assert [one.function.name for one in asked.name_tools(completion).choices[0].tool_calls] == [name, "get_time"]
    deltas = (delta for delta in [Delta(text="x"), Delta(tool_calls=(ToolCallDelta(0, id="d", name=rest[0]), ToolCallDelta(0)))])
    renamed = list(asked.name_tools_in_stream(deltas))
    assert [piece.name for delta in renamed for piece in delta.tool_calls] == [other, None]
