"""What the deployed consumers fail on is kept whole, and `rlaas redrive` brings it in, exactly once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from click.testing import CliRunner
from ulid import ULID

from rlaas_sdk.redrive import redrive_command
from tests.e2e.conftest import INPUTS, SKILL, LaptopCloud, Tenant, until

BROKEN = {
    "lake_writer": ("DELIVERY_STREAM", "no-such-stream"),
    "reward_writer": ("EVENTS_TABLE", "no-such-table"),
    "audit_writer": ("AUDIT_TABLE", "no-such-table"),
}


@contextmanager
def broken_consumers(cloud: LaptopCloud) -> Iterator[None]:
    """All three stream consumers fail on whatever comes, and the mappings give up after one more try instead of a day."""
    functions = cloud.client("lambda")
    settings = {}
    for name, (variable, wrong) in BROKEN.items():
        function = f"rlaas-local-{name}"
        settings[function] = functions.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
        functions.update_function_configuration(FunctionName=function, Environment={"Variables": {**settings[function], variable: wrong}})
        [mapping] = functions.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
        functions.update_event_source_mapping(UUID=mapping["UUID"], MaximumRetryAttempts=1)
    try:
        yield
    finally:
        for function, variables in settings.items():
            functions.update_function_configuration(FunctionName=function, Environment={"Variables": variables})
            [mapping] = functions.list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
            functions.update_event_source_mapping(UUID=mapping["UUID"], MaximumRetryAttempts=-1)


def report(tenant: Tenant) -> None:
    """One interaction, its output, and what a user did with it."""
    about = {"interaction_id": f"i-{ULID()}", "skill": SKILL}
    output = {**about, "output_id": f"o-{ULID()}", "text": "Dear Ada", "usage": {"input_tokens": 9, "output_tokens": 1}}
    feedback = {**about, "output_id": output["output_id"], "kind": "action", "action": "sent"}
    for path, body in (
        ("interaction.create", {**about, "inputs": INPUTS}),
        ("interaction.output", output),
        ("feedback.submit", feedback),
    ):
        answer = tenant.post(f"v1/{path}", body)
        assert answer.status_code == 201, answer.text


def rewards(tenant: Tenant) -> int:
    today = datetime.now(UTC).date()
    days = (today - timedelta(days=1), today)  # the test may run over midnight
    return sum(len(tenant.admin("GET", f"skills/{SKILL}/rewards?date={day}")["data"]) for day in days)


def test_what_consumers_failed_on_comes_in_exactly_once_after_a_redrive(cloud: LaptopCloud) -> None:
    tenant = cloud.tenant()
    tenant.make_skill()
    until(lambda: len(tenant.admin("GET", "audit")["data"]) >= 5)
    entries = len(tenant.admin("GET", "audit")["data"])
    s3 = cloud.client("s3")
    [bucket] = [found["Name"] for found in s3.list_buckets()["Buckets"] if "-failures-" in found["Name"]]

    def consumers_that_gave_up() -> set[str]:
        keys = [found["Key"] for found in s3.list_objects_v2(Bucket=bucket, Prefix="aws/lambda/").get("Contents", [])]
        kept = [json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys]
        return {one["requestContext"]["functionArn"].rpartition("-")[2] for one in kept if tenant.tenant_id in one["payload"]}

    with broken_consumers(cloud):
        report(tenant)
        tenant.admin("PUT", f"skills/{SKILL}", {"description": "changed while nobody could write it down"})
        until(lambda: consumers_that_gave_up() == set(BROKEN))
    assert rewards(tenant) == 0
    assert len(tenant.admin("GET", "audit")["data"]) == entries

    key = cloud.key(f"t-{str(ULID()).lower()[-12:]}", ("platform",))
    told = CliRunner().invoke(redrive_command, ["--api-url", cloud.api_url, "--api-key", key])
    again = CliRunner().invoke(redrive_command, ["--api-url", cloud.api_url, "--api-key", key])
    assert (told.exit_code, again.exit_code) == (0, 0), told.output + again.output
    assert until(lambda: rewards(tenant)) == 1
    audit = tenant.admin("GET", "audit")
    assert (len(audit["data"]), audit["chain"]["intact"]) == (entries + 1, True)
    assert until(lambda: cloud.lake_events(tenant.tenant_id)) == 3
    today = datetime.now(UTC).date()
    [usage] = tenant.admin("GET", f"usage?from={today - timedelta(days=1)}&to={today}&group_by=skill")["data"]
    assert usage["requests"] == 1
