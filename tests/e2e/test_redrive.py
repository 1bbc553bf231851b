"""What the deployed consumers fail on is kept whole, and `rlaas redrive` brings it in, exactly once."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from click.testing import CliRunner
from ulid import ULID

from rlaas_sdk.redrive import redrive_command
from tests.laptop_cloud import INPUTS, SKILL, LaptopCloud, Tenant, until

BROKEN = {
    "lake_writer": ("DELIVERY_STREAM", "no-such-stream"),
    "reward_writer": ("EVENTS_TABLE", "no-such-table"),
    "audit_writer": ("AUDIT_TABLE", "no-such-table"),
}


def stream_mapping(cloud: LaptopCloud, function: str) -> str:
    """The id of the mapping by which the function follows its table's stream; it may follow a queue as well."""
    mappings = cloud.client("lambda").list_event_source_mappings(FunctionName=function)["EventSourceMappings"]
    [mapping_id] = [mapping["UUID"] for mapping in mappings if ":dynamodb:" in mapping["EventSourceArn"]]
    return mapping_id


@contextmanager
def broken_consumers(cloud: LaptopCloud) -> Iterator[None]:
    """All three stream consumers fail on whatever comes, and the mappings give up after one more try instead of a
    day."""
    functions = cloud.client("lambda")
    settings = {}
    try:
        for name, (variable, wrong) in BROKEN.items():
            function = f"rlaas-local-{name}"
            settings[function] = functions.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
            wrong_variables = {**settings[function], variable: wrong}
            functions.update_function_configuration(FunctionName=function, Environment={"Variables": wrong_variables})
            functions.update_event_source_mapping(UUID=stream_mapping(cloud, function), MaximumRetryAttempts=1)
        yield
    finally:
        for function, variables in settings.items():
            functions.update_function_configuration(FunctionName=function, Environment={"Variables": variables})
            functions.update_event_source_mapping(UUID=stream_mapping(cloud, function), MaximumRetryAttempts=-1)


def report(tenant: Tenant) -> str:
    """One interaction, its output, and what a user did with it; the id of the output."""
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
    return output["output_id"]


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
    [bucket] = [entry["Name"] for entry in s3.list_buckets()["Buckets"] if "-failures-" in entry["Name"]]

    def gave_up(consumer: str, *last: str) -> bool:
        """Whether the consumer's failures hold the record that has all these words, the last one written to its
        stream."""
        keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket, Prefix="aws/lambda/").get("Contents", [])]
        failures = [json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys]
        return any(
            one["requestContext"]["functionArn"].endswith(f"-{consumer}") and all(word in one["payload"] for word in last)
            for one in failures
        )

    with broken_consumers(cloud):
        output_id, description = report(tenant), f"changed while nobody could write it down: {ULID()}"
        tenant.admin("PUT", f"skills/{SKILL}", {"description": description})
        until(lambda: gave_up("audit_writer", description))
        for consumer in ("lake_writer", "reward_writer"):
            until(lambda consumer=consumer: gave_up(consumer, output_id, "feedback"))
    assert rewards(tenant) == 0
    assert len(tenant.admin("GET", "audit")["data"]) == entries

    key = cloud.key(f"t-{str(ULID()).lower()[-12:]}", ("platform",))
    for _ in range(2):  # a repeat changes nothing; its exit status also counts what other tests left behind
        result = CliRunner().invoke(redrive_command, ["--api-url", cloud.api_url, "--api-key", key])
        assert ", 0 left" in result.output, result.output
        with cloud.connect(key) as operator:
            answer = operator.post("v1/admin/redrives", json={"dryrun": True})
        assert answer.json()["waiting"]["batches"] == 0, answer.text
    assert until(lambda: rewards(tenant)) == 1
    audit = tenant.admin("GET", "audit")
    assert (len(audit["data"]), audit["chain"]["intact"]) == (entries + 1, True)
    assert until(lambda: cloud.lake_events(tenant.tenant_id)) == 3
    today = datetime.now(UTC).date()
    [usage] = tenant.admin("GET", f"usage?from={today - timedelta(days=1)}&to={today}&group_by=skill")["data"]
    assert usage["requests"] == 1
