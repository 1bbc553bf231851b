"""What feedback becomes which pair."""

from datetime import UTC, datetime, timedelta

from rlaas.preferences.pairs import HELD_OUT_TAG, PairSet, build_pairs
from rlaas.telemetry.events import AnyEvent, EventType, FeedbackSubmitted, InteractionCreated, Message, OutputProduced
from rlaas.telemetry.store import StoredEvent

START = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
DRAFT, FINAL = "Dear customer, thanks for writing to us.", "Hi Maria, your refund is on its way."


def stored(kind: EventType, event_id: str, event: AnyEvent, interaction_id: str, output_id: str | None, minute: int) -> StoredEvent:
    at = START + timedelta(minutes=minute)
    return StoredEvent(
        event_type=kind,
        event_id=event_id,
        tenant_id="acme",
        skill="mail",
        interaction_id=interaction_id,
        output_id=output_id,
        thread_id=f"thread-of-{interaction_id}",
        policy_id=None if kind == "interaction" else "mail@v1",
        occurred_at=at,
        received_at=at,
        payload_sha256="0" * 64,
        payload=event.model_dump_json(exclude_none=True),
    )


def exchange(
    name: str = "a", *, edits: tuple[str, ...] = (FINAL,), action: str | None = "sent", draft: str = DRAFT, held_out: bool = False
) -> list[StoredEvent]:
    """An interaction, its output, edits a minute apart, then an action."""
    interaction_id, output_id = f"int_{name}", f"out_{name}"
    prompt = (Message(role="system", content="Write."), Message(role="user", content="Where is my refund?"))
    about = {"skill": "mail", "interaction_id": interaction_id}
    said = {**about, "output_id": output_id}
    tags = (HELD_OUT_TAG,) if held_out else ()
    events = [
        stored("interaction", interaction_id, InteractionCreated(**about, inputs={"email": "?"}, tags=tags), interaction_id, None, 0),
        stored("output", output_id, OutputProduced(**said, text=draft, messages=prompt), interaction_id, output_id, 1),
    ]
    for n, text in enumerate(edits):
        feedback = FeedbackSubmitted(**said, kind="edit", final_text=text)
        events.append(stored("feedback", f"fbk_{name}{n}", feedback, interaction_id, output_id, 2 + n))
    if action:
        feedback = FeedbackSubmitted(**said, kind="action", action=action)
        events.append(stored("feedback", f"fbk_{name}_action", feedback, interaction_id, output_id, 9))
    return events


def only(made: PairSet) -> str | None:
    """The single reason for which the single output was dropped."""
    assert made.pairs == ()
    return next(iter(made.dropped), None)


def test_an_edit_is_a_pair_with_the_policys_own_prompt_and_its_provenance() -> None:
    (pair,) = build_pairs(exchange()).pairs
    assert (pair.chosen, pair.rejected, pair.discarded) == (FINAL, DRAFT, False)
    assert [message.role for message in pair.prompt] == ["system", "user"]
    assert (pair.interaction_id, pair.output_id, pair.feedback_ids) == ("int_a", "out_a", ("fbk_a0", "fbk_a_action"))
    assert (pair.thread, pair.policy_id) == ("thread-of-int_a", "mail@v1")


def test_a_discarded_draft_loses_to_what_the_agent_wrote() -> None:
    (pair,) = build_pairs(exchange(action="discarded")).pairs
    assert (pair.chosen, pair.discarded) == (FINAL, True)


def test_the_latest_edit_counts_whatever_the_order_of_arrival() -> None:
    events = exchange(edits=("A first try at it.", FINAL))
    assert [pair.chosen for pair in build_pairs(reversed(events)).pairs] == [FINAL]


def test_an_event_delivered_twice_counts_once() -> None:
    events = exchange()
    assert build_pairs([*events, *events]) == build_pairs(events)


def test_a_draft_sent_as_it_was_is_kept_as_unchanged_with_or_without_an_edit_event() -> None:
    for edits in ((), (f" {DRAFT}\n",)):
        (pair,) = build_pairs(exchange(edits=edits)).pairs
        assert pair.unchanged


def test_feedback_that_says_nothing_about_the_text_makes_no_pair() -> None:
    assert only(build_pairs(exchange(edits=(), action="discarded"))) == "no_final_text"


def test_an_empty_or_nearly_empty_text_makes_no_pair() -> None:
    assert only(build_pairs(exchange(edits=("ok",)))) == "empty"
    assert only(build_pairs(exchange(draft="  "))) == "empty"


def test_an_output_without_the_prompt_it_answered_makes_no_pair() -> None:
    events = exchange()
    bare = OutputProduced(skill="mail", interaction_id="int_a", output_id="out_a", text=DRAFT)
    events[1] = stored("output", "out_a", bare, "int_a", "out_a", 1)
    assert only(build_pairs(events)) == "no_prompt"


def test_feedback_whose_output_never_landed_makes_no_pair_and_is_counted() -> None:
    assert build_pairs(exchange()[2:]) == PairSet(pairs=(), dropped={"no_output": 1})


def test_pairs_that_teach_the_same_are_kept_once_whatever_their_spacing() -> None:
    made = build_pairs([*exchange("a"), *exchange("b", edits=(FINAL.replace(" ", "  "),))])
    assert [pair.output_id for pair in made.pairs] == ["out_a"]
    assert made.dropped == {"duplicate": 1}


def test_the_interactions_tag_marks_the_pair_as_held_out() -> None:
    made = build_pairs([*exchange("a", held_out=True), *exchange("b", edits=("Another text, quite different.",))])
    assert {pair.output_id: pair.held_out for pair in made.pairs} == {"out_a": True, "out_b": False}
