"""Personal data beside texts: names of inputs, tools' names and ids, numbers, reasons; and what logs repeat of it."""

import json
from pathlib import Path

from tests.laptop_cloud import SKILL, LaptopCloud, Tenant, until

MAIL, CARD = "ada.lovelace@example.com", 4111111111111111


def payloads(cloud: LaptopCloud, tenant_id: str) -> str:
    """The tenant's events in the hot store, as they lie there."""
    pages = cloud.client("dynamodb").get_paginator("scan").paginate(TableName="rlaas-local-events", ConsistentRead=True)
    return "\n".join(item["payload"]["S"] for page in pages for item in page["Items"] if item.get("tenant_id") == {"S": tenant_id})


def test_nothing_but_ids_keeps_personal_data(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {"metrics": {"paid": {"type": "float", "direction": "maximize"}}})
    call = {"id": MAIL, "function": {"name": MAIL, "arguments": f'{{"card": {CARD}.0}}'}}
    hidden = {"kind": "comment", "comment": "4111\x001111\r\n1111 1111"}
    about = {"skill": SKILL, "interaction_id": "i1"}
    answer = tenant.post(
        "v1/events:batch",
        {
            "events": [
                {
                    "type": "interaction",
                    **about,
                    "inputs": {MAIL: "x"},
                    "messages": [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "ok", "tool_call_id": MAIL}],
                    "parameters": {MAIL: [CARD], "tools": [{"n": float(CARD)}]},
                    "metadata": {"card": float(CARD), "deep": [{MAIL: CARD}]},
                },
                {"type": "output", **about, "text": "x", "model": MAIL, "tool_calls": [call]},
                {"type": "feedback", **about, "kind": "metric", "metric": "paid", "value": float(CARD)},
                {"type": "feedback", **about, **hidden},
                {"type": "task_result", **about, "name": MAIL, "value": CARD / 1},
            ]
        },
    )
    assert [one["status"] for one in answer.json()["results"]] == [201] * 5
    raw = f'{{"skill": "{SKILL}", "inputs": {{}}, "metadata": {{"card": 4.111111111111111E15}}}}'
    assert tenant.http.post("v1/interaction.create", content=raw, headers={"Content-Type": "application/json"}).status_code == 201
    text = payloads(cloud, tenant.tenant_id)
    assert text.count("<CREDIT_CARD>") >= 8
    assert not [secret for secret in (MAIL, "lovelace", "1111") if secret in text]


def test_reasons_and_descriptions_are_kept_without_personal_data(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    fields = {"description": f"asked by {MAIL}", "metadata": {"card": CARD}, "reason": f"{MAIL} wants it"}
    assert tenant.admin("PUT", f"skills/{SKILL}", fields)["description"] == "asked by <EMAIL_ADDRESS>"
    entries = until(lambda: [one for one in tenant.admin("GET", "audit")["data"] if one["target"] == f"SKILL#{SKILL}"])
    assert entries[0]["reason"] == "<EMAIL_ADDRESS> wants it"
    assert MAIL not in json.dumps(tenant.admin("GET", "skills"))


def test_no_log_repeats_a_key_that_a_client_chose(cloud: LaptopCloud, tenant: Tenant) -> None:
    address = "zebra.person@example.com"
    for path, body in (
        ("v1/interaction.create", {"skill": "s", "inputs": {address: 1}, address: 2}),
        ("v1/infer", {"skill": "s", "inputs": {}, "parameters": {address: {"n": 1}}, address: 1}),
        ("v1/chat/completions", {"model": "rlaas::x", "messages": [], address: {}}),
        ("v1/responses", {"model": "rlaas::x", "input": [], address: {}}),
    ):
        assert tenant.post(path, body).status_code in (400, 404)
    assert tenant.http.put(f"v1/admin/skills/{SKILL}", json={"metrics": {address: 1}}).status_code == 400
    groups = [group["logGroupName"] for group in cloud.client("logs").describe_log_groups()["logGroups"]]
    logs = cloud.client("logs")
    lines = [event["message"] for group in groups for event in logs.filter_log_events(logGroupName=group)["events"]]
    assert lines
    assert not [line for line in lines if "zebra" in line]
    assert not [path for path in Path(cloud.state).rglob("*.log") if b"zebra" in path.read_bytes()]
