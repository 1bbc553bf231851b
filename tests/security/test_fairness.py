"""One tenant's load delays another's rewards by no more than its share of the stream. Over HTTP on the laptop cloud."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.laptop_cloud import SKILL, LaptopCloud, Tenant, drafted, until

LARGE = "The parcel left on Monday. " * 6_500
"""175 KB."""
EDITS = 30


@pytest.fixture
def loud(cloud: LaptopCloud) -> Tenant:
    tenant = cloud.tenant()
    tenant.make_skill()
    return tenant


def edit(tenant: Tenant, output_id: str, final: str) -> str:
    """Submit an edit; its id."""
    answer = tenant.post("v1/feedback.submit", {"skill": SKILL, "output_id": output_id, "kind": "edit", "final_text": final})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["feedback_id"])


def rewards(tenant: Tenant) -> list[dict[str, Any]]:
    today = datetime.now(UTC).date().isoformat()
    rows: list[dict[str, Any]] = tenant.admin("GET", f"skills/{SKILL}/rewards?date={today}")["data"]
    return rows


def test_large_edits_of_one_draft_make_few_rewards_and_another_tenants_does_not_wait_for_them(tenant: Tenant, loud: Tenant) -> None:
    output_id = drafted(loud, LARGE)
    other = drafted(tenant, "The parcel left on Monday.")
    with ThreadPoolExecutor(4) as senders:
        list(senders.map(lambda number: edit(loud, output_id, f"{number} {LARGE[number * 100 :]}"), range(EDITS)))
    last = edit(loud, output_id, LARGE + "!")
    edit(tenant, other, "The parcel left on Tuesday.")
    until(lambda: any(one["output_id"] == other for one in rewards(tenant)), seconds=20)
    until(lambda: any(one["event_ids"] == [last] for one in rewards(loud)), seconds=30)
    loud_rewards = sorted(rewards(loud), key=lambda one: int(one["n"]))
    assert loud_rewards[-1]["event_ids"] == [last]
    assert len({one["n"] for one in loud_rewards}) == len(loud_rewards) <= EDITS + 1


def test_what_a_tenant_has_too_much_of_is_rewarded_all_the_same(tenant: Tenant, loud: Tenant) -> None:
    outputs = [drafted(loud, f"{number} " + "Dear customer, it left on Monday. " * 2_000) for number in range(12)]
    events = [{"type": "feedback", "skill": SKILL, "output_id": one, "kind": "edit", "final_text": "Dear Ada, " * 1_500} for one in outputs]
    assert {one["status"] for one in loud.post("v1/events:batch", {"events": events}).json()["results"]} == {201}
    other = drafted(tenant, "It left.")
    edit(tenant, other, "It left today.")
    until(lambda: any(one["output_id"] == other for one in rewards(tenant)), seconds=20)
    until(lambda: {one["output_id"] for one in rewards(loud)} >= set(outputs))


def test_texts_too_long_to_be_compared_as_a_whole_are_compared_and_the_reward_says_how(loud: Tenant) -> None:
    digits = " ".join(f"{number * 7919 % 10_007}" for number in range(9_000))
    words = digits.translate(str.maketrans("0123456789", "abcdefghij"))
    output_id = drafted(loud, words)
    edit(loud, output_id, words.replace("h", "seven"))
    [reward] = until(lambda: rewards(loud))
    assert reward["edit_measure"] == "pieces"
    assert 0 < reward["components"]["edit_similarity"] < 1
