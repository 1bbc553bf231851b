"""Which feedback makes which pairs."""

import json
import unicodedata
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from rlaas.chat import CalledFunction, Message, ToolCall
from rlaas.preferences.dataset import build_trl_row
from rlaas.preferences.pairs import HELD_OUT_TAG, PairSet, build_pairs
from rlaas.telemetry.events import AnyEvent, EventType, FeedbackSubmitted, InteractionCreated, OutputProduced
from rlaas.telemetry.store import StoredEvent

START = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
ABOUT: dict[str, Any] = {"skill": "mail", "interaction_id": "int_a"}
DRAFT, FINAL = "Dear customer, thanks for writing to us.", "Hi Maria, your refund is on its way."


PAGE_KEY = "01arz3ndektsv4rrffq69g5fav"


def store_event(kind: EventType, event_id: str, event: AnyEvent, interaction_id: str, output_id: str | None, minute: int) -> StoredEvent:
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


def make_exchange(
    name: str = "a",
    *,
    edits: tuple[str, ...] = (FINAL,),
    action: Literal["sent", "discarded"] | None = "sent",
    draft: str = DRAFT,
    held_out: bool = False,
) -> list[StoredEvent]:
    """An interaction, its output, edits a minute apart, then an action."""
    interaction_id, output_id = f"int_{name}", f"out_{name}"
    prompt = (Message(role="system", content="Write."), Message(role="user", content="Where is my refund?"))
    about: dict[str, Any] = {"skill": "mail", "interaction_id": interaction_id}
    about_output = {**about, "output_id": output_id}
    tags = (HELD_OUT_TAG,) if held_out else ()
    events = [
        store_event("interaction", interaction_id, InteractionCreated(**about, inputs={"email": "?"}, tags=tags), interaction_id, None, 0),
        store_event("output", output_id, OutputProduced(**about_output, text=draft, messages=prompt), interaction_id, output_id, 1),
    ]
    for n, text in enumerate(edits):
        feedback = FeedbackSubmitted(**about_output, kind="edit", final_text=text)
        events.append(store_event("feedback", f"fbk_{name}{n}", feedback, interaction_id, output_id, 2 + n))
    if action:
        feedback = FeedbackSubmitted(**about_output, kind="action", action=action)
        events.append(store_event("feedback", f"fbk_{name}_action", feedback, interaction_id, output_id, 9))
    return events


def make_bare_output(**fields: Any) -> StoredEvent:
    """The output of `make_exchange("a")`, logged without its prompt."""
    return store_event("output", "out_a", OutputProduced(**ABOUT, output_id="out_a", text=DRAFT, **fields), "int_a", "out_a", 1)


def only_reason(result: PairSet) -> str | None:
    """The single reason for which the single output was dropped."""
    assert result.pairs == ()
    return next(iter(result.dropped), None)


def test_an_edit_is_a_pair_with_the_policys_own_prompt_and_its_provenance() -> None:
    (pair,) = build_pairs(make_exchange()).pairs
    assert (pair.chosen, pair.rejected, pair.discarded) == (FINAL, DRAFT, False)
    assert [message.role for message in pair.prompt] == ["system", "user"]
    assert (pair.interaction_id, pair.output_id, pair.feedback_ids) == ("int_a", "out_a", ("fbk_a0", "fbk_a_action"))
    assert (pair.thread, pair.policy_id) == ("thread-of-int_a", "mail@v1")


def test_a_discarded_draft_loses_to_what_the_agent_wrote() -> None:
    (pair,) = build_pairs(make_exchange(action="discarded")).pairs
    assert (pair.chosen, pair.discarded) == (FINAL, True)


def test_the_latest_edit_counts_whatever_the_order_of_arrival() -> None:
    events = make_exchange(edits=("A first try at it.", FINAL))
    assert [pair.chosen for pair in build_pairs(reversed(events)).pairs] == [FINAL]


def test_an_event_delivered_twice_counts_once() -> None:
    events = make_exchange()
    assert build_pairs([*events, *events]) == build_pairs(events)


def test_a_draft_sent_as_it_was_is_kept_as_unchanged_with_or_without_an_edit_event() -> None:
    for edits in ((), (f" {DRAFT}\n",)):
        (pair,) = build_pairs(make_exchange(edits=edits)).pairs
        assert pair.unchanged


def test_feedback_that_says_nothing_about_the_text_makes_no_pair() -> None:
    assert only_reason(build_pairs(make_exchange(edits=(), action="discarded"))) == "no_final_text"


def test_an_empty_or_nearly_empty_text_makes_no_pair() -> None:
    assert only_reason(build_pairs(make_exchange(edits=("ok",)))) == "empty"
    assert only_reason(build_pairs(make_exchange(draft="  "))) == "empty"


def test_an_output_logged_without_its_prompt_uses_its_interactions_messages_or_inputs() -> None:
    events = make_exchange()
    events[1] = make_bare_output()
    assert [message.model_dump(exclude_defaults=True) for message in build_pairs(events).pairs[0].prompt] == [
        {"role": "user", "content": "?"}
    ]
    inputs = {"email": "Where is it?", "a_name": "Ada", "notes": " "}
    events[0] = store_event("interaction", "int_a", InteractionCreated(**ABOUT, inputs=inputs), "int_a", None, 0)
    assert [message.content for message in build_pairs(events).pairs[0].prompt] == ["a_name: Ada\n\nemail: Where is it?"]
    chat = (Message(role="system", content="Write."), Message(role="user", content="Where?"))
    events[0] = store_event("interaction", "int_a", InteractionCreated(**ABOUT, inputs=inputs, messages=chat), "int_a", None, 0)
    assert build_pairs(events).pairs[0].prompt == chat


def test_an_output_without_any_prompt_makes_no_pair() -> None:
    events = make_exchange()
    events[1] = make_bare_output()
    assert only_reason(build_pairs(events[1:])) == "no_prompt"
    events[0] = store_event("interaction", "int_a", InteractionCreated(**ABOUT, inputs={"email": " "}), "int_a", None, 0)
    assert only_reason(build_pairs(events)) == "no_prompt"


def test_a_guardrails_answer_which_no_model_gave_makes_no_pair() -> None:
    events = make_exchange()
    events[1] = make_bare_output(key_id="key1")
    assert only_reason(build_pairs(events)) == "blocked"


def test_outputs_that_nobody_said_anything_about_are_counted() -> None:
    assert build_pairs(make_exchange()[:2]) == PairSet(pairs=(), dropped={"no_feedback": 1}, outputs=1)


def test_feedback_that_names_no_output_is_about_the_interactions_last() -> None:
    events = make_exchange(action=None)
    events[2] = store_event("feedback", "fbk_a0", FeedbackSubmitted(**ABOUT, kind="edit", final_text=FINAL), "int_a", None, 3)
    events.append(
        store_event("output", "out_b", OutputProduced(**ABOUT, output_id="out_b", text="A later draft of it."), "int_a", "out_b", 2)
    )
    result = build_pairs(events)
    assert [pair.rejected for pair in result.pairs] == ["A later draft of it."]
    assert result.dropped == {"no_feedback": 1}


def test_outputs_of_one_thread_stay_together_where_only_the_interaction_names_it() -> None:
    events = [replace(event, thread_id=None if event.event_type == "output" else "ticket-1") for event in make_exchange()]
    assert build_pairs(events).pairs[0].thread == "ticket-1"


@pytest.mark.parametrize(
    ("draft", "final"),
    [
        ("感谢您的来信，我们正在处理。", "您好，您的退款已经发出，三天内到账。"),
        ("お問い合わせありがとうございます。", "ご返金は本日手配しました。三日以内に届きます。"),
        ("ขอบคุณที่ติดต่อเรา", "เราคืนเงินให้คุณแล้ววันนี้"),
        ("ຂອບໃຈທີ່ຕິດຕໍ່ພວກເຮົາ", "ພວກເຮົາໄດ້ສົ່ງເງິນຄືນແລ້ວມື້ນີ້"),
        ("감사합니다. 확인 중입니다.", "환불이 오늘 처리되었습니다."),
        ("شكرا لتواصلك معنا.", "لقد أعدنا لك المبلغ اليوم."),
        ("हम इसे देख रहे हैं।", "आपका पैसा आज वापस कर दिया गया है।"),
        ("We look into it.", "退款 RF-7 已发出。"),
    ],
)
def test_texts_of_any_script_make_pairs(draft: str, final: str) -> None:
    assert [pair.chosen for pair in build_pairs(make_exchange(edits=(final,), draft=draft)).pairs] == [final]


@pytest.mark.parametrize("final", ["ok", "👍", "👍 👍 👍 👍", "好的", "- - - -", "\u200b \u200b \u200b"])
def test_a_nod_in_any_script_is_no_answer_to_learn_from(final: str) -> None:
    assert only_reason(build_pairs(make_exchange(edits=(final,)))) == "empty"


@pytest.mark.parametrize("final", [f"{DRAFT}\n", DRAFT.replace(" ", "\u00a0\n "), f"\ufeff{DRAFT}", DRAFT.replace(" ", " \u200b")])
def test_an_edit_of_the_spacing_alone_leaves_the_draft_unchanged(final: str) -> None:
    assert build_pairs(make_exchange(edits=(final,))).pairs[0].unchanged


def test_letters_composed_or_not_are_the_same_text() -> None:
    draft = "Où est né l'élève, déjà ?"
    assert build_pairs(make_exchange(edits=(unicodedata.normalize("NFD", draft),), draft=draft)).pairs[0].unchanged


def make_tool_exchange(name: str, call_id: str, arguments: str, tools: bool = True) -> list[StoredEvent]:
    """An exchange whose prompt has a call of a tool and its result."""
    call = ToolCall(id=call_id, function=CalledFunction(name="find_order", arguments=arguments))
    messages = (
        Message(role="user", content="Where is my order?"),
        Message(role="assistant", content="", tool_calls=(call,)),
        Message(role="tool", content="left today", tool_call_id=call_id),
    )
    events = make_exchange(name)
    about: dict[str, Any] = {"skill": "mail", "interaction_id": f"int_{name}"}
    output = OutputProduced(**about, output_id=f"out_{name}", text=DRAFT, messages=messages)
    events[1] = store_event("output", f"out_{name}", output, f"int_{name}", f"out_{name}", 1)
    parameters: dict[str, Any] = {"tools": [{"type": "function", "function": {"name": "find_order", "parameters": {}}}]} if tools else {}
    interaction = InteractionCreated(**about, messages=messages[:1], parameters=parameters)
    events[0] = store_event("interaction", f"int_{name}", interaction, f"int_{name}", None, 0)
    return events


def test_a_prompt_keeps_its_tool_calls_their_results_and_the_tools_offered() -> None:
    (pair,) = build_pairs(make_tool_exchange("a", "call_1", '{"order": 7}')).pairs
    row = build_trl_row(pair)
    assert row["prompt"] == [
        {"role": "user", "content": "Where is my order?"},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "find_order", "arguments": '{"order": 7}'}}],
        },
        {"role": "tool", "content": "left today", "tool_call_id": "call_1"},
    ]
    assert json.loads(str(row["tools"]))[0]["function"]["name"] == "find_order"


def test_prompts_differ_by_the_arguments_of_a_call_and_not_by_its_id_or_spacing() -> None:
    result = build_pairs([*make_tool_exchange("a", "call_1", '{"order": 7}'), *make_tool_exchange("b", "call_1", '{"order": 8}')])
    assert (len(result.pairs), result.dropped) == (2, {})
    result = build_pairs(
        [*make_tool_exchange("a", "call_1", '{"order": 7, "eu": 1}'), *make_tool_exchange("b", "call_x9", '{"eu":1,"order":7}')]
    )
    assert (len(result.pairs), result.dropped) == (1, {"duplicate": 1})
    assert len(build_pairs([*make_tool_exchange("a", "c", "{broken"), *make_tool_exchange("b", "c", "{broke", tools=False)]).pairs) == 2


def test_an_output_that_calls_tools_is_no_text_to_compare() -> None:
    events = make_exchange()
    call = ToolCall(id="call_1", function=CalledFunction(name="find_order", arguments="{}"))
    events[1] = make_bare_output(tool_calls=(call,))
    assert only_reason(build_pairs(events)) == "called_tools"


def make_comparisons(*texts: str, preferred: int = 0, other: int | None = 1, messages: dict[int, str] | None = None) -> list[StoredEvent]:
    """An interaction's outputs, and a comparison that prefers the output `preferred` to `other` (None: to all
    others)."""
    events = [store_event("interaction", "int_a", InteractionCreated(**ABOUT, inputs={"email": "?"}), "int_a", None, 0)]
    for n, text in enumerate(texts):
        own = (Message(role="user", content=messages[n]),) if messages and n in messages else None
        output = OutputProduced(**ABOUT, output_id=f"out_{n}", text=text, messages=own)
        events.append(store_event("output", f"out_{n}", output, "int_a", f"out_{n}", 1))
    return [*events, make_comparison("fbk_1", preferred, other, 2)]


def make_comparison(feedback_id: str, preferred: int, other: int | None, minute: int) -> StoredEvent:
    output_id = None if other is None else f"out_{other}"
    feedback = FeedbackSubmitted(**ABOUT, output_id=output_id, kind="comparison", preferred_output_id=f"out_{preferred}")
    return store_event("feedback", feedback_id, feedback, "int_a", output_id, minute)


def test_of_two_outputs_compared_the_preferred_is_chosen() -> None:
    result = build_pairs(make_comparisons(FINAL, DRAFT))
    (pair,) = result.pairs
    assert (pair.chosen, pair.rejected, result.dropped, result.outputs) == (FINAL, DRAFT, {}, 2)
    assert (pair.output_id, pair.preferred_output_id, pair.feedback_ids) == ("out_1", "out_0", ("fbk_1",))


def test_the_latest_comparison_of_two_outputs_counts() -> None:
    events = [*make_comparisons(FINAL, DRAFT), make_comparison("fbk_2", 1, 0, 3)]
    assert [pair.chosen for pair in build_pairs(reversed(events)).pairs] == [DRAFT]


@pytest.mark.parametrize("other", [None, 2])
def test_a_comparison_that_names_the_preferred_output_alone_prefers_it_to_the_others(other: int | None) -> None:
    result = build_pairs(make_comparisons(DRAFT, "Another draft of it.", FINAL, preferred=2, other=other))
    assert [(pair.chosen, pair.rejected) for pair in result.pairs] == [(FINAL, DRAFT), (FINAL, "Another draft of it.")]


def test_answers_to_different_prompts_are_no_pair() -> None:
    result = build_pairs(make_comparisons(FINAL, DRAFT, messages={0: "Write.", 1: "Write kindly."}))
    assert (result.pairs, result.dropped) == ((), {"other_prompt": 2})


def test_a_comparison_with_an_output_that_never_arrived_is_counted() -> None:
    assert build_pairs(make_comparisons(FINAL, DRAFT, preferred=7)).dropped == {"no_feedback": 2, "no_output": 1}


def test_feedback_whose_output_never_arrived_makes_no_pair_and_is_counted() -> None:
    assert build_pairs(make_exchange()[2:]) == PairSet(pairs=(), dropped={"no_output": 1})


def test_pairs_that_teach_the_same_are_kept_once_whatever_their_spacing() -> None:
    result = build_pairs([*make_exchange("a"), *make_exchange("b", edits=(FINAL.replace(" ", "  "),))])
    assert [pair.output_id for pair in result.pairs] == ["out_a"]
    assert result.dropped == {"duplicate": 1}


def test_the_interactions_tag_marks_the_pair_as_held_out() -> None:
    result = build_pairs([*make_exchange("a", held_out=True), *make_exchange("b", edits=("Another text, quite different.",))])
    assert {pair.output_id: pair.held_out for pair in result.pairs} == {"out_a": True, "out_b": False}


@pytest.mark.parametrize("shift", [timedelta(hours=23), timedelta(days=-900)])
def test_the_word_that_arrived_last_counts_whatever_time_a_client_claims(shift: timedelta) -> None:
    first, last = "Hi Maria, we are looking into it.", FINAL
    events = make_exchange(edits=(first, last))
    shifted_events = [replace(event, occurred_at=event.occurred_at + shift) if event.event_id == "fbk_a0" else event for event in events]
    [pair] = build_pairs(shifted_events).pairs
    assert pair.chosen == last
    discard = store_event(
        "feedback", "fbk_z", FeedbackSubmitted(**ABOUT, output_id="out_a", kind="action", action="discarded"), "int_a", "out_a", 20
    )
    [pair] = build_pairs([*shifted_events, replace(discard, occurred_at=START - timedelta(days=900))]).pairs
    assert pair.discarded


@pytest.mark.parametrize(("asked_with", "counts"), [(PAGE_KEY, False), ("01arz3ndektsv4rrffq69g5faw", True)])
def test_a_page_does_not_teach_what_it_asked_for_itself(asked_with: str, counts: bool) -> None:
    about_output = {**ABOUT, "output_id": "out_a"}
    prompt = (Message(role="user", content="Where is my refund?"),)
    output = OutputProduced(**about_output, text=DRAFT, messages=prompt, key_id=asked_with)
    edit = FeedbackSubmitted(**about_output, kind="edit", final_text=FINAL, page_key_id=PAGE_KEY)
    events = [
        store_event("interaction", "int_a", InteractionCreated(**ABOUT, inputs={"email": "?"}), "int_a", None, 0),
        store_event("output", "out_a", output, "int_a", "out_a", 1),
        store_event("feedback", "fbk_a", edit, "int_a", "out_a", 2),
    ]
    pairs = build_pairs(events)
    assert (len(pairs.pairs), pairs.dropped) == ((1, {}) if counts else (0, {"no_feedback": 1}))
