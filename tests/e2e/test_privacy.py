"""Personal data on the deployed laptop cloud: names go before anything is stored, and nothing is stored while they
cannot be found."""

from ulid import ULID

from tests.laptop_cloud import SKILL, LaptopCloud, until

EMAIL = "Hi,\n\nmy name is Wanjiru Odhiambo, and my flat is in Kisumu. The parcel never came. Call +254 722 123456.\n\nRegards,\nWanjiru"
FINDER = "rlaas-local-find_entities"


def payloads(cloud: LaptopCloud, tenant_id: str) -> list[str]:
    """The tenant's events in the hot store, as they lie there."""
    pages = cloud.client("dynamodb").get_paginator("scan").paginate(TableName="rlaas-local-events", ConsistentRead=True)
    return [item["payload"]["S"] for page in pages for item in page["Items"] if item.get("tenant_id") == {"S": tenant_id}]


def test_names_go_before_anything_is_stored_and_nothing_is_stored_while_they_cannot_be_found(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    tenant.admin("PUT", f"skills/{SKILL}", {})
    tenant.admin("PUT", "privacy", {"expected_version": 1, "actions": {"PERSON": "mask", "LOCATION": "hash"}})

    def report(interaction_id: str) -> int:
        body = {"skill": SKILL, "interaction_id": interaction_id, "inputs": {"email": EMAIL}, "tags": ["Wanjiru"]}
        return tenant.post("v1/interaction.create", body).status_code

    first, second = (f"int_{ULID()}" for _ in range(2))
    until(lambda: report(first) in (200, 201))  # 503 until the function's first environment is there
    [payload] = payloads(cloud, tenant.tenant_id)
    assert not [name for name in ("Wanjiru", "Odhiambo", "Kisumu", "254") if name in payload]
    assert "my name is <PERSON>, and my flat is in <LOCATION:" in payload
    assert "Regards,\\n<PERSON>" in payload

    functions = cloud.client("lambda")
    functions.put_function_concurrency(FunctionName=FINDER, ReservedConcurrentExecutions=0)
    try:
        assert report(second) == 503
        assert len(payloads(cloud, tenant.tenant_id)) == 1
    finally:
        functions.delete_function_concurrency(FunctionName=FINDER)
    assert report(second) == 201
