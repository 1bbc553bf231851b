import pytest
from pydantic import ValidationError

from rlaas.telemetry.events import FeedbackSubmitted, InteractionCreated, TaskResultReported

FEEDBACK = '"skill":"reply","interaction_id":"i1"'


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("edit", '"final_text":"Hi"'),
        ("action", '"action":"sent"'),
        ("rating", '"rating":0.5'),
        ("comparison", '"preferred_output_id":"o2"'),
        ("comment", '"comment":"good"'),
        ("label", '"label":"billing"'),
    ],
)
def test_each_kind_of_feedback_needs_its_own_field_and_no_other(kind: str, field: str) -> None:
    FeedbackSubmitted.model_validate_json(f'{{{FEEDBACK},"kind":"{kind}",{field}}}')
    other = '"label":"x"' if kind != "label" else '"comment":"x"'
    for wrong in (f'{{{FEEDBACK},"kind":"{kind}"}}', f'{{{FEEDBACK},"kind":"{kind}",{field},{other}}}'):
        with pytest.raises(ValidationError, match=f"feedback of kind '{kind}' needs"):
            FeedbackSubmitted.model_validate_json(wrong)


@pytest.mark.parametrize(
    "body",
    [
        '{"skill":"reply","inputs":{"a":1}}',
        '{"skill":1,"inputs":{}}',
        '{"skill":"Reply","inputs":{}}',
        '{"skill":"re--ply","inputs":{}}',
        '{"skill":"reply"}',
        '{"skill":"reply","inputs":{},"surprise":1}',
        '{"skill":"reply","inputs":{},"interaction_id":"has space"}',
        '{"skill":"reply","inputs":{},"interaction_id":""}',
        '{"skill":"reply","inputs":{},"metadata":{"a":NaN}}',
        '{"skill":"reply","inputs":{},"metadata":{"a":[1e999]}}',
        '{"skill":"reply","inputs":{},"metadata":{"a":"\\ud800"}}',
        '{"skill":"reply","inputs":{},"occurred_at":"2026-03-01T12:00:00"}',
        '{"skill":"reply","inputs":{},"occurred_at":1772366400}',
        '{"skill":"reply","inputs":{},"schema_version":"2"}',
        '{"skill":"reply","inputs":{},"metadata":' + '{"a":' * 250 + "1" + "}" * 250 + "}",
        "[]",
        "null",
        "{",
    ],
)
def test_nothing_is_coerced_and_nothing_strange_gets_in(body: str) -> None:
    with pytest.raises(ValidationError):
        InteractionCreated.model_validate_json(body)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("0.5", 0.5), ('"yes"', "yes")])
def test_a_task_results_value_keeps_its_type(text: str, value: object) -> None:
    body = f'{{"skill":"reply","interaction_id":"i1","name":"resolved","value":{text}}}'
    read = TaskResultReported.model_validate_json(body).value
    assert read == value
    assert type(read) is type(value)
