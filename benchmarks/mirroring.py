"""No mirrored request is lost: 10,000 sampled, the shadow's model failing 3 of 10, each ends as an output or as a dead
letter.

The functions are the stage's own, on moto's DynamoDB and SQS; the model is a server on the loopback that fails on
prompts by their number, and half of these only the first two times, so that retries matter. 1% of the stream's records
and of the queue's messages come twice.
"""

import json
import os
import random
import re
import time
from collections import Counter
from contextlib import redirect_stdout
from io import StringIO

import boto3
from moto import mock_aws

from benchmarks.result import report
from rlaas.adapters.aws import clients
from rlaas.adapters.aws.events import DynamoEventStore
from rlaas.adapters.aws.registry import DynamoRegistry
from rlaas.adapters.aws.shadows import DynamoShadowLedger
from rlaas.clock import utc_now
from rlaas.privacy.settings import TenantPrivacy
from rlaas.routing.route import Arm
from rlaas.tenancy.registry import PRIVACY
from tests.contract.tables import make_table
from tests.fakes.mirroring import MAX_RECEIVES, Mirroring, make_lake, make_queues
from tests.fakes.model_server import serve_model
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, make_policy, make_route

SAMPLED = 10_000
BATCH = 100
SEED = 20261125
SETTINGS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "RLAAS_STAGE": "bench",
    "REGISTRY_TABLE": "registry",
    "EVENTS_TABLE": "events",
    "COUNTERS_TABLE": "counters",
    "FIND_ENTITIES_FUNCTION": "find_entities",
    "FAILURES_BUCKET": "failures",
}


def figures(sampled: int = SAMPLED) -> dict[str, float]:
    """Mirror `sampled` requests and count their outputs, dead letters and failures."""
    os.environ.update(SETTINGS)
    chance, attempts = random.Random(SEED), Counter[str]()

    def fails(prompt: str) -> bool:
        number = re.findall(r"\d+", prompt)[-1]
        attempts[number] += 1
        return int(number) % 10 < 3 and (int(number) % 2 == 0 or attempts[number] < MAX_RECEIVES)

    with mock_aws(), serve_model() as model:
        model.fails_on = fails
        os.environ["AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME"] = model.url
        clients._client.cache_clear()
        dynamodb, sqs = boto3.client("dynamodb"), boto3.client("sqs")
        for table in ("registry", "events", "counters"):
            make_table(dynamodb, table)
        os.environ["SHADOW_QUEUE_URL"], dead = make_queues(sqs)
        os.environ["DELIVERY_STREAM"] = make_lake(boto3.client("firehose"), boto3.client("s3"))
        registry = DynamoRegistry("registry", dynamodb)
        registry.put(TENANT, PRIVACY, TenantPrivacy(), CHANGE)
        registry.put_policy(make_policy(2), CHANGE)
        mirroring = Mirroring(DynamoEventStore("events", dynamodb=dynamodb), sqs, os.environ["SHADOW_QUEUE_URL"], dead)
        mirror_route = make_route(arms=(Arm(policy_id=f"{SKILL}@v2", mode="shadow", weight=1.0),))
        start_time, output = time.perf_counter(), StringIO()
        with redirect_stdout(output):
            for start in range(0, sampled, BATCH):
                records = [mirroring.serve(mirror_route, number, NOW) for number in range(start, min(sampled, start + BATCH))]
                assert mirroring.mirror(records) == {"batchItemFailures": []}
                again = [record for record in records if chance.random() < 0.01]
                if again:
                    mirroring.mirror(again)
                mirroring.drain()
        seconds = time.perf_counter() - start_time
        pages = dynamodb.get_paginator("scan").paginate(TableName="events", ProjectionExpression="shadow")
        outputs = sum(item.get("shadow") == {"BOOL": True} for page in pages for item in page["Items"])
        entries = DynamoShadowLedger("counters", dynamodb).entries(before=utc_now())
        dead_letters = len(_dead_requests(mirroring))
    metrics = [json.loads(line) for line in output.getvalue().splitlines() if '"_aws"' in line]
    return {
        "sampled": float(sampled),
        "shadow_outputs": float(outputs),
        "dead_letters": float(dead_letters),
        "ledger_entries": float(entries),
        "lost": float(sampled - outputs - dead_letters),
        "delivered_twice": sum(line.get("ShadowSampled", 0) for line in metrics) - sampled,
        "backend_failures": sum(line.get("ShadowFailed", 0) for line in metrics),
        "requests_per_s": sampled / seconds,
    }


def _dead_requests(mirroring: Mirroring) -> set[str]:
    """The ids of the dead letters' requests; a request that was delivered twice may have two letters."""
    ids: set[str] = set()
    while messages := mirroring.sqs.receive_message(QueueUrl=mirroring.dead, MaxNumberOfMessages=10, VisibilityTimeout=600).get("Messages"):
        ids |= {json.loads(message["Body"])["interaction_id"] for message in messages}
    return ids


def main() -> None:
    """Measure and report."""
    report("mirroring", "make bench-mirroring", figures())


if __name__ == "__main__":
    main()
