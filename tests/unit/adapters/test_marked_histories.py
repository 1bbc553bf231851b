"""Histories with marks of the cache anywhere in them are valid for the vendors that take marks."""

from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import JsonValue

from rlaas.adapters.models.anthropic_requests import messages_body
from rlaas.adapters.models.bedrock import converse_request
from rlaas.adapters.models.history_rules import find_rules
from rlaas.adapters.models.valid_history import make_valid
from rlaas.chat import ChatCall, Message
from rlaas.inference.cached_prompts import order_marks
from rlaas.policies.backend import AnthropicBackend, BedrockBackend
from rlaas.prompt_cache import CacheMark, CacheTtl
from tests.fakes.vendor_rules import check_anthropic_request, check_converse_request
from tests.unit.adapters.histories import illustrated_histories, parameters_of_calls, say_nothing

CLAUDES = {"claude-sonnet-4-5": True, "claude-opus-4-6": False}
"""Models of Anthropic's, and whether they continue a last message of the assistant."""
BEDROCKS = {"eu.anthropic.claude-sonnet-4-5-20250929-v1:0": True, "us.anthropic.claude-opus-4-6-v1": False, "amazon.nova-pro-v1:0": True}


@st.composite
def marked_histories(draw: st.DrawFn) -> tuple[Message, ...]:
    """Any messages at all, with marks of the cache anywhere in them."""
    marks = st.lists(st.builds(CacheMark, ttl=st.sampled_from(["5m", "1h"]), at=st.none() | st.integers(0, 20)), max_size=2)
    return tuple(message.model_copy(update={"cache_marks": tuple(draw(marks))}) for message in draw(illustrated_histories()))


@given(st.sampled_from(list(CLAUDES)), marked_histories(), parameters_of_calls(), st.sampled_from([{}, {0: "5m"}, {0: "1h"}]))
def test_any_marked_history_is_valid_for_anthropic_and_no_hour_follows_five_minutes(
    model: str, messages: tuple[Message, ...], parameters: dict[str, JsonValue], tool_marks: dict[int, CacheTtl]
) -> None:
    assume(not say_nothing(messages))
    call = order_marks(ChatCall(messages, {"max_tokens": 64, **parameters}, "acme", tool_marks=tool_marks))
    body: Any = messages_body(model, make_valid(call, find_rules(AnthropicBackend(model=model, secret="vendor"))).call)
    assert check_anthropic_request(body, ends_with_assistant=CLAUDES[model]) == []
    system = body.get("system", [])
    blocks = [*body.get("tools", []), *(system if isinstance(system, list) else [])]
    for turn in body["messages"]:
        for block in turn["content"]:
            inner = block.get("content")
            blocks += [*(inner if isinstance(inner, list) else []), block]
    ttls = [block["cache_control"].get("ttl", "5m") for block in blocks if "cache_control" in block]
    assert ttls == sorted(ttls)
    assert len(ttls) <= len(call.tool_marks) + sum(len(message.list_cache_ttls()) for message in messages)


@given(st.sampled_from(list(BEDROCKS)), marked_histories())
def test_any_marked_history_is_valid_for_bedrock(model: str, messages: tuple[Message, ...]) -> None:
    assume(not say_nothing(messages))
    call = order_marks(ChatCall(messages, {"max_tokens": 64}, "acme"))
    request = converse_request(model, make_valid(call, find_rules(BedrockBackend(model=model))).call)
    assert check_converse_request(request, ends_with_assistant=BEDROCKS[model]) == []
