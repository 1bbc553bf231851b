"""Which policy answers, what its model is asked, and how that is stored."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from rlaas.chat import Message
from rlaas.errors import Forbidden, InvalidInput, NotFound
from rlaas.inference.decide import InferRequest
from rlaas.inference.infer import decide, infer
from rlaas.inference.spending import Spending
from rlaas.metering.budgets import Budgets, Cap
from rlaas.policies.allowed_models import AllowedModels
from rlaas.routing.assign import CONTROL
from rlaas.telemetry.events import InteractionCreated, OutputProduced
from tests.fakes.backend import EchoBackend
from tests.fakes.counters import MemoryCounters
from tests.fakes.events import MemoryEventStore
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, SKILL, TENANT, furnish_registry, make_canary_route, make_policy, make_route
from tests.unit.inference.asking import ASKER, PRICES, ask, gateway


def test_the_answer_and_why_it_was_given_are_stored() -> None:
    store = MemoryEventStore()
    answer = ask(store, thread_id="t1", user_id="u1")
    assert answer.text == "v1: Reply to: where is my parcel?"
    stored = store.get_many(TENANT, [answer.interaction_id, answer.output_id])
    interaction, output = stored[answer.interaction_id].event(), stored[answer.output_id].event()
    assert isinstance(interaction, InteractionCreated)
    assert isinstance(output, OutputProduced)
    assert (interaction.inputs, interaction.thread_id) == ({"email": "where is my parcel?"}, "t1")
    assert (output.text, output.decision, output.policy_id) == (answer.text, answer.decision, f"{SKILL}@v1")
    assert output.messages == (Message(role="user", content="Reply to: where is my parcel?"),)
    assert (output.usage, output.finish_reason, output.latency_ms) == (answer.usage, "stop", answer.latency_ms)
    assert (output.thread_id, output.user_id, output.interaction_id) == ("t1", "u1", answer.interaction_id)


def test_a_thread_stays_with_its_arm() -> None:
    registry, store = furnish_registry((make_canary_route(2, 0.5),)), MemoryEventStore()
    arms = {thread: {ask(store, registry=registry, thread_id=thread).decision.arm for _ in range(3)} for thread in map(str, range(20))}
    assert all(len(choices) == 1 for choices in arms.values())
    assert {arm for choices in arms.values() for arm in choices} == {CONTROL, f"{SKILL}@v2"}


def test_a_missing_input_is_named_and_nothing_is_stored() -> None:
    store = MemoryEventStore()
    with pytest.raises(InvalidInput) as refusal:
        infer(InferRequest(skill=SKILL, inputs={"mail": "hello"}), ASKER, gateway(store=store))
    assert refusal.value.param == "inputs.email"
    assert store.events == {}


def test_a_skill_without_a_route_is_not_found() -> None:
    with pytest.raises(NotFound) as refusal:
        ask(MemoryEventStore(), registry=MemoryRegistry())
    assert refusal.value.param == "skill"


def chat(*messages: tuple[str, str], inputs: dict[str, str] | None = None) -> tuple[Message, ...]:
    registry = MemoryRegistry()
    registry.put_policy(make_policy(1, system="You work for {{ company }}."), CHANGE)
    registry.write_route(make_route(), expected_version=0)
    request = InferRequest(
        skill=SKILL, messages=tuple(Message.model_validate({"role": role, "content": text}) for role, text in messages), inputs=inputs
    )
    backend = EchoBackend()
    infer(request, ASKER, gateway(registry=registry, backend=backend))
    return backend.requests[0][1]


def test_a_chats_messages_follow_the_policys_system_message() -> None:
    messages = chat(("user", "{{ hello }}"), ("assistant", "hi"), ("user", "bye"), inputs={"company": "Acme"})
    assert [message.content for message in messages] == ["You work for Acme.", "{{ hello }}", "hi", "bye"]


def test_a_chat_that_brings_a_system_message_keeps_it() -> None:
    assert [message.content for message in chat(("system", "Be brief."), ("user", "hello"))] == ["Be brief.", "hello"]


def test_a_requests_parameters_go_before_the_policys() -> None:
    backend = EchoBackend()
    ask(MemoryEventStore(), backend=backend, parameters={"temperature": 1.5, "max_completion_tokens": 9, "top_k": 3, "stop": None})
    assert backend.calls[0].parameters == {"temperature": 1.5, "max_completion_tokens": 9, "top_k": 3}


def test_a_request_that_samples_by_one_parameter_is_not_sampled_by_the_policys_other() -> None:
    """Newer models of Claude refuse `temperature` and `top_p` together."""
    registry, sampling = furnish_registry(), make_policy(1).sampling.model_copy(update={"top_p": 0.9})
    registry.put_policy(make_policy(3).model_copy(update={"sampling": sampling}), CHANGE)
    for asked in ({"top_p": 0.5}, {"temperature": 0.5}, {"temperature": 0.5, "top_p": 0.5}):
        backend = EchoBackend()
        ask(MemoryEventStore(), registry=registry, backend=backend, policy_id=f"{SKILL}@v3", parameters=asked)
        assert backend.calls[0].parameters == {"max_tokens": 256, **asked}


def test_a_policy_may_be_asked_for_and_its_answer_counts_in_no_estimate() -> None:
    answer = ask(MemoryEventStore(), policy_id=f"{SKILL}@v2")
    assert (answer.policy_id, answer.decision.pinned, answer.decision.counts) == (f"{SKILL}@v2", True, False)
    assert sum(one.probability for one in answer.decision.candidates) == 1
    with pytest.raises(NotFound) as missing:
        ask(MemoryEventStore(), policy_id="another-skill@v1")
    assert missing.value.param == "policy_id"


def test_a_dry_run_decides_and_renders_and_stores_nothing() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    request = InferRequest(skill=SKILL, inputs={"email": "?"}, dryrun=True)
    handover = decide(request, ASKER, gateway(store=store, backend=backend))
    assert handover.call.messages == (Message(role="user", content="Reply to: ?"),)
    assert (store.events, backend.requests) == ({}, [])
    decide(request.model_copy(update={"dryrun": False}), ASKER, gateway(store=store))
    assert [event.event_type for event in store.events.values()] == ["interaction"]


def test_nobody_is_told_to_ask_a_model_that_the_stage_does_not_allow() -> None:
    store, stage = MemoryEventStore(), AllowedModels(("openai:*",))
    for dryrun in (True, False):
        with pytest.raises(Forbidden, match="'sagemaker:v1'"):
            decide(InferRequest(skill=SKILL, inputs={"email": "?"}, dryrun=dryrun), ASKER, replace(gateway(store=store), allowed=stage))
    assert not store.events


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"max_tokens": -1_000_000}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_completion_tokens": True}, "max_completion_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"n": -3}, "n"),
        ({"model": "acme--mail--v7"}, "model"),
        ({"messages": []}, "messages"),
        ({"stream": True}, "stream"),
    ],
)
def test_parameters_neither_choose_the_model_nor_bring_the_reservation_down(parameters: dict[str, Any], name: str) -> None:
    with pytest.raises(ValidationError, match=rf"\b{name} is "):
        InferRequest(skill=SKILL, inputs={"email": "?"}, parameters=parameters)


@pytest.mark.parametrize(("name", "newer"), [("functions", "tools"), ("function_call", "tool_choice")])
def test_how_tools_were_called_before_is_refused_by_name(name: str, newer: str) -> None:
    with pytest.raises(InvalidInput, match=f"send {newer}$") as refusal:
        ask(MemoryEventStore(), parameters={name: [{"name": "f"}]})
    assert refusal.value.param == f"parameters.{name}"
    assert ask(MemoryEventStore(), parameters={name: None}).finish_reason == "stop"


def test_a_bound_of_null_is_none_and_the_policys_holds() -> None:
    backend = EchoBackend()
    ask(MemoryEventStore(), backend=backend, parameters={"max_completion_tokens": None, "max_tokens": None, "n": None})
    assert backend.calls[0].parameters["max_tokens"] == make_policy(1).sampling.max_tokens


def test_an_arm_whose_cap_is_spent_leaves_its_share_to_the_control_and_the_probabilities_say_so() -> None:
    arm = make_canary_route(2, 1.0).model_copy(update={"cap": Cap(requests=2)})
    registry, spending = furnish_registry((arm,)), Spending(MemoryCounters(), Budgets(), PRICES)
    answers = [ask(MemoryEventStore(), registry=registry, spending=spending, thread_id="t1") for _ in range(3)]
    assert [answer.policy_id[-2:] for answer in answers] == ["v2", "v2", "v1"]
    last = answers[-1].decision
    assert (last.propensity, last.fallback, last.reason) == (1.0, False, "the arm's cap is spent")
    assert [one.arm for one in last.candidates] == [CONTROL]
