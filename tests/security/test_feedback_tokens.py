"""A page may give feedback only on the answers that it shows; learning, guards and billing use only what servers
report. Over HTTP on the laptop cloud."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from ulid import ULID

from tests.laptop_cloud import INPUTS, SKILL, LaptopCloud, Tenant, until

ORIGIN = "https://app.example.com"
SENT = {"skill": SKILL, "kind": "action", "action": "sent"}


def page_of(cloud: LaptopCloud, tenant: Tenant) -> httpx.Client:
    """A page of the tenant's application, with its publishable key."""
    key = tenant.admin("POST", "keys", {"scopes": ["telemetry"], "origins": [ORIGIN], "reason": "the page"})
    browser = cloud.connect(key["api_key"])
    browser.headers["Origin"] = ORIGIN
    return browser


@pytest.fixture(scope="module")
def page(cloud: LaptopCloud, tenant: Tenant) -> httpx.Client:
    return page_of(cloud, tenant)


def check_refusal(answer: httpx.Response, param: str | None) -> None:
    assert answer.status_code == 403, answer.text
    assert answer.json()["error"]["param"] == param, answer.text


def rewards(tenant: Tenant) -> dict[str, dict[str, Any]]:
    """The newest reward of each output."""
    day = datetime.now(UTC).date()
    rows = [
        one for at in (day - timedelta(days=1), day) for one in tenant.admin("GET", f"skills/{SKILL}/rewards?date={at}&limit=200")["data"]
    ]
    return {one["output_id"]: one for one in sorted(rows, key=lambda one: int(one["n"]))}


def test_a_page_gives_feedback_by_the_token_alone_on_answers_of_every_way(cloud: LaptopCloud, tenant: Tenant, page: httpx.Client) -> None:
    draft = tenant.infer(thread_id="ticket-1", user_id="agent-7")
    chat = {"model": f"rlaas::{SKILL}", "messages": [{"role": "user", "content": "I was charged twice."}]}
    whole = tenant.post("v1/chat/completions", chat).json()
    with tenant.http.stream("POST", "v1/chat/completions", json={**chat, "stream": True}) as answer:
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: {")]
    first = json.loads(lines[0])
    decision = tenant.post("v1/decide", {"skill": SKILL, "inputs": INPUTS}).json()
    report = tenant.post("v1/interaction.output", {"skill": SKILL, "interaction_id": "ticket-1", "output_id": "o-1", "text": "Hi"}).json()
    token_answer = tenant.post("v1/feedback.token", {"skill": SKILL, "interaction_id": "ticket-2", "output_id": "o-2"}).json()
    tokens = {
        draft["output_id"]: draft["feedback_token"],
        whole["id"]: whole["rlaas::feedback_token"],
        first["id"]: first["rlaas::feedback_token"],
        decision["output_id"]: decision["feedback_token"],
        "o-1": report["feedback_token"],
        "o-2": token_answer["feedback_token"],
    }
    assert max(map(len, tokens.values())) < 256, "it goes into pages"
    for token in tokens.values():
        answer = page.post("v1/feedback.submit", json={**SENT, "feedback_token": token})
        assert answer.status_code in (201, 202), answer.text
    reward_of = until(
        lambda: by_output if {draft["output_id"], whole["id"], first["id"], "o-1"} <= (by_output := rewards(tenant)).keys() else None
    )
    assert reward_of[draft["output_id"]]["reward"] == 1.0


def test_a_page_says_nothing_without_a_token_or_beyond_it(cloud: LaptopCloud, tenant: Tenant, page: httpx.Client) -> None:
    mine, other = tenant.infer(user_id="agent-7"), tenant.infer()
    stranger = cloud.tenant()
    stranger.make_skill()
    theirs = stranger.infer()
    decision = tenant.post("v1/decide", {"skill": SKILL, "inputs": INPUTS}).json()
    token = str(mine["feedback_token"])
    payload, _, proof = token.partition(".")
    check_refusal(page.post("v1/feedback.submit", json={**SENT, "output_id": mine["output_id"]}), "feedback_token")
    for wrong in ("", "x", f"{payload}.", f"{payload}.{'0' * len(proof)}", f"{payload}=.{proof}", f"{payload[:-1]}.{proof}", "\u00e9.x"):
        check_refusal(page.post("v1/feedback.submit", json={**SENT, "feedback_token": wrong}), "feedback_token")
    check_refusal(page.post("v1/feedback.submit", json={**SENT, "feedback_token": theirs["feedback_token"]}), "feedback_token")
    long = page.post("v1/feedback.submit", json={**SENT, "feedback_token": decision["decision_token"]})
    assert long.status_code in (400, 403), long.text
    beyond: list[tuple[dict[str, Any], str]] = [
        ({"output_id": other["output_id"]}, "output_id"),
        ({"interaction_id": other["interaction_id"]}, "interaction_id"),
        ({"user_id": "agent-8"}, "user_id"),
        ({"thread_id": "ticket-9"}, "thread_id"),
        ({"skill": "another"}, "skill"),
        ({"tags": ["held-out"]}, "tags"),
    ]
    for fields, param in beyond:
        check_refusal(page.post("v1/feedback.submit", json={**SENT, "feedback_token": token, **fields}), param)
    request = {"skill": SKILL, "inputs": INPUTS, "interaction_id": decision["interaction_id"]}
    output = {"skill": SKILL, "interaction_id": request["interaction_id"], "text": "Hi", "decision_token": token}
    assert tenant.post("v1/interaction.output", output).status_code == 400, "nor is it a decision"
    check_refusal(page.post("v1/feedback.token", json={"skill": SKILL, "output_id": other["output_id"]}), "type")


def test_a_page_reports_no_other_event_alone_or_in_a_batch(cloud: LaptopCloud, tenant: Tenant, page: httpx.Client) -> None:
    draft = tenant.infer()
    about = {"skill": SKILL, "interaction_id": draft["interaction_id"]}
    events: dict[str, tuple[str, dict[str, Any]]] = {
        "interaction": (
            "interaction.create",
            {"skill": SKILL, "tags": ["held-out"], "messages": [{"role": "system", "content": "Be rude."}]},
        ),
        "output": (
            "interaction.output",
            {**about, "text": "Hi", "policy_id": f"{SKILL}@v1", "usage": {"input_tokens": 1, "output_tokens": 1}},
        ),
        "task_result": ("task_result", {**about, "name": "resolved", "value": True}),
    }
    for path, body in events.values():
        check_refusal(page.post(f"v1/{path}", json=body), "type")
    batch: list[dict[str, Any]] = [{"type": kind, **body} for kind, (_, body) in events.items()]
    batch.append({"type": "feedback", **SENT, "feedback_token": draft["feedback_token"]})
    results = page.post("v1/events:batch", json={"events": batch}).json()["results"]
    assert [result["status"] for result in results] == [403, 403, 403, 201]
    assert {result["error"]["param"] for result in results[:3]} == {"type"}
    assert page.post("v1/events:batch", json={"events": batch * 7}).status_code == 400, "25 events at a time"
    for path in ("v1/infer", "v1/decide", "v1/chat/completions"):
        assert page.post(path, json={"skill": SKILL, "inputs": INPUTS}).status_code == 403


def test_two_answers_are_compared_by_who_has_the_tokens_of_both(tenant: Tenant, page: httpx.Client) -> None:
    one, two = tenant.infer(), tenant.infer()
    comparison = {"skill": SKILL, "kind": "comparison", "preferred_output_id": two["output_id"], "feedback_token": one["feedback_token"]}
    check_refusal(page.post("v1/feedback.submit", json=comparison), "preferred_feedback_token")
    wrong = {**comparison, "preferred_feedback_token": one["feedback_token"]}
    check_refusal(page.post("v1/feedback.submit", json=wrong), "preferred_output_id")
    against_all = {**comparison, "preferred_output_id": one["output_id"], "preferred_feedback_token": one["feedback_token"]}
    check_refusal(page.post("v1/feedback.submit", json=against_all), "preferred_output_id")
    answer = page.post("v1/feedback.submit", json={**comparison, "preferred_feedback_token": two["feedback_token"]})
    assert answer.status_code == 201, answer.text


def test_the_word_that_arrived_last_counts_whatever_a_pages_clock_says(tenant: Tenant, page: httpx.Client) -> None:
    draft = tenant.infer()
    ahead = (datetime.now(UTC) + timedelta(hours=23)).strftime("%Y-%m-%dT%H:%M:%SZ")
    edit = {"skill": SKILL, "kind": "edit", "final_text": "Nothing of the draft is left 0123456789", "occurred_at": ahead}
    assert page.post("v1/feedback.submit", json={**edit, "feedback_token": draft["feedback_token"]}).status_code == 201
    last = {"skill": SKILL, "output_id": draft["output_id"], "kind": "edit", "final_text": draft["text"]}
    assert tenant.post("v1/feedback.submit", last).status_code == 201
    # One reward or two, as the stream delivers them together or apart.
    until(lambda: (one := rewards(tenant).get(draft["output_id"])) and one["components"]["edit_similarity"] == 1.0)


def test_a_page_takes_no_id_from_anybody_and_repeats_itself_once(tenant: Tenant, page: httpx.Client) -> None:
    draft = tenant.infer()
    feedback = {**SENT, "feedback_token": draft["feedback_token"]}
    for feedback_id in ("ticket-77-sent", f"int_{ULID()}", draft["output_id"]):
        first, again = (page.post("v1/feedback.submit", json={**feedback, "feedback_id": feedback_id}) for _ in range(2))
        assert (first.status_code, again.status_code) == (201, 200), first.text
        assert first.json()["feedback_id"] == again.json()["feedback_id"] != feedback_id
    mine = {**SENT, "output_id": draft["output_id"], "feedback_id": "ticket-77-sent"}
    assert tenant.post("v1/feedback.submit", mine).status_code == 201
    page_answer = page.post("v1/feedback.submit", json=feedback, headers={"Idempotency-Key": "k-1"})
    own_answer = tenant.post(
        "v1/feedback.submit", {**SENT, "output_id": draft["output_id"], "metadata": {"by": "us"}}, headers={"Idempotency-Key": "k-1"}
    )
    assert (page_answer.status_code, own_answer.status_code) == (201, 201), own_answer.text


def test_no_one_derives_an_outputs_id_and_none_that_is_taken_loses_a_paid_answer(cloud: LaptopCloud, tenant: Tenant) -> None:
    stranger = cloud.tenant()
    stranger.make_skill()
    ulid = str(ULID())
    interaction_id = f"int_{ulid}"
    ids = {one.infer(interaction_id=interaction_id)["output_id"] for one in (tenant, stranger)}
    assert len(ids) == 2, "not without the tenant's own key"
    assert f"out_{ulid}" not in ids
    used_ulid = str(ULID())
    about = {"skill": SKILL, "interaction_id": f"int_{used_ulid}"}
    assert tenant.post("v1/interaction.output", {**about, "output_id": f"out_{used_ulid}", "text": "Ours"}).status_code == 202
    assert tenant.post("v1/feedback.submit", {**about, **SENT, "feedback_id": f"out_{used_ulid}_x"}).status_code == 202
    first, again = tenant.infer(interaction_id=f"int_{used_ulid}"), tenant.infer(interaction_id=f"int_{used_ulid}")
    assert (first["idempotent_replay"], again["idempotent_replay"]) == (False, True)
    assert first["text"] == again["text"] != "Ours"


def test_an_interaction_reported_first_is_answered_or_refused_before_the_model_is_paid(tenant: Tenant) -> None:
    ours, others = f"int_{ULID()}", f"int_{ULID()}"
    assert tenant.post("v1/interaction.create", {"skill": SKILL, "inputs": INPUTS, "interaction_id": ours}).status_code == 201
    assert tenant.infer(interaction_id=ours)["idempotent_replay"] is False
    request = {"skill": SKILL, "inputs": {**INPUTS, "email": "Another"}, "interaction_id": others}
    assert tenant.post("v1/interaction.create", request).status_code == 201
    answer = tenant.post("v1/infer", {"skill": SKILL, "inputs": INPUTS, "interaction_id": others})
    assert (answer.status_code, answer.json()["error"]["param"]) == (409, "interaction_id")


@pytest.mark.parametrize("field", ["input_tokens", "output_tokens", "cached_tokens"])
def test_tokens_that_an_application_claims_are_bounded(tenant: Tenant, field: str) -> None:
    usage = {"input_tokens": 1, "output_tokens": 1, field: 10**7 + 1}
    answer = tenant.post("v1/interaction.output", {"skill": SKILL, "interaction_id": f"int_{ULID()}", "text": "Hi", "usage": usage})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, f"usage.{field}")


def test_a_page_that_floods_is_told_to_wait_and_its_tenants_servers_are_not(cloud: LaptopCloud, tenant: Tenant) -> None:
    flooding = page_of(cloud, tenant)
    body = {"events": [{"type": "feedback", **SENT}] * 25}
    with ThreadPoolExecutor(4) as senders:
        slow: list[httpx.Response] = []
        for _ in range(10):
            answers = [*senders.map(lambda _: flooding.post("v1/events:batch", json=body), range(16))]
            if slow := [answer for answer in answers if answer.status_code == 429]:
                break
        own = [*senders.map(lambda _: tenant.http.get("v1/models").status_code, range(20))]
    assert slow
    assert {answer.headers["Retry-After"] for answer in slow} == {"1"}
    assert set(own) == {200}
