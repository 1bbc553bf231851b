"""Mirroring on moto, from the stream's record to the shadow's output or the dead letter, and the check that nothing is
lost."""

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import boto3
import pytest

from functions.reconcile_shadows import handler as reconcile
from functions.shadow import handler as shadow
from rlaas.adapters.aws.shadows import DynamoShadowLedger
from rlaas.chat import Message
from rlaas.ids import derive_id
from rlaas.inference.shadow import ShadowTask
from rlaas.metering.budgets import BUDGETS, Budget, Budgets
from rlaas.policies.guardrails.guardrail_list import Guardrails
from rlaas.policies.guardrails.lists import BlockList
from rlaas.routing.route import Arm
from rlaas.runtime import stage as runtime
from rlaas.telemetry.events import InteractionCreated, OutputProduced
from rlaas.telemetry.ingest import prepare_request
from rlaas.telemetry.item_size import MAX_STORED_BYTES
from tests.fakes.gateway import make_lambda_context
from tests.fakes.mirroring import MAX_RECEIVES, Mirroring, make_lake, make_queues
from tests.fakes.model_server import ModelServer, serve_model
from tests.fakes.privacy import AS_IT_IS
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, make_policy, make_route
from tests.unit.functions.conftest import Stage

if TYPE_CHECKING:
    from types_boto3_sqs import SQSClient

MIRRORED = make_route(arms=(Arm(policy_id=f"{SKILL}@v2", mode="shadow", weight=1.0),))


@pytest.fixture
def mirroring(furnished_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Mirroring:
    sqs: SQSClient = boto3.client("sqs")
    queue, dead = make_queues(sqs)
    monkeypatch.setenv("SHADOW_QUEUE_URL", queue)
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", dead)
    monkeypatch.setenv("DELIVERY_STREAM", make_lake(boto3.client("firehose"), boto3.client("s3")))
    return Mirroring(furnished_stage.events, sqs, queue, dead)


@pytest.fixture
def model(mirroring: Mirroring, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with serve_model() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", server.url)
        from rlaas.adapters.models.sagemaker import _runtime

        _runtime.cache_clear()
        yield server
        _runtime.cache_clear()


def outputs_of(stage: Stage) -> list[OutputProduced]:
    """The shadows' outputs."""
    stored = [item for item in stage.items("events") if item.get("shadow") == {"BOOL": True}]
    return [OutputProduced.model_validate_json(item["payload"]["S"]) for item in stored]


def open_entries() -> int:
    return DynamoShadowLedger("counters").entries(before=datetime.now(UTC) + timedelta(seconds=1))


def test_every_sampled_request_ends_as_an_output_or_a_dead_letter(
    furnished_stage: Stage, mirroring: Mirroring, model: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    model.fails_on = lambda prompt: int(re.findall(r"\d+", prompt)[-1]) % 10 < 3
    records = [mirroring.serve(MIRRORED, number, NOW) for number in range(60)]
    assert mirroring.mirror(records) == {"batchItemFailures": []}
    assert open_entries() == 60
    mirroring.drain()
    outputs = outputs_of(furnished_stage)
    assert (len(outputs), mirroring.dead_letters()) == (42, 18)
    assert open_entries() == 18
    assert len(model.requests) == 42 + 18 * MAX_RECEIVES
    metrics = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "_aws" in line]
    assert sum(line.get("ShadowSampled", 0) for line in metrics) == 60
    assert sum(line.get("ShadowOutput", 0) for line in metrics) == 42


def test_a_shadow_whose_model_sleeps_wakes_it_and_is_done_when_it_is_awake(
    furnished_stage: Stage, mirroring: Mirroring, model: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    mirroring.mirror([mirroring.serve(MIRRORED, 7, NOW)])
    model.asleep = True
    (message,) = mirroring.sqs.receive_message(QueueUrl=mirroring.queue)["Messages"]
    records = [{"messageId": message["MessageId"], "body": message["Body"]}]
    assert shadow.handler({"Records": records}, make_lambda_context()) == {"batchItemFailures": [{"itemIdentifier": message["MessageId"]}]}
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if '"NoCapacity"' in line]
    assert (line["NoCapacity"], line["_aws"]["CloudWatchMetrics"][0]["Dimensions"], line["tenant_id"]) == (1, [["stage"]], TENANT)
    model.asleep = False
    mirroring.drain()
    assert len(outputs_of(furnished_stage)) == 1


def test_a_shadows_output_says_what_the_shadow_saw_and_counts_for_nothing(
    furnished_stage: Stage, mirroring: Mirroring, model: ModelServer
) -> None:
    mirroring.mirror([mirroring.serve(MIRRORED, 7, NOW)])
    mirroring.drain()
    (output,) = outputs_of(furnished_stage)
    assert (output.text, output.policy_id, output.interaction_id) == (
        "v2: Reply to: where is parcel 7?",
        f"{SKILL}@v2",
        derive_id("int", "7"),
    )
    assert output.decision is not None
    assert (output.decision.shadow, output.decision.counts, output.decision.reason) == (True, False, "shadow")
    assert output.usage is not None


def test_a_shadows_own_guardrails_hold_for_it(furnished_stage: Stage, mirroring: Mirroring, model: ModelServer) -> None:
    guardrails = Guardrails(input=(BlockList(terms=("parcel",)),), safe_answer="Please call us.")
    furnished_stage.registry.put_policy(make_policy(3).model_copy(update={"guardrails": guardrails}), CHANGE)
    guarded = make_route(arms=(Arm(policy_id=f"{SKILL}@v3", mode="shadow", weight=1.0),))
    mirroring.mirror([mirroring.serve(guarded, 1, NOW)])
    mirroring.drain()
    (output,) = outputs_of(furnished_stage)
    assert (output.text, output.finish_reason, model.requests) == ("Please call us.", "content_filter", [])
    guardrail_events = [item for item in furnished_stage.items("events") if item.get("event_type") == {"S": "guardrail"}]
    assert len(guardrail_events) == 1


def test_a_task_delivered_twice_leaves_one_output_and_asks_once(furnished_stage: Stage, mirroring: Mirroring, model: ModelServer) -> None:
    record = mirroring.serve(MIRRORED, 1, NOW)
    for _ in range(2):
        mirroring.mirror([record])
        mirroring.drain()
    assert (len(outputs_of(furnished_stage)), len(model.requests), open_entries(), mirroring.dead_letters()) == (1, 1, 0, 0)


def test_a_conversation_that_was_too_large_to_be_stored_is_not_mirrored_and_not_missed(
    furnished_stage: Stage, mirroring: Mirroring, model: ModelServer
) -> None:
    large = InteractionCreated(
        interaction_id=derive_id("int", "1"), skill=SKILL, messages=(Message(role="user", content="x" * MAX_STORED_BYTES),)
    )
    furnished_stage.events.put_new(prepare_request(large, TENANT, received_at=NOW, scrubber=AS_IT_IS))
    mirroring.mirror([mirroring.serve(MIRRORED, 1, NOW)])
    mirroring.drain()
    assert (outputs_of(furnished_stage), model.requests, open_entries(), mirroring.dead_letters()) == ([], [], 0, 0)


def test_what_the_queue_refuses_is_delivered_again_from_the_first_such_record(
    mirroring: Mirroring,
) -> None:
    records = [mirroring.serve(MIRRORED, number, NOW) for number in range(3)]
    without_queue = runtime.Stage({**os.environ, "SHADOW_QUEUE_URL": mirroring.queue + "-gone"})
    with runtime.replace_stage(without_queue), pytest.raises(Exception, match="SQS"):
        mirroring.mirror(records)
    assert open_entries() == 3  # what the stream delivers again enters them anew


def test_shadows_spend_from_their_own_budget_alone(furnished_stage: Stage, mirroring: Mirroring, model: ModelServer) -> None:
    few = Budgets(
        budgets=(
            Budget(name="few", scope="shadow", measure="requests", limit=2, window="month"),
            Budget(name="none", scope="tenant", measure="requests", limit=0, window="month"),
        )
    )
    furnished_stage.registry.put(TENANT, BUDGETS, few, CHANGE)
    mirroring.mirror([mirroring.serve(MIRRORED, number, NOW) for number in range(5)])
    mirroring.drain()
    assert (len(outputs_of(furnished_stage)), mirroring.dead_letters(), len(model.requests)) == (2, 3, 2)


def test_a_policy_that_is_not_there_ends_as_a_dead_letter(mirroring: Mirroring, model: ModelServer) -> None:
    mirroring.mirror([mirroring.serve(make_route(arms=(Arm(policy_id=f"{SKILL}@v9", mode="shadow", weight=1.0),)), 1, NOW)])
    mirroring.drain()
    assert mirroring.dead_letters() == 1


def test_the_check_finds_a_request_that_is_neither_answered_nor_dead(
    mirroring: Mirroring, model: ModelServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reconcile.handler({}, make_lambda_context())["entries"] == 0
    assert capsys.readouterr().out == ""  # a metric is paid for each hour in which it is sent
    model.fails_on = lambda prompt: "parcel 1?" in prompt
    mirroring.mirror([mirroring.serve(MIRRORED, number, NOW) for number in range(3)])
    mirroring.drain()
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    ledger = DynamoShadowLedger("counters")
    served = derive_id("int", "1")
    ledger.enter([ShadowTask(tenant_id=TENANT, interaction_id=served, output_id="any", policy_id=f"{SKILL}@v2")], at=long_ago)
    assert reconcile.handler({}, make_lambda_context()) == {"entries": 1, "under_way": 0, "dead": 1, "lost": 0}
    ledger.enter([ShadowTask(tenant_id=TENANT, interaction_id="i9", output_id="o9", policy_id=f"{SKILL}@v2")], at=long_ago)
    assert reconcile.handler({}, make_lambda_context())["lost"] == 1
    assert '"ShadowLost":1' in capsys.readouterr().out
