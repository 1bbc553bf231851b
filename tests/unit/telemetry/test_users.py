"""A user is one user, whichever way the events came."""

import json

import pytest

from rlaas.ids import make_pseudonym
from rlaas.inference.chat_completions import ChatRequest, to_infer
from rlaas.inference.decide import InferRequest
from rlaas.telemetry.events import InteractionCreated
from rlaas_sdk.imports.identity import external_id

MAIL = "kim@shop.example"
TEXTS = [MAIL, "Kim Example", "usr-7", "ünï", "x" * 65, "x" * 1_000_000, " ", "a\nb", "\udc00"]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:20]))
def test_the_service_and_the_sdk_give_a_text_the_same_id(text: str) -> None:
    pseudonym = make_pseudonym(text)
    assert pseudonym == external_id("usr", text)
    assert pseudonym is not None
    assert len(pseudonym) <= 64
    assert make_pseudonym(pseudonym) == pseudonym


def test_an_id_stays_and_no_text_is_no_user() -> None:
    assert make_pseudonym("agent_7-x") == "agent_7-x"
    assert make_pseudonym("") is make_pseudonym(None) is None


def chat(**fields: object) -> InferRequest:
    body = {"model": "rlaas::emails", "messages": [{"role": "user", "content": "Hi"}], **fields}
    return to_infer(ChatRequest.model_validate_json(json.dumps(body)))


def test_an_email_as_user_is_the_same_pseudonym_in_a_chat_an_infer_and_an_event() -> None:
    expected = external_id("usr", MAIL)
    assert chat(user=MAIL).user_id == expected
    assert chat(safety_identifier=MAIL).user_id == expected
    assert chat(**{"rlaas::user_id": MAIL, "user": "someone-else"}).user_id == expected
    inferred = InferRequest.model_validate_json(json.dumps({"skill": "emails", "inputs": {}, "user_id": MAIL}))
    event = InteractionCreated.model_validate_json(json.dumps({"skill": "emails", "inputs": {}, "user_id": MAIL}))
    assert inferred.user_id == event.user_id == expected
    assert InteractionCreated.model_validate_json(event.model_dump_json()) == event


def test_nothing_of_the_text_is_kept_or_goes_to_a_vendor() -> None:
    parameters = {"user": MAIL, "safety_identifier": MAIL, "prompt_cache_key": "support-v2"}
    inferred = InferRequest.model_validate_json(json.dumps({"skill": "emails", "inputs": {}, "parameters": parameters}))
    chatted = chat(user=MAIL, safety_identifier=MAIL, prompt_cache_key="support-v2")
    for request in (inferred, chatted):
        assert MAIL not in request.model_dump_json()
        assert request.parameters["prompt_cache_key"] == "support-v2"
    assert inferred.parameters["user"] == external_id("usr", MAIL)


def test_a_user_that_is_left_open_is_nobody_and_a_number_is_refused_by_name() -> None:
    assert chat(user=None).user_id is chat(user="").user_id is chat().user_id is None
    with pytest.raises(ValueError, match="user\n"):
        chat(user=7)
