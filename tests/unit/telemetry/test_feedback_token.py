from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaas.errors import Forbidden, InvalidInput
from rlaas.ids import find_interaction_id
from rlaas.privacy.scrub import Scrubber
from rlaas.routing.assign import pin_decision
from rlaas.routing.decision_token import TokenContent, make_token, read_token
from rlaas.telemetry.events import FeedbackSubmitted, InteractionCreated, OutputProduced, TaskResultReported
from rlaas.telemetry.feedback_token import LONGEST, ShownOutput, issue_feedback_token, read_feedback_token
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.permission import permit
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.worlds import NOW, SKILL, TENANT, make_route

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
OUTPUT = ShownOutput(SKILL, f"int_{ULID}", f"out_{ULID}_ab12", "t1", "u1")
ANOTHER = Scrubber(settings=AS_IT_IS.settings, salt=b"another")
TOKEN = issue_feedback_token(OUTPUT, scrubber=AS_IT_IS, now=NOW)
LATEST = NOW + timedelta(days=30)


def action(**fields: object) -> FeedbackSubmitted:
    return FeedbackSubmitted.model_validate({"skill": SKILL, "kind": "action", "action": "sent", **fields})


@pytest.mark.parametrize(
    "output",
    [OUTPUT, replace(OUTPUT, thread_id=None, user_id=None), replace(OUTPUT, interaction_id="ticket-7"), replace(OUTPUT, output_id="o1")],
)
def test_a_token_says_what_it_was_made_for_to_its_tenant_for_thirty_days(output: ShownOutput) -> None:
    token = issue_feedback_token(output, scrubber=AS_IT_IS, now=NOW)
    assert len(token) < 256
    for now in (NOW, LATEST):
        assert read_feedback_token(token, scrubber=AS_IT_IS, now=now, param="feedback_token") == output
    for scrubber, now in ((ANOTHER, NOW), (AS_IT_IS, LATEST + timedelta(seconds=1))):
        with pytest.raises(Forbidden) as refusal:
            read_feedback_token(token, scrubber=scrubber, now=now, param="feedback_token")
        assert refusal.value.param == "feedback_token"


def test_the_longest_names_fit_a_token() -> None:
    longest = ShownOutput("s" * 28, "i" * 64, "o" * 64, "t" * 64, "u" * 64)
    assert len(issue_feedback_token(longest, scrubber=AS_IT_IS, now=NOW)) < LONGEST


@pytest.mark.parametrize(
    "text", ["", ".", TOKEN.replace(".", "=."), TOKEN.replace(".", "==."), TOKEN + "0", TOKEN[:-1], f" {TOKEN}", "\ud83d.x"]
)
def test_a_token_is_written_one_way(text: str) -> None:
    with pytest.raises(Forbidden):
        read_feedback_token(text, scrubber=AS_IT_IS, now=NOW, param="feedback_token")


@given(st.one_of(st.text(max_size=60), st.integers(0, len(TOKEN) - 1).map(lambda at: TOKEN[:at] + "A" + TOKEN[at + 1 :])))
def test_nothing_else_is_a_token(text: str) -> None:
    if text != TOKEN:
        with pytest.raises(Forbidden):
            read_feedback_token(text, scrubber=AS_IT_IS, now=NOW, param="feedback_token")


def test_a_feedback_token_is_no_decision_and_a_decision_no_feedback_token() -> None:
    decision = pin_decision(make_route(), f"{SKILL}@v1", "unit", decision_id="dec_1", decided_at=NOW)
    granted = TokenContent(interaction_id=OUTPUT.interaction_id, output_id=OUTPUT.output_id, decision=decision, expires_at=LATEST)
    decided = make_token(granted, scrubber=AS_IT_IS)
    assert read_token(decided, scrubber=AS_IT_IS, now=NOW) == granted
    with pytest.raises(InvalidInput):
        read_token(TOKEN, scrubber=AS_IT_IS, now=NOW)
    with pytest.raises(Forbidden):
        read_feedback_token(decided, scrubber=AS_IT_IS, now=NOW, param="feedback_token")


def test_a_page_is_believed_about_its_output_and_not_about_the_time() -> None:
    ahead = NOW + timedelta(hours=23)
    feedback = permit(action(feedback_token=TOKEN, occurred_at=ahead), "key9", scrubber=AS_IT_IS, now=NOW)
    assert isinstance(feedback, FeedbackSubmitted)
    assert (feedback.interaction_id, feedback.output_id, feedback.thread_id, feedback.user_id) == (
        OUTPUT.interaction_id,
        OUTPUT.output_id,
        "t1",
        "u1",
    )
    stored = prepare(feedback, TENANT, received_at=NOW)
    assert (stored.occurred_at, stored.output_id) == (NOW, OUTPUT.output_id)
    assert '"page_key_id":"key9"' in stored.payload
    assert TOKEN not in stored.payload


def test_a_server_is_believed_and_held_to_a_token_that_it_passes_on() -> None:
    own = action(output_id="o2", interaction_id="i2", tags=("held-out",), occurred_at=NOW - timedelta(days=9))
    assert permit(own, None, scrubber=AS_IT_IS, now=NOW) is own
    passed_on = permit(action(feedback_token=TOKEN, feedback_id="f1"), None, scrubber=AS_IT_IS, now=NOW)
    assert isinstance(passed_on, FeedbackSubmitted)
    assert (passed_on.output_id, passed_on.feedback_id, passed_on.page_key_id) == (OUTPUT.output_id, "f1", None)
    with pytest.raises(Forbidden):
        permit(action(feedback_token=TOKEN, output_id="o2"), None, scrubber=AS_IT_IS, now=NOW)
    with pytest.raises(InvalidInput) as refusal:
        permit(action(output_id="o2", interaction_id="i2", page_key_id="key9"), None, scrubber=AS_IT_IS, now=NOW)
    assert refusal.value.param == "page_key_id"


@pytest.mark.parametrize(
    "event",
    [
        InteractionCreated(skill=SKILL, inputs={}),
        OutputProduced(skill=SKILL, interaction_id="i1", text="Hi"),
        TaskResultReported(skill=SKILL, interaction_id="i1", name="resolved", value=True),
        action(interaction_id="i1"),
        FeedbackSubmitted(skill=SKILL, thread_id="t1", kind="metric", metric="mood", value=0.5),
    ],
)
def test_a_page_says_nothing_else(event: InteractionCreated | OutputProduced | TaskResultReported | FeedbackSubmitted) -> None:
    with pytest.raises(Forbidden) as refusal:
        permit(event, "key9", scrubber=AS_IT_IS, now=NOW)
    assert refusal.value.param == ("feedback_token" if isinstance(event, FeedbackSubmitted) else "type")


@pytest.mark.parametrize("chosen", ["f1", f"out_{ULID}", f"int_{ULID}", f"fbk_{ULID}_1"])
def test_an_id_that_a_page_chooses_is_its_own_and_always_the_same(chosen: str) -> None:
    def stored_id(output: ShownOutput, key_id: str, **chosen: str | None) -> str | None:
        token = issue_feedback_token(output, scrubber=AS_IT_IS, now=NOW)
        feedback = permit(
            action(feedback_token=token, feedback_id=chosen.get("id")),
            key_id,
            scrubber=AS_IT_IS,
            now=NOW,
            idempotency_key=chosen.get("key"),
        )
        assert isinstance(feedback, FeedbackSubmitted)
        return feedback.feedback_id

    first = stored_id(OUTPUT, "key9", id=chosen)
    assert first is not None
    assert first != chosen
    assert find_interaction_id(first) == OUTPUT.interaction_id
    assert first == stored_id(OUTPUT, "key10", id=chosen) == stored_id(OUTPUT, "key9", key=chosen)
    assert first != stored_id(replace(OUTPUT, output_id=f"out_{ULID}_cd34"), "key9", id=chosen)
    assert stored_id(OUTPUT, "key9") is None, "a fresh one is made"
