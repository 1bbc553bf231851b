"""What guardrails do with the judgement of a service."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import ValidationError

from rlaas.chat import Document, Message, ToolCall
from rlaas.errors import DependencyUnavailable
from rlaas.policies.guardrails.checks import check_input, check_output
from rlaas.policies.guardrails.guardrail import GuardrailStage
from rlaas.policies.guardrails.guardrail_list import Guardrails
from rlaas.policies.guardrails.moderation import Judgement, Service


@dataclass
class FakeModerator:
    """Gives the judgement that it is made with, and keeps the calls."""

    judgement: Judgement | None = None
    fails: bool = False
    calls: list[tuple[str, list[str], GuardrailStage, str]] = field(default_factory=list)

    def judge(self, guardrail: Service, texts: Sequence[str], *, source: GuardrailStage, tenant_id: str) -> Judgement | None:
        self.calls.append((type(guardrail).__name__, [*texts], source, tenant_id))
        if self.fails:
            raise DependencyUnavailable("it is away")
        return self.judgement


def make_guardrails(**config: Any) -> Guardrails:
    return Guardrails.model_validate_json(json.dumps(config))


BEDROCK = {"kind": "bedrock_guardrail", "guardrail_id": "gr1abc", "version": "7"}
MASKS = Judgement(("sensitiveInformation/NAME",), found=(("Ada Park", "NAME"),), must_block=False)
HARM = Judgement(("violence",), score=0.93)
MESSAGES = [
    Message(role="system", content="You are a clerk"),
    Message(role="user", content="I am Ada Park"),
    Message(role="assistant", content="Hello Ada Park"),
    Message(role="tool", content='{"customer": "Ada Park"}', tool_call_id="c1"),
]


def test_a_service_is_asked_once_about_all_texts_that_others_wrote() -> None:
    service = FakeModerator()
    config = make_guardrails(input=[{"kind": "moderation"}])
    verdict = check_input(
        config, MESSAGES, {"note": "hi", "empty": " "}, [Document(text="page", source="web")], tenant_id="acme", moderator=service
    )
    assert not verdict.blocked
    assert service.calls == [("Moderation", ["hi", "I am Ada Park", '{"customer": "Ada Park"}', "page", "web"], "input", "acme")]


def test_a_blank_answer_is_not_judged() -> None:
    service = FakeModerator(HARM)
    assert check_output(make_guardrails(output=[{"kind": "moderation"}]), " ", moderator=service).actions == ()
    assert service.calls == []


def test_no_service_is_asked_about_a_request_that_rules_block() -> None:
    service = FakeModerator()
    config = make_guardrails(input=[{"kind": "size", "max_characters": 3}, {"kind": "moderation"}])
    assert check_input(config, MESSAGES, moderator=service).blocked
    assert service.calls == []


def test_an_answer_that_a_service_objects_to_is_blocked_with_the_reason_and_score() -> None:
    verdict = check_output(
        make_guardrails(output=[{"kind": "moderation"}], safe_answer="No."), "I will hurt you", moderator=FakeModerator(HARM)
    )
    assert (verdict.blocked, verdict.text) == (True, "No.")
    assert [(action.kind, action.action, action.reason, action.score) for action in verdict.actions] == [
        ("moderation", "block", "violence", 0.93)
    ]


def test_an_answer_is_asked_for_again_and_then_judged_once_more() -> None:
    config = make_guardrails(output=[{"kind": "moderation", "action": "regenerate", "then": "flag"}])
    assert check_output(config, "harm", moderator=FakeModerator(HARM)).regenerate
    second = check_output(config, "harm", moderator=FakeModerator(HARM), again=True)
    assert (second.blocked, second.text, second.actions[0].action) == (False, "harm", "flag")


def test_personal_data_that_bedrock_masks_is_taken_out_of_every_text_and_json_stays_json() -> None:
    verdict = check_input(make_guardrails(input=[{**BEDROCK, "action": "redact"}]), MESSAGES, moderator=FakeModerator(MASKS))
    assert [message.content for message in verdict.messages] == [
        "You are a clerk",
        "I am <NAME>",
        "Hello <NAME>",
        '{"customer": "<NAME>"}',
    ]
    call = ToolCall.model_validate({"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"to":"Ada\\u0020Park"}'}})
    answer = check_output(make_guardrails(output=[{**BEDROCK, "action": "redact"}]), "", tool_calls=[call], moderator=FakeModerator(MASKS))
    assert json.loads(answer.tool_calls[0].function.arguments) == {"to": "<NAME>"}


def test_redact_blocks_where_taking_out_is_not_enough() -> None:
    both = Judgement(("sensitiveInformation/NAME", "word/PROFANITY"), found=(("Ada Park", "NAME"),), must_block=True)
    verdict = check_input(make_guardrails(input=[{**BEDROCK, "action": "redact"}]), MESSAGES, moderator=FakeModerator(both))
    assert (verdict.blocked, verdict.actions[0].action) == (True, "block")


@pytest.mark.parametrize(("on_failure", "blocked"), [(None, True), ("closed", True), ("open", False)])
@pytest.mark.parametrize("moderator", [FakeModerator(fails=True), None])
def test_a_service_that_does_not_answer_fails_as_the_guardrail_says(
    on_failure: str | None, blocked: bool, moderator: FakeModerator | None
) -> None:
    config = make_guardrails(output=[{"kind": "moderation", "on_failure": on_failure}])
    verdict = check_output(config, "hi", moderator=moderator)
    assert (verdict.blocked, verdict.actions[0].failed) == (blocked, True)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"input": [{"kind": "moderation", "action": "redact"}]}, "input.0.moderation.action"),
        ({"input": [{"kind": "moderation", "then": "flag"}]}, "input.0.moderation.then"),
        ({"input": [{"kind": "moderation", "thresholds": {"hate": 2}}]}, "thresholds.hate"),
        ({"input": [{"kind": "moderation", "base_url": "ftp://x"}]}, "base_url"),
        ({"input": [{"kind": "bedrock_guardrail", "guardrail_id": "arn:aws:bedrock:x"}]}, "guardrail_id"),
        ({"input": [{**BEDROCK, "version": "0"}]}, "version"),
        ({"output": [{**BEDROCK, "timeout_s": 6}]}, "timeout_s"),
        ({"output": [{**BEDROCK, "timeout_s": 5}, {"kind": "moderation", "timeout_s": 5}, {**BEDROCK, "name": "b"}]}, "12 s together"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_their_field(config: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as error:
        make_guardrails(**config)
    faults = [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.value.errors()]
    assert any(expected in fault for fault in faults), faults


def test_the_model_gets_less_time_when_a_service_judges_its_answer() -> None:
    guardrails = make_guardrails(
        output=[{"kind": "moderation", "timeout_s": 3}, {**BEDROCK, "action": "regenerate"}], input=[{"kind": "moderation"}]
    )
    assert guardrails.answer_wait_s == 2 * (3 + 2)
    assert make_guardrails(output=[{"kind": "refusal"}]).answer_wait_s == 0
