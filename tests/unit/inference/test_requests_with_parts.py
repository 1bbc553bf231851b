"""Requests with images, sounds and files: what is stored, counted and mirrored of them."""

import base64
import json
from dataclasses import replace

import pytest

from rlaas.chat import ChatCall, Completion, Message
from rlaas.errors import Conflict, InvalidInput, PartRefused
from rlaas.inference.decide import InferRequest
from rlaas.inference.earlier_response import find_earlier
from rlaas.inference.infer import infer
from rlaas.inference.record import Answer
from rlaas.inference.spending import count_prompt_tokens
from rlaas.parts import MOST_PARTS, Part, read_part
from rlaas.policies.backend import BackendSpec
from rlaas.preferences.pairs import build_pairs
from rlaas.privacy.scrub import Scrubber
from rlaas.privacy.settings import PrivacySettings
from rlaas.routing.route import Arm
from rlaas.telemetry.events import FeedbackSubmitted, InteractionCreated, OutputProduced
from rlaas.telemetry.ingest import prepare
from tests.fakes.backend import EchoBackend
from tests.fakes.events import MemoryEventStore
from tests.fakes.registry import MemoryRegistry
from tests.fakes.worlds import NOW, SKILL, TENANT, furnish_registry, make_canary_route
from tests.unit.inference.asking import ASKER, BLOCK_LIST, gateway, guard_policy

DATA = base64.b64encode(b"a picture of kim@shop.example").decode()
PNG = f"data:image/png;base64,{DATA}"
LINK = "https://pictures.example/a.png?signature=s3cret"
IMAGES = (read_part("image", PNG), read_part("image", LINK).model_copy(update={"at": 3}))


def ask(
    store: MemoryEventStore,
    *parts: Part,
    text: str = "Who is it?",
    registry: MemoryRegistry | None = None,
    backend: EchoBackend | None = None,
    scrubber: Scrubber | None = None,
) -> Answer:
    request = InferRequest(skill=SKILL, messages=(Message(role="user", content=text, parts=parts),), interaction_id="mine")
    asked = gateway(store=store, registry=registry, backend=backend)
    return infer(request, ASKER, asked if scrubber is None else replace(asked, scrubber=scrubber))


def test_a_model_sees_the_images_and_the_store_their_references() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    ask(store, *IMAGES, backend=backend, scrubber=Scrubber(settings=PrivacySettings(), salt=b"x" * 16))
    assert [part.url for part in backend.requests[0][1][-1].parts] == [PNG, LINK]
    payloads = [stored.payload for stored in store.events.values()]
    assert len(payloads) == 2
    for payload in payloads:
        assert not [secret for secret in (DATA, "s3cret", "pictures.example") if secret in payload]
        [message, *_] = reversed(json.loads(payload)["messages"])
        assert message["parts"] == [part.model_dump(mode="json", exclude_none=True) for part in IMAGES]
    assert {type(stored.event()) for stored in store.events.values()} == {InteractionCreated, OutputProduced}


def test_the_same_image_is_the_same_request_and_another_is_another() -> None:
    store, backend = MemoryEventStore(), EchoBackend()
    first = ask(store, IMAGES[0], backend=backend)
    again = ask(store, IMAGES[0], backend=backend)
    assert (again.output_id, again.replay, len(backend.requests)) == (first.output_id, True, 1)
    with pytest.raises(Conflict):
        ask(store, IMAGES[1], backend=backend)


def test_budgets_set_aside_the_most_that_images_may_count() -> None:
    def count(*parts: Part) -> int:
        return count_prompt_tokens(ChatCall(messages=(Message(role="user", content="", parts=parts),), parameters={}, tenant_id=TENANT))

    assert count(*IMAGES) - count() == sum(part.most_tokens for part in IMAGES)


def test_a_request_with_images_has_no_shadows() -> None:
    shadow = Arm(policy_id=f"{SKILL}@v2", mode="shadow", weight=1.0)
    assert ask(MemoryEventStore(), registry=furnish_registry((shadow,))).decision.shadows == (f"{SKILL}@v2",)
    assert ask(MemoryEventStore(), IMAGES[0], registry=furnish_registry((shadow,))).decision.shadows == ()


def test_the_control_answers_for_a_canary_that_reads_text_alone() -> None:
    class Reader(EchoBackend):
        """The model v2 reads text alone."""

        def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
            if backend.model == "v2" and any(message.parts for message in call.messages):
                raise PartRefused("it takes no image", param="messages")
            return super().complete(backend, call, timeout_s=timeout_s)

    registry = furnish_registry((make_canary_route(2, 1.0),))
    read = ask(MemoryEventStore(), registry=registry, backend=Reader())
    assert (read.text.partition(":")[0], read.decision.fallback) == ("v2", False)
    seen = ask(MemoryEventStore(), IMAGES[0], registry=registry, backend=Reader())
    assert (seen.text.partition(":")[0], seen.decision.fallback) == ("v1", True)
    assert "it takes no image" in seen.decision.reason


def test_where_a_guardrail_changes_the_text_images_go_before_it() -> None:
    backend = EchoBackend()
    guardrail = {**BLOCK_LIST, "action": "redact"}
    ask(MemoryEventStore(), *IMAGES, text="It's a parcel bomb", registry=guard_policy(input=[guardrail]), backend=backend)
    message = backend.requests[0][1][-1]
    assert "bomb" not in message.content
    assert [(part.url, part.at) for part in message.parts] == [(PNG, 0), (LINK, 0)]


def test_a_response_to_images_is_not_gone_on_from_since_they_are_not_stored() -> None:
    store = MemoryEventStore()
    answer = ask(store, IMAGES[0])
    with pytest.raises(InvalidInput, match="not stored") as refusal:
        find_earlier(answer.output_id, TENANT, store)
    assert refusal.value.param == "previous_response_id"


def test_outputs_to_images_teach_nothing_since_nobody_knows_what_was_seen() -> None:
    store = MemoryEventStore()
    answer = ask(store, IMAGES[0])
    feedback = FeedbackSubmitted(
        skill=SKILL, interaction_id="mine", output_id=answer.output_id, kind="edit", final_text="It is Kim, I think."
    )
    events = [*store.events.values(), prepare(feedback, TENANT, received_at=NOW)]
    result = build_pairs(events)
    assert (len(result.pairs), result.dropped) == (0, {"not_text": 1})


def test_a_request_has_a_bounded_number_of_parts() -> None:
    parts = (read_part("image", LINK),) * (MOST_PARTS // 2)
    messages = tuple(Message(role="user", content="", parts=parts) for _ in range(2))
    InferRequest(skill=SKILL, messages=messages)
    with pytest.raises(InvalidInput, match="more than 100"):
        InferRequest(skill=SKILL, messages=(*messages, Message(role="user", content="", parts=parts[:1])))
