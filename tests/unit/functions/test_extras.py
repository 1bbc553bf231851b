"""RLaaS's own fields in the bodies of three APIs, which any framework can send that lets its user add to a body."""

from typing import Any

import httpx
import openai
import pytest

from rlaas.ids import make_pseudonym
from rlaas.policies.bundle import Policy
from rlaas.policies.prompt_graph import ShortPrompt
from rlaas.telemetry.events import InteractionCreated, OutputProduced
from tests.fakes.model_server import ModelServer
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, make_policy
from tests.unit.functions.conftest import Stage

HELLO = [{"role": "user", "content": "hello"}]
EXTRAS: dict[str, Any] = {
    "rlaas::interaction_id": "ticket-7",
    "rlaas::thread_id": "t1",
    "rlaas::user_id": "kim@shop.example",
    "rlaas::inputs": {"name": "Kim"},
    "rlaas::tags": ["beta"],
}
DOORS: dict[str, dict[str, Any]] = {
    "/chat/completions": {"messages": HELLO},
    "/responses": {"input": "hello"},
    "/messages": {"messages": HELLO, "max_tokens": 64},
}


@pytest.fixture
def greeting(furnished_stage: Stage) -> str:
    """A policy whose prompt greets the input `name`, as a client names it."""
    prompt = ShortPrompt(system="You answer {{ name }}.", user="{{ email }}").graph()
    bundle = make_policy(3).model_copy(update={"prompt": prompt})
    furnished_stage.registry.put_policy(Policy.of(bundle, tenant_id=TENANT, skill=SKILL, version=3, created_at=NOW), CHANGE)
    return f"rlaas::{SKILL}@v3"


@pytest.mark.parametrize("path", DOORS)
def test_a_caller_chooses_the_interaction_the_user_and_the_inputs(
    furnished_stage: Stage, client: openai.OpenAI, model: ModelServer, greeting: str, path: str
) -> None:
    response = client.post(path, cast_to=httpx.Response, body={"model": greeting, **DOORS[path], **EXTRAS})
    answer = response.json()
    interaction = furnished_stage.events.get_many(TENANT, ["ticket-7"])["ticket-7"].event()
    assert isinstance(interaction, InteractionCreated)
    assert (interaction.thread_id, interaction.user_id, interaction.inputs) == ("t1", make_pseudonym("kim@shop.example"), {"name": "Kim"})
    assert interaction.tags == ("beta",)
    assert model.requests[0].body["messages"] == [{"role": "system", "content": "You answer Kim."}, {"role": "user", "content": "hello"}]
    assert not [name for name in model.requests[0].body if "rlaas" in name]
    output = furnished_stage.events.get_many(TENANT, [answer["id"]])[answer["id"]].event()
    assert isinstance(output, OutputProduced)
    assert (output.interaction_id, answer["rlaas::interaction_id"]) == ("ticket-7", "ticket-7")


@pytest.mark.parametrize("path", DOORS)
def test_a_request_sent_again_under_its_interaction_is_told_the_id_of_its_answer(
    client: openai.OpenAI, model: ModelServer, greeting: str, path: str
) -> None:
    first, again = (client.post(path, cast_to=httpx.Response, body={"model": greeting, **DOORS[path], **EXTRAS}).json() for _ in range(2))
    assert first["id"] == again["id"]
    assert len(model.requests) == 1
