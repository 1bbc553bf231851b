"""Histories for servers of OpenAI's chat API whose vendors have rules of their own."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rlaas.adapters.models.history_rules import find_rules
from rlaas.adapters.models.openai_chat import chat_body
from rlaas.adapters.models.valid_history import make_valid
from rlaas.chat import ChatCall, Message
from rlaas.policies.backend import OpenAIBackend, SageMakerBackend
from tests.fakes.vendor_rules import check_gemini_messages, check_mistral_messages, check_paired_calls
from tests.unit.adapters.histories import ANY_MESSAGES, call, openai, openai_histories, result, said, say_nothing

Check = Callable[[list[dict[str, Any]]], Iterable[str]]


def server(model: str, host: str) -> OpenAIBackend:
    return OpenAIBackend(model=model, base_url=f"https://{host}/v1")


MISTRAL = server("mistral-large", "api.mistral.ai")
DEVSTRAL = server("mistralai/Devstral-Small-2507", "models.example")
GEMINI = server("gemini-2.5-pro", "generativelanguage.googleapis.com")
DEEPSEEK = server("deepseek-chat", "api.deepseek.com")
KIMI = server("kimi-k2.6", "api.moonshot.ai")
OPENAIS = [server("gpt-5.4", host) for host in ("api.openai.com", "eu.api.openai.com", "a.openai.azure.com", "a.services.ai.azure.com")]
RULES: list[tuple[OpenAIBackend, Check]] = [
    (MISTRAL, check_mistral_messages),
    (DEVSTRAL, check_mistral_messages),
    (GEMINI, check_gemini_messages),
    (server("gemini-3.1-pro", "generativelanguage.googleapis.com"), check_gemini_messages),
    *((spec, check_paired_calls) for spec in (DEEPSEEK, KIMI, *OPENAIS)),
]


@given(st.sampled_from(RULES), ANY_MESSAGES | openai_histories())
def test_any_history_is_valid_by_the_servers_own_rules(rule: tuple[OpenAIBackend, Check], messages: tuple[Message, ...]) -> None:
    assume(not say_nothing(messages))
    spec, check = rule
    assert [*check(openai(spec, messages))] == []


@given(ANY_MESSAGES | openai_histories(), st.sampled_from(["mistral-small-3.2-24b", "devstral-small-2507"]))
def test_any_history_is_valid_for_the_family_of_the_stages_own_model(messages: tuple[Message, ...], base_model: str) -> None:
    assume(not say_nothing(messages))
    call = ChatCall(messages=messages, parameters={"max_tokens": 64}, tenant_id="acme")
    adapter = SageMakerBackend(endpoint="rlaas-prod", component="rlaas-prod--acme--drafts--v2")
    valid_call = make_valid(call, find_rules(adapter, base_model=base_model)).call
    body: Any = chat_body(valid_call, stream=False)
    assert [*check_mistral_messages(body["messages"])] == []


def test_mistrals_assistant_says_something_between_a_tools_result_and_the_user() -> None:
    history = [said("user", "x"), said("assistant", "", call("aaaaaaaaa")), result("aaaaaaaaa"), said("user", "Wait!")]
    for spec in (MISTRAL, DEVSTRAL):
        sent = openai(spec, history)
        assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "user"]
        assert sent[3]["content"] == "(The assistant said nothing.)"
    assert [message["role"] for message in openai(DEEPSEEK, history)] == ["user", "assistant", "tool", "user"]


@pytest.mark.parametrize("spec", [MISTRAL, GEMINI])
def test_a_user_goes_on_where_the_model_does_not_continue_the_assistant(spec: OpenAIBackend) -> None:
    assert openai(spec, [said("user", "A tale."), said("assistant", "Once")])[-1] == {
        "role": "user",
        "content": "Continue from where you left off.",
    }


@pytest.mark.parametrize("spec", [DEEPSEEK, KIMI])
def test_who_wants_the_thoughts_of_who_called_tools_gets_his_own_or_a_blank(spec: OpenAIBackend) -> None:
    thought = said("assistant", "", call("b")).model_copy(update={"reasoning_content": "Let me look."})
    history = [said("user", "x"), said("assistant", "", call("a")), result("a"), thought, result("b")]
    assert [message.get("reasoning_content") for message in openai(spec, history)] == [None, " ", None, "Let me look.", None]
    assert openai(spec, [said("user", "x"), said("assistant", "y"), said("user", "z")])[1] == {"role": "assistant", "content": "y"}


@pytest.mark.parametrize("spec", [*OPENAIS, server("gpt-oss-120b", "api.cerebras.ai"), MISTRAL, GEMINI])
def test_thoughts_stay_away_from_who_refuses_them(spec: OpenAIBackend) -> None:
    thought = said("assistant", "y").model_copy(update={"reasoning_content": "Let me look."})
    assert "reasoning_content" not in str(openai(spec, [said("user", "x"), thought, said("user", "z")]))
