"""What a request of the Responses API refers to: earlier responses and their items, of this tenant alone."""

import json
from typing import Any

import openai
import pytest

from functions.inference.handler import handler as inference
from rlaas.chat import Message
from rlaas.privacy.settings import TenantPrivacy
from rlaas.telemetry.events import InteractionCreated, OutputProduced
from rlaas.telemetry.ingest import prepare
from rlaas.tenancy.registry import PRIVACY
from tests.fakes.completions import TOOLS, make_calls, make_completion
from tests.fakes.gateway import make_lambda_context, make_proxy_event
from tests.fakes.model_server import ModelServer
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, make_canary_route, make_route
from tests.unit.functions.conftest import Stage, openai_client

MODEL = f"rlaas::{SKILL}"


def prompt(model: ModelServer) -> list[tuple[str, str]]:
    """Who says what in the prompt that was sent last."""
    return [(message["role"], message["content"]) for message in model.requests[-1].body["messages"]]


def interaction_of(stage: Stage, response: Any) -> InteractionCreated:
    interaction_id = response.to_dict()["rlaas::interaction_id"]
    event = stage.events.get_many(TENANT, [interaction_id])[interaction_id].event()
    assert isinstance(event, InteractionCreated)
    return event


def test_a_previous_response_goes_before_the_input_without_its_instructions(
    furnished_stage: Stage, client: openai.OpenAI, model: ModelServer
) -> None:
    first = client.responses.create(
        model=MODEL, input=[{"role": "system", "content": "Stay."}, {"role": "user", "content": "one"}], instructions="Go."
    )
    second = client.responses.create(model=MODEL, input="two", previous_response_id=first.id, instructions="Come.")
    assert second.previous_response_id == first.id
    assert prompt(model) == [("system", "Come."), ("system", "Stay."), ("user", "one"), ("assistant", "v2: one"), ("user", "two")]
    with client.responses.stream(model=MODEL, input="three", previous_response_id=second.id) as stream:
        third = stream.get_final_response()
    assert prompt(model) == [
        ("system", "Stay."),
        ("user", "one"),
        ("assistant", "v2: one"),
        ("user", "two"),
        ("assistant", "v2: two"),
        ("user", "three"),
    ]
    thread = interaction_of(furnished_stage, second).thread_id
    assert thread == first.to_dict()["rlaas::interaction_id"]
    assert interaction_of(furnished_stage, third).thread_id == thread


def test_two_responses_to_one_previous_are_two_branches(client: openai.OpenAI, model: ModelServer) -> None:
    first = client.responses.create(model=MODEL, input="one", extra_body={"rlaas::thread_id": "t1"})
    left = client.responses.create(model=MODEL, input="left", previous_response_id=first.id)
    right = client.responses.create(model=MODEL, input="right", previous_response_id=first.id)
    assert prompt(model) == [("user", "one"), ("assistant", "v2: one"), ("user", "right")]
    client.responses.create(model=MODEL, input="on", previous_response_id=left.id)
    assert [content for _, content in prompt(model)] == ["one", "v2: one", "left", "v2: left", "on"]
    assert len({first.id, left.id, right.id}) == 3


@pytest.mark.parametrize("unit", ["thread", "user"])
def test_a_conversation_keeps_its_arm(furnished_stage: Stage, client: openai.OpenAI, unit: str) -> None:
    split = make_route(arms=(make_canary_route(2, 0.5),), version=2).model_copy(update={"unit": unit})
    furnished_stage.registry.write_route(split, expected_version=1)
    arms = set()
    for number in range(6):
        interaction: Any = {"rlaas::interaction_id": f"i{number}"}
        response = client.responses.create(model=MODEL, input="hello", user=f"u{number}", extra_body=interaction)
        policies = {response.to_dict()["rlaas::policy_id"]}
        for _ in range(2):
            response = client.responses.create(model=MODEL, input="on", previous_response_id=response.id)
            policies.add(response.to_dict()["rlaas::policy_id"])
        assert len(policies) == 1
        arms |= policies
    assert len(arms) == 2


def test_an_answer_of_a_chat_is_gone_on_from(client: openai.OpenAI, model: ModelServer) -> None:
    chat = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "one"}])
    client.responses.create(model=MODEL, input="two", previous_response_id=chat.id)
    assert prompt(model) == [("user", "one"), ("assistant", "v2: one"), ("user", "two")]


def test_an_item_may_be_named_in_place_of_being_sent(client: openai.OpenAI, model: ModelServer) -> None:
    first = client.responses.create(model=MODEL, input="one")
    model.nonsense = make_calls("find_order", "refund")
    second = client.responses.create(model=MODEL, input="two", tools=TOOLS)
    model.nonsense = None
    references: Any = [{"type": "item_reference", "id": item.id} for item in (*first.output, *first.output, second.output[1])]
    output: Any = {"type": "function_call_output", "call_id": "call_refund", "output": "done"}
    client.responses.create(model=MODEL, input=[{"role": "user", "content": "one"}, *references, output])
    assert model.requests[-1].body["messages"][1] == {
        "role": "assistant",
        "content": "v2: one",
        "tool_calls": [{"id": "call_refund", "type": "function", "function": {"name": "refund", "arguments": '{"id":"7"}'}}],
    }


def test_what_a_model_thought_is_gone_on_from_and_may_be_named(furnished_stage: Stage, client: openai.OpenAI, model: ModelServer) -> None:
    thought = OutputProduced(skill=SKILL, interaction_id="i1", output_id="o1", text="Hi", reasoning_content="Hm.")
    asked = InteractionCreated(skill=SKILL, interaction_id="i1", messages=(Message(role="user", content="one"),))
    for event in (asked, thought):
        furnished_stage.events.put_new(prepare(event, TENANT, received_at=NOW))
    client.responses.create(model=MODEL, input="two", previous_response_id="o1")
    references: Any = [{"type": "item_reference", "id": one} for one in ("rs_o1", "msg_o1")]
    answer = {"role": "assistant", "content": "Hi", "reasoning_content": "Hm."}
    assert model.requests[-1].body["messages"][1] == answer
    bound = OutputProduced(skill=SKILL, interaction_id="i1", output_id="out_o1", text="Hi", reasoning_content="Hm.")
    furnished_stage.events.put_new(prepare(bound, TENANT, received_at=NOW))
    client.responses.create(model=MODEL, input=[{"role": "user", "content": "one"}, *references])
    assert model.requests[-1].body["messages"][1] == answer


def refused_id(client: openai.OpenAI, response_id: str) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as refused:
        client.responses.create(model=MODEL, input="two", previous_response_id=response_id)
    assert refused.value.param == "previous_response_id"
    return refused.value


def test_another_tenants_response_does_not_exist(furnished_stage: Stage, client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="one")
    furnished_stage.registry.put("another", PRIVACY, TenantPrivacy(), CHANGE)
    with openai_client("another") as stranger:
        refusal = refused_id(stranger, response.id)
        assert (refusal.status_code, refusal.code) == (404, "previous_response_not_found")
        with pytest.raises(openai.NotFoundError) as refused:
            stranger.responses.create(model=MODEL, input=[{"type": "item_reference", "id": str(response.output[0].id)}])
        assert refused.value.param == "input.0.id"
    assert response.id not in refusal.message


def test_what_is_no_response_is_not_gone_on_from(furnished_stage: Stage, client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="one")
    interaction = str(response.to_dict()["rlaas::interaction_id"])
    for other in ("resp_1", interaction, "out_01ARZ3NDEKTSV4RRFFQ69G5FAV_x", "x" * 500, "T#acme"):
        refusal = refused_id(client, other)
        assert (refusal.status_code, refusal.code) == (404, "previous_response_not_found")


def test_a_response_that_is_not_to_be_stored_takes_feedback_and_is_not_gone_on_from(furnished_stage: Stage, client: openai.OpenAI) -> None:
    response = client.responses.create(model=MODEL, input="one", store=False, metadata={"page": "7"})
    assert (response.to_dict()["store"], response.metadata) == (False, {"page": "7"})
    assert furnished_stage.events.get_many(TENANT, [response.id])[response.id].event_type == "output"
    assert refused_id(client, response.id).code == "previous_response_not_found"
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model=MODEL, input=[{"type": "item_reference", "id": str(response.output[0].id)}])


def test_an_answer_to_inputs_is_not_gone_on_from(furnished_stage: Stage, client: openai.OpenAI) -> None:
    answer = inference(make_proxy_event("/v1/infer", {"skill": SKILL, "inputs": {"email": "hello"}}), make_lambda_context())
    refusal = refused_id(client, json.loads(str(answer["body"]))["output_id"])
    assert (refusal.status_code, "inputs" in refusal.message) == (400, True)


def test_an_answer_that_was_cut_to_be_stored_is_not_gone_on_from(client: openai.OpenAI, model: ModelServer) -> None:
    model.nonsense = make_completion({"content": "x" * 500_000})
    response = client.responses.create(model=MODEL, input="one")
    model.nonsense = None
    refusal = refused_id(client, response.id)
    assert (refusal.status_code, "too large" in refusal.message) == (400, True)


def test_a_conversation_that_was_too_large_to_be_stored_is_not_gone_on_from(client: openai.OpenAI, model: ModelServer) -> None:
    response = client.responses.create(model=MODEL, input="x" * 2_000_000)
    assert len(model.requests[-1].body["messages"][-1]["content"]) == 2_000_000
    refusal = refused_id(client, response.id)
    assert (refusal.status_code, "too large" in refusal.message) == (400, True)


def test_personal_data_of_a_previous_response_is_masked(client: openai.OpenAI, model: ModelServer) -> None:
    first = client.responses.create(model=MODEL, input="I am kim@shop.example")
    client.responses.create(model=MODEL, input="Who am I?", previous_response_id=first.id)
    assert "kim@shop.example" not in json.dumps(model.requests[-1].body)


def test_a_call_whose_id_looks_like_a_card_is_still_answered(client: openai.OpenAI, model: ModelServer) -> None:
    identifier = "chatcmpl-tool-50ef60c100444bae6041332189890853"
    model.nonsense = make_calls("find_order").replace("call_find_order", identifier)
    first = client.responses.create(model=MODEL, input="one", tools=TOOLS)
    model.nonsense = None
    output: Any = {"type": "function_call_output", "call_id": identifier, "output": "done"}
    reference: Any = {"type": "item_reference", "id": first.output[0].id}
    client.responses.create(model=MODEL, input=[output], previous_response_id=first.id)
    client.responses.create(model=MODEL, input=[{"role": "user", "content": "one"}, reference, output])
    for asked in model.requests[-2:]:
        _, call, answer = asked.body["messages"]
        assert call["tool_calls"][0]["id"] == answer["tool_call_id"] == identifier
