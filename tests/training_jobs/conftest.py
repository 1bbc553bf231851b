"""A tiny model and an office's week of events, for jobs that run for real."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue

from local import base_model
from local.office.agents import OFFICE, react
from local.office.templates import SYSTEM_PROMPT, week
from rlaas.chat import Message
from rlaas.preferences.pairs import HELD_OUT_TAG
from rlaas.telemetry.events import AnyEvent, EventType, FeedbackSubmitted, InteractionCreated, OutputProduced
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.store import StoredEvent

TENANT, SKILL, POLICY = "acme", "support-email-draft", "support-email-draft@v1"
START = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CI model's directory."""
    return base_model.ensure_base_model(tmp_path_factory.mktemp("models") / "tiny", tiny=True)


@pytest.fixture(scope="session")
def week_of_events() -> list[StoredEvent]:
    """20 training emails and 6 held-out ones, each drafted, edited and sent or thrown away."""
    events: list[StoredEvent] = []

    def store_event(kind: EventType, event_id: str, event: AnyEvent, number: int, output_id: str | None) -> StoredEvent:
        at = START + timedelta(minutes=number)
        return StoredEvent(
            event_type=kind,
            event_id=event_id,
            tenant_id=TENANT,
            skill=SKILL,
            interaction_id=f"int_{number}",
            output_id=output_id,
            thread_id=f"thread-{number}",
            policy_id=None if kind == "interaction" else POLICY,
            occurred_at=at,
            received_at=at,
            payload_sha256="0" * 64,
            payload=event.model_dump_json(exclude_none=True),
        )

    for number, case in enumerate(week(3, train=20, held_out=6)):
        agent = OFFICE[number % len(OFFICE)]
        draft = f"Dear {case.full_name}, thank you for your email. {case.answer}"
        reaction = react(agent, case, draft, seed=1)
        output_id = f"out_{number}"
        about = {"skill": SKILL, "interaction_id": f"int_{number}"}
        tags = (HELD_OUT_TAG,) if case.split == "held_out" else ()
        prompt = (
            Message(role="system", content=SYSTEM_PROMPT),
            Message(role="user", content=f"From: {case.full_name}\n\n{case.email}"),
        )
        about_output = {**about, "output_id": output_id}
        events += [
            store_event("interaction", f"int_{number}", InteractionCreated(**about, inputs=case.inputs, tags=tags), number, None),
            store_event("output", output_id, OutputProduced(**about_output, text=draft, messages=prompt), number, output_id),
            store_event(
                "feedback",
                f"fbk_e{number}",
                FeedbackSubmitted(**about_output, kind="edit", final_text=reaction.final_text),
                number,
                output_id,
            ),
            store_event(
                "feedback", f"fbk_a{number}", FeedbackSubmitted(**about_output, kind="action", action=reaction.action), number, output_id
            ),
        ]
    return events


@pytest.fixture
def drafts_of() -> Callable[[str, int], list[StoredEvent]]:
    """Makes so many drafts of a user, each in a thread of its own and edited."""

    def make_drafts(user: str, drafts: int) -> list[StoredEvent]:
        events: list[AnyEvent] = []
        for number in range(drafts):
            name = f"{user}-{number}"
            about = {"skill": SKILL, "interaction_id": f"int_{name}", "thread_id": f"thread_{name}"}
            final = f"Hi, {name} is on its way."
            events += [
                InteractionCreated(**about, user_id=user, inputs={"email": "Where is it?"}),
                OutputProduced(**about, output_id=f"out_{name}", text="Dear customer, it is coming."),
                FeedbackSubmitted(**about, feedback_id=f"fbk_{name}", output_id=f"out_{name}", kind="edit", final_text=final),
            ]
        return [prepare(event, TENANT, received_at=START) for event in events]

    return make_drafts


@pytest.fixture
def logged_by_others() -> list[StoredEvent]:
    """What an application reported itself: an answer edited after a tool was called, and a fine-tuning example."""
    tool_call = {"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": '{"order":7}'}}
    chat: list[dict[str, JsonValue]] = [
        {"role": "user", "content": "Where is it?"},
        {"role": "assistant", "content": "", "tool_calls": [tool_call]},
        {"role": "tool", "content": "left today", "tool_call_id": "call_1"},
    ]
    parameters: JsonValue = {"tools": [{"type": "function", "function": {"name": "find_order"}}]}
    example: JsonValue = [{"role": "user", "content": "Where is my order 1182?"}]
    answer = "It left our warehouse this morning."
    events: list[tuple[type[AnyEvent], dict[str, JsonValue]]] = [
        (InteractionCreated, {"interaction_id": "int_tool", "messages": [chat[0]], "parameters": parameters}),
        (OutputProduced, {"interaction_id": "int_tool", "output_id": "out_tool", "text": "It is on its way.", "messages": [*chat]}),
        (FeedbackSubmitted, {"feedback_id": "fbk_tool", "interaction_id": "int_tool", "output_id": "out_tool", "kind": "edit"}),
        (InteractionCreated, {"interaction_id": "int_fine", "messages": example}),
        (OutputProduced, {"interaction_id": "int_fine", "output_id": "out_fine", "text": answer}),
        (FeedbackSubmitted, {"feedback_id": "fbk_fine", "interaction_id": "int_fine", "output_id": "out_fine", "kind": "edit"}),
    ]
    events[2][1]["final_text"], events[5][1]["final_text"] = "Hi! It left us today, sorry.", answer
    return [
        prepare(model.model_validate_json(json.dumps({"skill": SKILL, **fields})), TENANT, received_at=START + timedelta(minutes=number))
        for number, (model, fields) in enumerate(events)
    ]


@pytest.fixture
def ml_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An /opt/ml of the test's own."""
    monkeypatch.setenv("RLAAS_ML_ROOT", str(tmp_path))
    return tmp_path


@pytest.fixture
def run_job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Calls a job's `main` with a command line."""

    def run(main: Callable[[], int], *words: str) -> int:
        monkeypatch.setattr("sys.argv", ["job", *words])
        return main()

    return run
