"""What a demo run left in the deployed stack's stores, read back: drafts with their decisions, edits and rewards, and
the lake.

Everything that the demo's report says comes from here, except the count of what the office sent.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import boto3
from rapidfuzz.distance import Levenshtein

from rlaas.adapters.aws.audit_log import DynamoAuditLog
from rlaas.routing.route_store import route_key
from rlaas.telemetry.events import FeedbackSubmitted, InteractionCreated, OutputProduced, RewardComputed
from rlaas.telemetry.store import MODELS
from rlaas.tenancy.audit import verify_chain

if TYPE_CHECKING:
    from rlaas.rollout.trial import LookPoint
    from rlaas.rollout.trial_evidence import TrialEvidence
    from rlaas.telemetry.events import AnyEvent
    from rlaas.tenancy.audit import AuditEntry

ATHENA_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Draft:
    """One output and what became of it, as stored. `reward` is None until the reward writer has seen its feedback."""

    interaction_id: str
    output_id: str
    week: str
    issue: str
    split: str
    agent: str
    customer: str
    email: str
    policy_id: str
    arm: str
    route_version: int
    rollout_id: str | None
    decided_at: datetime
    text: str
    final_text: str | None
    action: Literal["sent", "discarded", "regenerated"] | None
    reward: float | None

    @property
    def edit_similarity(self) -> float | None:
        """Normalized Levenshtein similarity in [0, 1] of the draft and the text that was sent, whether or not the draft
        was used."""
        return None if self.final_text is None else Levenshtein.normalized_similarity(self.text, self.final_text)


@dataclass(frozen=True, slots=True)
class RouteChange:
    """One version of the route, from its audit entry."""

    at: datetime
    version: int
    actor: str
    reason: str


def list_looks(evidence: TrialEvidence, at: datetime | None) -> tuple[LookPoint, ...]:
    """The looks until `at`; the first one if all came later, all of them if `at` is None. Raises: ValueError when there
    was none."""
    if not evidence.points:
        raise ValueError(f"nobody looked at {evidence.rollout_id}")
    return tuple(point for point in evidence.points if at is None or point.at <= at) or evidence.points[:1]


class DeployedStack:
    """A stage's stores, read for one tenant. Endpoint, region and credentials come from the environment."""

    def __init__(self, *, stage: str, tenant_id: str) -> None:
        self._prefix = f"rlaas-{stage}"
        self._database = f"rlaas_{stage}"
        self._tenant_id = tenant_id
        self._dynamodb = boto3.client("dynamodb")
        self._athena = boto3.client("athena")
        self._states = boto3.client("stepfunctions")

    def read_hot_events(self) -> dict[str, AnyEvent]:
        """Every event of the tenant in the hot store, by id. Reads the table whole: it is a laptop's."""
        events: dict[str, AnyEvent] = {}
        pages = self._dynamodb.get_paginator("scan").paginate(
            TableName=f"{self._prefix}-events",
            FilterExpression="tenant_id = :tenant",
            ExpressionAttributeValues={":tenant": {"S": self._tenant_id}},
            ConsistentRead=True,
        )
        for page in pages:
            for item in page["Items"]:
                model = MODELS[item["event_type"]["S"]]
                events[item["event_id"]["S"]] = model.model_validate_json(item["payload"]["S"])
        return events

    def count_lake_events(self) -> Counter[str]:
        """How often each event of the tenant lies in the lake (delivery is at least once), by event id, from an Athena
        query.

        Raises: RuntimeError when the query fails.
        """
        query = self._athena.start_query_execution(
            QueryString=f"SELECT event_id FROM events WHERE tenant_id = '{self._tenant_id}'",
            QueryExecutionContext={"Database": self._database},
            WorkGroup=self._prefix,
        )["QueryExecutionId"]
        while True:
            status = self._athena.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]
            if status["State"] == "SUCCEEDED":
                break
            if status["State"] in ("FAILED", "CANCELLED"):
                raise RuntimeError(f"Athena query {query} {status['State'].lower()}: {status.get('StateChangeReason', 'no reason given')}")
            time.sleep(ATHENA_POLL_SECONDS)
        counts: Counter[str] = Counter()
        for page in self._athena.get_paginator("get_query_results").paginate(QueryExecutionId=query):
            counts.update(row["Data"][0]["VarCharValue"] for row in page["ResultSet"]["Rows"])
        del counts["event_id"]  # the first row names the column
        return counts

    def find_current_state(self, machine: str, execution: str) -> str:
        """The state that an execution of the stage's `machine` (`learning`, `rollout`) entered last, however much it
        did there since."""
        pages = self._states.get_paginator("get_execution_history").paginate(
            executionArn=self._execution(machine, execution),
            reverseOrder=True,
            includeExecutionData=False,
            PaginationConfig={"PageSize": 500},
        )
        states = (
            event["stateEnteredEventDetails"]["name"] for page in pages for event in page["events"] if "stateEnteredEventDetails" in event
        )
        return next(states, "starting")

    def find_failure(self, machine: str, execution: str) -> str | None:
        """Why an execution of the stage's `machine` ended without success; None while it runs, and when it
        succeeded."""
        description = self._states.describe_execution(executionArn=self._execution(machine, execution))
        if description["status"] in ("RUNNING", "SUCCEEDED"):
            return None
        return f"{description['status']}: {description.get('error', 'no error given')}: {description.get('cause', 'no cause given')}"

    def _execution(self, machine: str, name: str) -> str:
        machines = self._states.list_state_machines()["stateMachines"]
        arn = next(each["stateMachineArn"] for each in machines if each["name"] == f"{self._prefix}-{machine}")
        return f"{arn.replace(':stateMachine:', ':execution:')}:{name}"

    def route_changes(self, skill: str) -> list[RouteChange]:
        """Every version of the skill's route, oldest first, from the tenant's audit. Raises: ValueError when its chain
        is broken."""
        log = DynamoAuditLog(f"{self._prefix}-audit")
        entries: list[AuditEntry] = []
        while more := log.list_entries(self._tenant_id, after=len(entries)):
            entries += more
        verify_chain(entries)
        return [
            RouteChange(at=entry.at, version=entry.after_version or 0, actor=entry.actor, reason=entry.reason)
            for entry in entries
            if entry.target == route_key(skill)
        ]


def list_drafts(events: dict[str, AnyEvent]) -> list[Draft]:
    """The drafts among `events` with what became of each, by time of decision."""
    interactions = {event.interaction_id: event for event in events.values() if isinstance(event, InteractionCreated)}
    edits: dict[str, str] = {}
    actions: dict[str, Literal["sent", "discarded", "regenerated"]] = {}
    rewards: dict[str, RewardComputed] = {}
    for event in events.values():
        if isinstance(event, FeedbackSubmitted) and event.output_id is not None:
            if event.final_text is not None:
                edits[event.output_id] = event.final_text
            if event.action is not None:
                actions[event.output_id] = event.action
        if isinstance(event, RewardComputed):
            best = rewards.get(event.output_id)
            rewards[event.output_id] = event if best is None or event.n > best.n else best
    drafts = []
    for output_id, output in events.items():
        if not isinstance(output, OutputProduced) or output.decision is None:
            continue
        interaction = interactions[output.interaction_id]
        reward = rewards.get(output_id)
        drafts.append(
            Draft(
                interaction_id=output.interaction_id,
                output_id=output_id,
                week=find_week(interaction.thread_id),
                issue=str(interaction.metadata.get("issue", "")),
                split=str(interaction.metadata.get("split", "")),
                agent=interaction.user_id or "",
                customer=(interaction.inputs or {}).get("name", ""),
                email=(interaction.inputs or {}).get("email", ""),
                policy_id=output.decision.policy_id,
                arm=output.decision.arm,
                route_version=output.decision.route_version,
                rollout_id=output.decision.rollout_id,
                decided_at=output.decision.decided_at,
                text=output.text,
                final_text=edits.get(output_id),
                action=actions.get(output_id),
                reward=reward.reward if reward else None,
            )
        )
    return sorted(drafts, key=lambda draft: draft.decided_at)


def find_week(thread_id: str | None) -> str:
    """The week that a thread of the office belongs to: its id without the number at the end."""
    return (thread_id or "").rpartition("-")[0]
