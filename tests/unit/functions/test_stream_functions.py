import json
import os
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import boto3
import pytest

from functions.audit_writer.handler import handler as audit
from functions.reward_writer.handler import handler as follow
from rlaas.adapters.aws import clients
from rlaas.adapters.aws.events import build_item
from rlaas.adapters.aws.usage import COUNTABLE, DynamoUsage
from rlaas.chat import Usage
from rlaas.clock import utc_now
from rlaas.rewards.follow_up import FollowUp
from rlaas.rewards.standing import collect_arrivals
from rlaas.routing.assign import assign
from rlaas.skills.skill import Skill
from rlaas.telemetry.events import AnyEvent, FeedbackSubmitted, InteractionCreated, OutputProduced, RewardComputed
from rlaas.telemetry.ingest import prepare
from rlaas.telemetry.usage import Tally
from rlaas.tenancy.audit import verify_chain
from rlaas.tenancy.keys import make_key
from rlaas.tenancy.registry import Change, skill_key
from tests.fakes.gateway import make_lambda_context
from tests.fakes.worlds import CHANGE, NOW, SKILL, TENANT, make_canary_route, make_route
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
    decision = assign(make_route(arms=(make_canary_route(2, 1.0),), rollout_id=rollout_id), "t1", decision_id="dec_1", decided_at=NOW)
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
        assert follow({"Records": records}, make_lambda_context()) == {"batchItemFailures": []}
    assert capsys.readouterr().out == ""
    [reward] = [event.event() for event in furnished_stage.events.read_interaction(TENANT, "i1") if event.event_type == "reward"]
    assert isinstance(reward, RewardComputed)
    assert (reward.rollout_id, reward.components["sent"], reward.event_ids) == ("rol_1", 1.0, ("f1", "f2"))


def count_calls() -> Counter[str]:
    """Counts the calls of DynamoDB from now on."""
    counts: Counter[str] = Counter()

    def note(event_name: str, **_: object) -> None:
        counts[event_name.rpartition(".")[2]] += 1

    clients.client("dynamodb").meta.events.register("provide-client-params.dynamodb", note)
    return counts


def test_a_batch_follows_an_interaction_up_once_and_reads_no_text_that_it_brings(furnished_stage: Stage) -> None:
    events: list[AnyEvent] = [sent(), edit(), output("rol_1")]
    records = [landed(furnished_stage, number, event) for number, event in enumerate(events)]
    counts = count_calls()
    assert follow({"Records": records}, make_lambda_context()) == {"batchItemFailures": []}
    # What stands of the interaction and the output, and the skill's spec; one reward, and its link.
    assert counts == {"GetItem": 3, "PutItem": 2}
    assert len([event for event in furnished_stage.events.read_interaction(TENANT, "i1") if event.event_type == "reward"]) == 1


def test_an_edit_costs_the_same_calls_however_many_came_before_it(furnished_stage: Stage) -> None:
    follow({"Records": [landed(furnished_stage, 0, output("rol_1"))]}, make_lambda_context())
    costs = []
    for number in range(1, 30):
        event = edit().model_copy(update={"feedback_id": f"f{number:03d}"})
        record = landed(furnished_stage, number, event)
        counts = count_calls()
        assert follow({"Records": [record]}, make_lambda_context()) == {"batchItemFailures": []}
        costs.append(dict(counts))
    assert all(cost == costs[2] for cost in costs[2:])
    assert "Query" not in costs[2]
    assert sum(costs[2].values()) <= 6


def test_feedback_that_came_first_is_settled_once_in_a_batch(furnished_stage: Stage) -> None:
    early = replace(prepare(sent(), TENANT, received_at=NOW), pending=True)
    interaction = InteractionCreated(interaction_id="i1", skill=SKILL, inputs={})
    happened = [early, *(prepare(event, TENANT, received_at=NOW) for event in (interaction, output(None)))]
    follow_up = FollowUp(furnished_stage.events, furnished_stage.registry.get_reward_spec, utc_now)
    for event in happened:
        furnished_stage.events.put_new(event)
        follow_up(collect_arrivals([event]))
    assert [event.pending for event in furnished_stage.events.read_interaction(TENANT, "i1") if event.event_type != "reward"] == [False] * 3


OTHER = "other"


def busy(stage: Stage, number: int, tenant_id: str) -> list[dict[str, Any]]:
    """Records of so many interactions of a tenant, each with an output and an edit of it."""
    if tenant_id != TENANT:
        stage.registry.put(tenant_id, skill_key(SKILL), Skill(tenant_id=tenant_id, skill=SKILL, created_at=NOW), CHANGE)
    records: list[dict[str, Any]] = []
    for place in range(number):
        draft = OutputProduced(output_id=f"o{place}", interaction_id=f"i{place}", skill=SKILL, text="Dear customer")
        edited = edit().model_copy(update={"feedback_id": f"f{place}", "interaction_id": f"i{place}", "output_id": f"o{place}"})
        for event in (draft, edited):
            stored = prepare(event, tenant_id, received_at=NOW)
            stage.events.put_new(stored)
            item = build_item(stored, expires_at=NOW + timedelta(days=900))
            records.append(record(len(records) + (1000 if tenant_id == OTHER else 0), item))
    return records


def rewards(stage: Stage, tenant_id: str) -> int:
    return sum(item["event_type"] == {"S": "reward"} and item["tenant_id"] == {"S": tenant_id} for item in stage.items("events"))


def test_a_tenant_that_has_too_much_for_its_share_waits_in_the_queue_and_no_other_does(furnished_stage: Stage) -> None:
    records = busy(furnished_stage, 30, TENANT) + busy(furnished_stage, 1, OTHER)
    assert follow({"Records": records}, make_lambda_context("rlaas-test-reward_writer"), share_s=0.0) == {"batchItemFailures": []}
    assert (rewards(furnished_stage, OTHER), rewards(furnished_stage, TENANT)) == (1, 1)
    sqs, url = boto3.client("sqs"), os.environ["FOLLOW_UPS_QUEUE_URL"]
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["MessageGroupId"])["Messages"]
    assert {message["Attributes"]["MessageGroupId"] for message in messages} == {TENANT}
    assert "Dear" not in "".join(message["Body"] for message in messages)
    for message in messages:
        for _ in range(2):
            assert follow({"Records": [{"eventSource": "aws:sqs", "body": message["Body"]}]}, make_lambda_context()) == {
                "batchItemFailures": []
            }
    assert rewards(furnished_stage, TENANT) == 30
    failed = json.loads(messages[0]["Body"])  # as it would lie among the failed calls, and be played again
    assert failed["requestContext"]["functionArn"].endswith(":function:rlaas-test-reward_writer")
    assert follow(failed["requestPayload"], make_lambda_context()) == {"batchItemFailures": []}


def test_what_cannot_be_put_off_is_delivered_again(furnished_stage: Stage) -> None:
    records = busy(furnished_stage, 3, TENANT)
    boto3.client("sqs").delete_queue(QueueUrl=os.environ["FOLLOW_UPS_QUEUE_URL"])
    answer = follow({"Records": records}, make_lambda_context("rlaas-test-reward_writer"), share_s=0.0)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "2"}]}


def set_aside() -> dict[str, Any]:
    """The documents that are set aside, by key."""
    s3 = boto3.client("s3")
    entries = s3.list_objects_v2(Bucket="failures").get("Contents", [])
    return {entry["Key"]: json.loads(s3.get_object(Bucket="failures", Key=entry["Key"])["Body"].read()) for entry in entries}


def test_a_record_that_no_retry_can_help_is_set_aside_whole_and_the_rest_go_on(furnished_stage: Stage) -> None:
    malformed = record(1, {"event_type": {"S": "output"}, "text": {"S": "as it was"}})
    later = [landed(furnished_stage, 2, output(None)), landed(furnished_stage, 3, sent())]
    for _ in range(2):
        assert follow({"Records": [malformed, *later]}, make_lambda_context("rlaas-test-reward_writer")) == {"batchItemFailures": []}
    assert [event.event_type for event in furnished_stage.events.read_interaction(TENANT, "i1")].count("reward") == 1
    [(key, document)] = set_aside().items()
    assert key.startswith("aws/lambda/rlaas-test-reward_writer/")
    assert document["requestContext"]["functionArn"].endswith(":function:rlaas-test-reward_writer")
    assert json.loads(document["payload"]) == {"Records": [malformed]}


def test_a_record_that_fails_for_now_is_where_the_stream_begins_again(furnished_stage: Stage) -> None:
    records = [landed(furnished_stage, 1, output(None)), landed(furnished_stage, 2, sent())]
    furnished_stage.dynamodb.delete_table(TableName="events")
    assert follow({"Records": records}, make_lambda_context()) == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert set_aside() == {}


def test_a_record_that_cannot_be_set_aside_is_where_the_stream_begins_again(furnished_stage: Stage) -> None:
    boto3.client("s3").delete_bucket(Bucket="failures")
    malformed = record(1, {"event_type": {"S": "feedback"}})
    answer = follow({"Records": [malformed, landed(furnished_stage, 2, sent())]}, make_lambda_context())
    assert answer["batchItemFailures"][0] == {"itemIdentifier": "1"}


def test_one_output_that_cannot_be_counted_does_not_keep_the_others_usage(furnished_stage: Stage) -> None:
    event = output(None).model_copy(update={"usage": Usage(input_tokens=9, output_tokens=1)})
    malformed = record(1, {"event_type": {"S": "output"}})
    assert follow({"Records": [malformed, landed(furnished_stage, 2, event)]}, make_lambda_context()) == {"batchItemFailures": []}
    ((_, tally),) = DynamoUsage("counters", furnished_stage.dynamodb).iterate_between(TENANT, NOW.date(), NOW.date())
    assert tally.requests == 1


def test_a_batch_that_is_played_again_names_what_still_fails_and_sets_nothing_aside(furnished_stage: Stage) -> None:
    malformed = record(1, {"event_type": {"S": "feedback"}})
    later = [landed(furnished_stage, 2, output(None)), landed(furnished_stage, 3, sent())]
    answer = follow({"Records": [malformed, *later], "redrive": True}, make_lambda_context())
    assert answer == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert [event.event_type for event in furnished_stage.events.read_interaction(TENANT, "i1")].count("reward") == 1
    assert set_aside() == {}


def test_outputs_are_counted_once_however_often_they_are_delivered(furnished_stage: Stage) -> None:
    tallies = DynamoUsage("counters", furnished_stage.dynamodb)
    used = [
        output(None).model_copy(
            update={"output_id": f"o{n}", "usage": Usage(input_tokens=9, output_tokens=1), "cost_usd": 0.25, "key_id": "k1"}
        )
        for n in range(3)
    ]
    events: list[AnyEvent] = [*used, output("rol_1"), sent()]
    records = [landed(furnished_stage, number, event) for number, event in enumerate(events)]
    for batch in (records, records[1:], records[:2]):
        assert follow({"Records": batch}, make_lambda_context()) == {"batchItemFailures": []}
    ((account, tally),) = tallies.iterate_between(TENANT, NOW.date(), NOW.date())
    assert (account.skill, account.policy_id, account.key_id) == (SKILL, f"{SKILL}@v2", "k1")
    assert tally == Tally(requests=3, input_tokens=27, output_tokens=3, cost_nano_usd=750_000_000)


def test_a_batch_whose_usage_cannot_be_counted_begins_again(furnished_stage: Stage) -> None:
    event = output(None).model_copy(update={"usage": Usage(input_tokens=9, output_tokens=1)})
    records = [landed(furnished_stage, 1, sent()), landed(furnished_stage, 2, event)]
    furnished_stage.dynamodb.delete_table(TableName="counters")
    assert follow({"Records": records}, make_lambda_context()) == {"batchItemFailures": [{"itemIdentifier": "1"}]}


def test_every_change_of_the_registry_has_its_entry_and_counters_and_copies_have_none(stage: Stage) -> None:
    key, _ = make_key(tenant_id=TENANT, scopes=("infer",), created_at=NOW)
    stage.registry.create_key(key, CHANGE)
    stage.registry.allocate_number(TENANT, SKILL, "policy")
    stage.registry.write_route(make_route(last_good=make_route(control=9).target), expected_version=0)
    before = {item["sk"]["S"]: item for item in stage.items("registry")}
    stage.registry.roll_back(TENANT, SKILL, Change(actor="alarm:guard", reason="reward fell", at=NOW))
    after = {item["sk"]["S"]: item for item in stage.items("registry")}
    records = [record(number, item) for number, item in enumerate(before.values())]
    records.append(record(99, after[f"ROUTE#{SKILL}"], before[f"ROUTE#{SKILL}"]))
    for _ in range(2):
        assert audit({"Records": records}, make_lambda_context()) == {"batchItemFailures": []}
    entries = stage.audit.list_entries(TENANT)
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
    assert audit({"Records": [by_hand(1, item), by_hand(2, item)]}, make_lambda_context()) == {"batchItemFailures": []}
    entries = stage.audit.list_entries(TENANT)
    assert verify_chain(entries) == 2
    assert (entries[0].actor, entries[0].reason, entries[0].at, entries[0].after_version) == ("unknown", "unknown", NOW, None)


def test_what_is_no_tenants_keeps_no_tenants_change_from_the_audit(stage: Stage) -> None:
    strange = by_hand(1, {})
    strange["dynamodb"]["NewImage"]["pk"] = {"S": "T#Not A Tenant"}
    assert audit({"Records": [strange, by_hand(2, {})]}, make_lambda_context()) == {"batchItemFailures": []}
    assert len(stage.audit.list_entries(TENANT)) == 1


def test_the_audit_sets_nothing_aside_since_others_would_go_before_it(stage: Stage) -> None:
    stage.dynamodb.delete_table(TableName="audit")
    assert audit({"Records": [by_hand(1, {}), by_hand(2, {})]}, make_lambda_context()) == {"batchItemFailures": [{"itemIdentifier": "1"}]}
    assert set_aside() == {}


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
            assert follow({"Records": [record(number, item)], "redrive": True}, make_lambda_context()) == {"batchItemFailures": []}
    accounts = list(tallies.iterate_between(TENANT, (now - timedelta(days=20)).date(), now.date()))
    assert [tally.requests for _, tally in accounts] == [1]
    (mark,) = [item for item in furnished_stage.items("counters") if item["sk"] == {"S": "COUNTED"}]
    assert int(mark["expires_at"]["N"]) > (now + COUNTABLE).timestamp()
