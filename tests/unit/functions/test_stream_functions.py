import json
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest

from functions.audit_writer.handler import handler as audit
from functions.reward_writer.handler import handler as follow
from rlaas.aws import clients
from rlaas.aws.usage import COUNTABLE, DynamoUsage
from rlaas.clock import utc_now
from rlaas.rewards.reading import OneReading
from rlaas.routing.assign import assign
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, InteractionCreated, OutputProduced, RewardComputed, Usage
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.pending import join_waiting
from rlaas.telemetry.usage import Tally
from rlaas.tenancy.audit import verify_chain
from rlaas.tenancy.keys import make_key
from rlaas.tenancy.registry import Change
from tests.fakes.gateway import lambda_context
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, canary, route
from tests.unit.functions.conftest import Stage


def record(number: int, new: dict[str, Any] | None, old: dict[str, Any] | None = None, *, name: str | None = None) -> dict[str, Any]:
    images = {"NewImage": new, "OldImage": old}
    return {
        "eventID": f"event-{number}",
        "eventName": name or ("MODIFY" if new and old else "INSERT" if new else "REMOVE"),
        "dynamodb": {"SequenceNumber": str(number), **{image: item for image, item in images.items() if item}},
    }


def landed(stage: Stage, number: int, event: AnyEvent) -> dict[str, Any]:
    stored = prepare(event, TENANT, received_at=NOW)
    stage.events.put_new(stored)
    (item,) = [item for item in stage.items("events") if item.get("event_id") == {"S": stored.event_id}]
    return record(number, item)


def output(rollout_id: str | None) -> OutputProduced:
    decision = assign(route(arms=(canary(2, 1.0),), rollout_id=rollout_id), "t1", decision_id="dec_1", decided_at=NOW)
    return OutputProduced(
        output_id="o1", interaction_id="i1", skill=SKILL, text="Dear customer", policy_id=f"{SKILL}@v2", decision=decision
    )


def sent() -> FeedbackSubmitted:
    return FeedbackSubmitted(feedback_id="f2", interaction_id="i1", output_id="o1", skill=SKILL, kind="action", action="sent")


def edit() -> FeedbackSubmitted:
    return FeedbackSubmitted(feedback_id="f1", interaction_id="i1", output_id="o1", skill=SKILL, kind="edit", final_text="Dear friend")


def test_feedback_becomes_rewards_once_however_often_it_is_delivered(furnished_stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    happened: list[AnyEvent] = [output("rol_1"), edit(), sent()]
    records = [landed(furnished_stage, number, event) for number, event in enumerate(happened)]
    for _ in range(2):
        assert follow({"Records": records}, lambda_context()) == {"batchItemFailures": []}
    assert capsys.readouterr().out == ""
    [reward] = [event.event() for event in furnished_stage.events.by_interaction(TENANT, "i1") if event.event_type == "reward"]
    assert isinstance(reward, RewardComputed)
    assert (reward.rollout_id, reward.components["sent"], reward.n) == ("rol_1", 1.0, 2)


def test_a_batch_reads_its_interaction_once_and_knows_what_it_wrote(furnished_stage: Stage) -> None:
    records = [landed(furnished_stage, number, event) for number, event in enumerate([sent(), edit(), output("rol_1")])]
    asked: Counter[str] = Counter()

    def note(event_name: str, **_: object) -> None:
        asked[event_name.rpartition(".")[2]] += 1

    clients.client("dynamodb").meta.events.register("provide-client-params.dynamodb", note)
    assert follow({"Records": records}, lambda_context()) == {"batchItemFailures": []}
    # Three events with ids of the client's own, which a query finds by their links; one reward, and its link.
    assert asked == {"Query": 1, "BatchGetItem": 1, "GetItem": 1, "PutItem": 2}
    assert len([event for event in furnished_stage.events.by_interaction(TENANT, "i1") if event.event_type == "reward"]) == 1


def test_feedback_that_came_first_is_settled_once_in_a_batch(furnished_stage: Stage) -> None:
    early = replace(prepare(sent(), TENANT, received_at=NOW), pending=True)
    store = OneReading(furnished_stage.events, furnished_stage.registry)
    interaction = InteractionCreated(interaction_id="i1", skill=SKILL, inputs={})
    happened = [early, *(prepare(event, TENANT, received_at=NOW) for event in (interaction, output(None)))]
    for event in happened:
        furnished_stage.events.put_new(event)
    assert [join_waiting(event, store=store) for event in happened] == [1, 0, 0]
    assert [event.pending for event in furnished_stage.events.by_interaction(TENANT, "i1")] == [False] * 3


def kept() -> dict[str, Any]:
    """What is set aside, by its key."""
    s3 = boto3.client("s3")
    found = s3.list_objects_v2(Bucket="failures").get("Contents", [])
    return {each["Key"]: json.loads(s3.get_object(Bucket="failures", Key=each["Key"])["Body"].read()) for each in found}


def test_a_record_that_no_retry_can_help_is_set_aside_whole_and_the_rest_go_on(furnished_stage: Stage) -> None:
    malformed = record(1, {"event_type": {"S": "output"}, "text": {"S": "as it was"}})
    later = [landed(furnished_stage, 2, output(None)), landed(furnished_stage, 3, sent())]
    for _ in range(2):
        assert follow({"Records": [malformed, *later]}, lambda_context("rlaas-test-reward_writer")) == {"batchItemFailures": []}
    assert [event.event_type for event in furnished_stage.events.by_interaction(TENANT, "i1")].count("reward") == 1
    [(key, document)] = kept().items()
    assert key.startswith("aws/lambda/rlaas-test-reward_writer/")
    assert document["requestContext"]["functionArn"].endswith(":function:rlaas-test-reward_writer")
    assert json.loads(document["payload"]) == {"Records": [malformed]}


def test_a_record_that_fails_for_now_is_where_the_stream_begins_again(furnished_stage: Stage) -> None:
    records = [landed(furnished_stage, 1, output(None)), landed(furnished_stage, 2, sent())]
    furnished_stage.dynamodb.delete_table(TableName="events")
    assert follow({"Records": records}, lambda_context()) == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert kept() == {}


def test_a_record_that_cannot_be_set_aside_is_where_the_stream_begins_again(furnished_stage: Stage) -> None:
    boto3.client("s3").delete_bucket(Bucket="failures")
    malformed = record(1, {"event_type": {"S": "feedback"}})
    answer = follow({"Records": [malformed, landed(furnished_stage, 2, sent())]}, lambda_context())
    assert answer["batchItemFailures"][0] == {"itemIdentifier": "1"}


def test_one_output_that_cannot_be_counted_does_not_keep_the_others_usage(furnished_stage: Stage) -> None:
    event = output(None).model_copy(update={"usage": Usage(input_tokens=9, output_tokens=1)})
    malformed = record(1, {"event_type": {"S": "output"}})
    assert follow({"Records": [malformed, landed(furnished_stage, 2, event)]}, lambda_context()) == {"batchItemFailures": []}
    ((_, tally),) = DynamoUsage("counters", furnished_stage.dynamodb).between(TENANT, NOW.date(), NOW.date())
    assert tally.requests == 1


def test_a_batch_that_is_played_again_names_what_still_fails_and_sets_nothing_aside(furnished_stage: Stage) -> None:
    malformed = record(1, {"event_type": {"S": "feedback"}})
    later = [landed(furnished_stage, 2, output(None)), landed(furnished_stage, 3, sent())]
    answer = follow({"Records": [malformed, *later], "redrive": True}, lambda_context())
    assert answer == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert [event.event_type for event in furnished_stage.events.by_interaction(TENANT, "i1")].count("reward") == 1
    assert kept() == {}


def test_outputs_are_counted_once_however_often_they_are_delivered(furnished_stage: Stage) -> None:
    tallies = DynamoUsage("counters", furnished_stage.dynamodb)
    used = [
        output(None).model_copy(
            update={"output_id": f"o{n}", "usage": Usage(input_tokens=9, output_tokens=1), "cost_usd": 0.25, "key_id": "k1"}
        )
        for n in range(3)
    ]
    records = [landed(furnished_stage, number, event) for number, event in enumerate([*used, output("rol_1"), sent()])]
    for batch in (records, records[1:], records[:2]):
        assert follow({"Records": batch}, lambda_context()) == {"batchItemFailures": []}
    ((account, tally),) = tallies.between(TENANT, NOW.date(), NOW.date())
    assert (account.skill, account.policy_id, account.key_id) == (SKILL, f"{SKILL}@v2", "k1")
    assert tally == Tally(requests=3, input_tokens=27, output_tokens=3, cost_nano_usd=750_000_000)


def test_a_batch_whose_usage_cannot_be_counted_begins_again(furnished_stage: Stage) -> None:
    event = output(None).model_copy(update={"usage": Usage(input_tokens=9, output_tokens=1)})
    records = [landed(furnished_stage, 1, sent()), landed(furnished_stage, 2, event)]
    furnished_stage.dynamodb.delete_table(TableName="counters")
    assert follow({"Records": records}, lambda_context()) == {"batchItemFailures": [{"itemIdentifier": "1"}]}


def test_every_change_of_the_registry_has_its_entry_and_counters_and_copies_have_none(stage: Stage) -> None:
    key, _ = make_key(tenant_id=TENANT, scopes=("infer",), created_at=NOW)
    stage.registry.create_key(key, CHANGE)
    stage.registry.next_number(TENANT, SKILL, "policy")
    stage.registry.write_route(route(last_good=route(control=9).target), expected_version=0)
    before = {item["sk"]["S"]: item for item in stage.items("registry")}
    stage.registry.rollback(TENANT, SKILL, Change(actor="alarm:guard", reason="reward fell", at=NOW))
    after = {item["sk"]["S"]: item for item in stage.items("registry")}
    records = [record(number, item) for number, item in enumerate(before.values())]
    records.append(record(99, after[f"ROUTE#{SKILL}"], before[f"ROUTE#{SKILL}"]))
    for _ in range(2):
        assert audit({"Records": records}, lambda_context()) == {"batchItemFailures": []}
    entries = stage.audit.entries(TENANT)
    assert verify_chain(entries) == 3
    assert {entry.target for entry in entries} == {f"KEY#{key.key_id}", f"ROUTE#{SKILL}"}
    last = entries[-1]
    assert (last.actor, last.reason, last.action, last.before_version, last.after_version) == ("alarm:guard", "reward fell", "change", 1, 2)


def by_hand(number: int, item: dict[str, Any]) -> dict[str, Any]:
    change = record(number, {"pk": {"S": f"T#{TENANT}"}, "sk": {"S": "SKILL#x"}, **item})
    change["dynamodb"]["ApproximateCreationDateTime"] = NOW.timestamp()
    return change


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"changed_at": {"S": "yesterday"}, "changed_by": {"N": "7"}, "reason": {"BOOL": True}, "version": {"S": "new"}},
        {"changed_at": {"S": "2026-03-01T12:00:00"}},
    ],
)
def test_a_change_made_by_hand_has_its_entry_whatever_it_lacks(stage: Stage, item: dict[str, Any]) -> None:
    assert audit({"Records": [by_hand(1, item), by_hand(2, item)]}, lambda_context()) == {"batchItemFailures": []}
    entries = stage.audit.entries(TENANT)
    assert verify_chain(entries) == 2
    assert (entries[0].actor, entries[0].reason, entries[0].at, entries[0].after_version) == ("unknown", "unknown", NOW, None)


def test_what_is_no_tenants_keeps_no_tenants_change_from_the_audit(stage: Stage) -> None:
    strange = by_hand(1, {})
    strange["dynamodb"]["NewImage"]["pk"] = {"S": "T#Not A Tenant"}
    assert audit({"Records": [strange, by_hand(2, {})]}, lambda_context()) == {"batchItemFailures": []}
    assert len(stage.audit.entries(TENANT)) == 1


def test_the_audit_sets_nothing_aside_since_others_would_go_before_it(stage: Stage) -> None:
    stage.dynamodb.delete_table(TableName="audit")
    assert audit({"Records": [by_hand(1, {}), by_hand(2, {})]}, lambda_context()) == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert kept() == {}


def test_a_redriven_output_is_counted_once_and_not_when_its_mark_may_be_gone(furnished_stage: Stage) -> None:
    """Marks outlive what is countable, so one that is countable was counted only if its mark is there."""
    now = utc_now()
    tallies = DynamoUsage("counters", furnished_stage.dynamodb)
    for number, age in enumerate((COUNTABLE - timedelta(hours=1), COUNTABLE + timedelta(hours=1))):
        event = output(None).model_copy(update={"output_id": f"o{number}", "usage": Usage(input_tokens=9, output_tokens=1)})
        stored = prepare(event, TENANT, received_at=now - age)
        furnished_stage.events.put_new(stored)
        (item,) = [item for item in furnished_stage.items("events") if item.get("event_id") == {"S": stored.event_id}]
        for _ in range(2):
            assert follow({"Records": [record(number, item)], "redrive": True}, lambda_context()) == {"batchItemFailures": []}
    counted = list(tallies.between(TENANT, (now - timedelta(days=20)).date(), now.date()))
    assert [tally.requests for _, tally in counted] == [1]
    (mark,) = [item for item in furnished_stage.items("counters") if item["sk"] == {"S": "COUNTED"}]
    assert int(mark["expires_at"]["N"]) > (now + COUNTABLE).timestamp()
