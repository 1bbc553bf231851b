from itertools import count

import pytest

from rlaas.errors import Conflict, DependencyUnavailable, InvalidInput, NotFound
from rlaas.inference.infer import Answer, InferRequest, infer
from rlaas.routing.assign import CONTROL
from rlaas.telemetry.events import InteractionCreated, Message, OutputProduced
from tests.fakes.backend import EchoBackend
from tests.fakes.events import MemoryEventStore
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import CHANGE, SKILL, TENANT, canary, clock, furnished, policy, route


def ask(
    store: MemoryEventStore,
    *,
    registry: MemoryRegistry | None = None,
    backend: EchoBackend | None = None,
    email: str = "where is my parcel?",
    key: str | None = None,
    **fields: str,
) -> Answer:
    request = InferRequest.model_validate({"skill": SKILL, "inputs": {"email": email}, **fields})
    ticks = count()
    return infer(
        request,
        TENANT,
        routes=registry or furnished(),
        backend=backend or EchoBackend(),
        store=store,
        scrubber=AS_IT_IS,
        clock=clock,
        idempotency_key=key,
        timer=lambda: float(next(ticks)),
    )


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
    assert (output.usage, output.finish_reason, output.latency_ms) == (answer.usage, "stop", 1000.0)
    assert (output.thread_id, output.user_id, output.interaction_id) == ("t1", "u1", answer.interaction_id)


def test_a_thread_stays_with_its_arm() -> None:
    registry, store = furnished((canary(2, 0.5),)), MemoryEventStore()
    arms = {thread: {ask(store, registry=registry, thread_id=thread).decision.arm for _ in range(3)} for thread in map(str, range(20))}
    assert all(len(taken) == 1 for taken in arms.values())
    assert {arm for taken in arms.values() for arm in taken} == {CONTROL, f"{SKILL}@v2"}


def test_a_request_sent_again_gets_the_stored_output_and_the_model_is_not_asked() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    first = ask(store, backend=backend, interaction_id="mine")
    again = ask(store, backend=backend, registry=furnished((canary(2, 1.0),)), interaction_id="mine")
    assert again.replay
    assert (again.output_id, again.text, again.decision) == (first.output_id, first.text, first.decision)
    assert len(backend.asked) == 1
    assert len(store.events) == 2


def test_an_idempotency_key_stands_in_for_the_interaction_id() -> None:
    store = MemoryEventStore()
    first = ask(store, key="retry-1")
    assert ask(store, key="retry-1").output_id == first.output_id
    assert ask(store, key="retry-2").output_id != first.output_id


def test_a_request_whose_model_failed_is_answered_when_sent_again() -> None:
    store = MemoryEventStore()
    with pytest.raises(DependencyUnavailable):
        ask(store, backend=EchoBackend(down={"v1"}), interaction_id="mine")
    assert [event.event_type for event in store.events.values()] == ["interaction"]
    assert not ask(store, interaction_id="mine").replay


def test_an_interaction_id_with_another_payload_conflicts() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    ask(store, interaction_id="mine")
    with pytest.raises(Conflict) as conflict:
        ask(store, backend=backend, interaction_id="mine", email="another")
    assert conflict.value.param == "interaction_id"
    assert backend.asked == []


def test_the_control_answers_for_an_arm_that_does_not_and_the_decision_says_so() -> None:
    backend = EchoBackend(down={"v2"})
    answer = ask(MemoryEventStore(), registry=furnished((canary(2, 0.999),)), backend=backend, thread_id="t1")
    assert (answer.policy_id, answer.decision.arm, answer.decision.fallback) == (f"{SKILL}@v1", CONTROL, True)
    assert answer.decision.propensity == pytest.approx(0.001)
    assert answer.decision.reason == f"fallback: {SKILL}@v2 did not answer"
    assert [component for component, _, _ in backend.asked] == ["v2", "v1"]
    assert sum(timeout for _, _, timeout in backend.asked) <= 26


def test_when_the_control_is_down_too_the_failure_is_the_dependencys() -> None:
    backend = EchoBackend(down={"v1", "v2"})
    with pytest.raises(DependencyUnavailable):
        ask(MemoryEventStore(), registry=furnished((canary(2, 1.0),)), backend=backend)
    assert len(backend.asked) == 2


def test_a_missing_input_is_named_and_nothing_is_stored() -> None:
    store = MemoryEventStore()
    with pytest.raises(InvalidInput) as refused:
        infer(
            InferRequest(skill=SKILL, inputs={"mail": "hello"}),
            TENANT,
            routes=furnished(),
            backend=EchoBackend(),
            store=store,
            scrubber=AS_IT_IS,
            clock=clock,
        )
    assert refused.value.param == "inputs.email"
    assert store.events == {}


def test_a_skill_without_a_route_is_not_found() -> None:
    with pytest.raises(NotFound) as refused:
        ask(MemoryEventStore(), registry=MemoryRegistry())
    assert refused.value.param == "skill"


def chat(*messages: tuple[str, str], inputs: dict[str, str] | None = None) -> tuple[Message, ...]:
    registry = MemoryRegistry()
    registry.put_policy(policy(1, system="You work for {{ company }}."), CHANGE)
    registry.write_route(route(), expected_version=0)
    request = InferRequest(
        skill=SKILL, messages=tuple(Message.model_validate({"role": role, "content": text}) for role, text in messages), inputs=inputs
    )
    backend = EchoBackend()
    infer(request, TENANT, routes=registry, backend=backend, store=MemoryEventStore(), scrubber=AS_IT_IS, clock=clock)
    return backend.asked[0][1]


def test_a_chats_messages_follow_the_policys_system_message() -> None:
    asked = chat(("user", "{{ hello }}"), ("assistant", "hi"), ("user", "bye"), inputs={"company": "Acme"})
    assert [message.content for message in asked] == ["You work for Acme.", "{{ hello }}", "hi", "bye"]


def test_a_chat_that_brings_a_system_message_keeps_it() -> None:
    assert [message.content for message in chat(("system", "Be brief."), ("user", "hello"))] == ["Be brief.", "hello"]
