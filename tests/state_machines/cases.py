"""What each task answers, and where the execution then goes and ends."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """Answers per task state (the last one repeats), the states entered in order, and how the execution ends."""

    name: str
    answers: Mapping[str, Sequence[Answer]]
    path: str
    status: str = "SUCCEEDED"
    error: str | None = None
    cause: str | None = None
    output: Any = None
    tries: int | None = None


def returns(**payload: Any) -> Answer:
    """A Lambda function's answer."""
    return {"Return": {"StatusCode": 200, "Payload": payload}}


def fails(error: str, cause: str = "why") -> Answer:
    """A task's failure."""
    return {"Throw": {"Error": error, "Cause": cause}}


# --- rollout

_BEGIN = {"Begin": [returns(rollout_id="rol_1", steps=2, poll_seconds=5)]}
_RUNNING = {**_BEGIN, "SetWeight": [returns(state="running")]}
_STEP = "SetWeight IsOurs Wait Analyse Verdict"


def _finish(status: str) -> dict[str, Sequence[Answer]]:
    return {"Finish": [returns(status=status, reason=f"it is {status}")]}


def _abort_case(name: str, answers: Mapping[str, Sequence[Answer]], path: str, error: str, tries: int) -> Case:
    return Case(
        name=name,
        answers={**answers, "Abort": [returns(status="failed")]},
        path=f"{path} Abort Failed",
        status="FAILED",
        error=error,
        cause="why",
        tries=tries,
    )


_ADVANCING = {**_RUNNING, "Analyse": [returns(outcome="advance")]}
_TAKEN_BACK = {**_RUNNING, "Analyse": [returns(outcome="rollback")]}

ROLLOUT = [
    Case(
        "ships-after-both-steps",
        {
            **_RUNNING,
            "Analyse": [returns(outcome="continue"), returns(outcome="advance"), returns(outcome="advance")],
            "Promote": [returns(state="shipped")],
            **_finish("shipped"),
        },
        f"Begin {_STEP} Wait Analyse Verdict {_STEP} Promote Finish Ended Shipped",
        output={"status": "shipped", "reason": "it is shipped"},
    ),
    Case(
        "goes-back-when-worse",
        {**_TAKEN_BACK, "RollBack": [returns(state="rolled_back")], **_finish("rolled_back")},
        f"Begin {_STEP} RollBack Finish Ended RolledBack",
        output={"status": "rolled_back", "reason": "it is rolled_back"},
    ),
    Case(
        "goes-back-when-inconclusive",
        {
            **_RUNNING,
            "Analyse": [returns(outcome="advance"), returns(outcome="inconclusive")],
            "RollBack": [returns(state="inconclusive")],
            **_finish("inconclusive"),
        },
        f"Begin {_STEP} {_STEP} RollBack Finish Ended Inconclusive",
        output={"status": "inconclusive", "reason": "it is inconclusive"},
    ),
    Case(
        "is-superseded-before-its-weight",
        {**_BEGIN, "SetWeight": [returns(state="superseded")], **_finish("superseded")},
        "Begin SetWeight IsOurs Finish Ended Superseded",
        output={"status": "superseded", "reason": "it is superseded"},
    ),
    Case(
        "is-superseded-while-it-waits",
        {**_RUNNING, "Analyse": [returns(outcome="superseded")], **_finish("rolled_back")},
        f"Begin {_STEP} Finish Ended RolledBack",
        output={"status": "rolled_back", "reason": "it is rolled_back"},
    ),
    Case(
        "aborts-on-an-outcome-nobody-knows",
        {**_RUNNING, "Analyse": [returns(outcome="sideways")], "Abort": [returns(status="failed")]},
        f"Begin {_STEP} Abort Failed",
        status="FAILED",
        error="UnknownOutcome",
        cause="the analysis answered sideways",
        tries=0,
    ),
    _abort_case("aborts-when-begin-is-refused", {"Begin": [fails("InvalidInput")]}, "Begin", "InvalidInput", tries=1),
    _abort_case(
        "aborts-when-the-weight-cannot-be-set",
        {**_BEGIN, "SetWeight": [fails("DependencyUnavailable")]},
        "Begin SetWeight",
        "DependencyUnavailable",
        tries=5,
    ),
    _abort_case(
        "aborts-when-the-analysis-takes-too-long",
        {**_RUNNING, "Analyse": [fails("States.Timeout")]},
        "Begin SetWeight IsOurs Wait Analyse",
        "States.Timeout",
        tries=5,
    ),
    _abort_case(
        "aborts-when-the-promotion-fails",
        {**_BEGIN, "SetWeight": [returns(state="running")], "Analyse": [returns(outcome="advance")], "Promote": [fails("KeyError")]},
        f"Begin {_STEP} {_STEP} Promote",
        "KeyError",
        tries=1,
    ),
    _abort_case(
        "aborts-when-the-way-back-fails",
        {**_TAKEN_BACK, "RollBack": [fails("Lambda.TooManyRequestsException")]},
        f"Begin {_STEP} RollBack",
        "Lambda.TooManyRequestsException",
        tries=5,
    ),
    _abort_case(
        "aborts-when-it-cannot-be-closed",
        {**_BEGIN, "SetWeight": [returns(state="superseded")], "Finish": [fails("NotFound")]},
        "Begin SetWeight IsOurs Finish",
        "NotFound",
        tries=1,
    ),
    Case(
        "is-stranded-when-the-abort-fails-too",
        {**_RUNNING, "Analyse": [fails("KeyError")], "Abort": [fails("DependencyUnavailable", "DynamoDB is away")]},
        "Begin SetWeight IsOurs Wait Analyse Abort Stranded",
        status="FAILED",
        error="Stranded",
        cause="KeyError: why; then DependencyUnavailable: DynamoDB is away",
        tries=6,
    ),
]

# --- learning

_ADAPTERS = [{"name": "acme--reply--v1", "artifact_uri": "s3://b/model.tar.gz"}]
_PLAN = returns(
    run_id="run_1",
    select_events={"statement": ["UNLOAD (SELECT 1) TO 's3://l/", "/' WITH (format = 'PARQUET')"], "output_uri": "s3://l/"},
    build_dataset={"job_name": "j1", "arguments": ["--tenant", "acme"], "output_uri": "s3://b/datasets/v1/"},
    train={"job_name": "j2", "hyperparameters": {}, "base_model_uri": "s3://b/models/m/", "output_uri": "s3://b/runs/run_1"},
    ask_held_out={"dataset_uri": "s3://b/datasets/v1/", "answers_uri": "s3://b/runs/run_1/answers/", "endpoint": "e"},
    evaluate={"job_name": "j3", "arguments": ["--endpoint", "e"], "output_uri": "s3://b/runs/run_1/evaluation/"},
    adapters=_ADAPTERS,
)
_DONE: Answer = {"Return": {}}


def _component(status: str, **more: Any) -> Answer:
    return {"Return": {"InferenceComponentStatus": status, **more}}


def _base(copies: int, status: str = "InService", **more: Any) -> Answer:
    return _component(status, RuntimeConfig={"DesiredCopyCount": 1, "CurrentCopyCount": copies}, **more)


_BEGUN = {"Begin": [_PLAN]}
_SELECTED = {**_BEGUN, "SelectEvents": [_DONE]}
_BUILT = {**_SELECTED, "BuildDataset": [_DONE]}
_JOBS_DONE = {**_BUILT, "Train": [_DONE]}
_TRAINED = {**_JOBS_DONE, "KeepAwake": [_DONE], "DescribeBase": [_base(1)]}
_CREATED = {**_TRAINED, "CreateComponent": [_DONE]}
_LOADED = {**_CREATED, "DescribeComponent": [_component("Creating"), _component("InService")]}
_ANSWERED = {**_LOADED, "AskHeldOut": [returns(done=True, answered=9, questions=9)]}
_EVALUATED = {**_ANSWERED, "Evaluate": [_DONE]}
_AWAKE = "MaySleep KeepAwake DescribeBase IsAwake"
_LOADS = f"{_AWAKE} LoadAdapters CreateComponent WaitForComponent DescribeComponent ComponentReady"
_TO_LOADED = f"Begin SelectEvents BuildDataset Train {_LOADS} WaitForComponent DescribeComponent ComponentReady Loaded"
_TO_ANSWERED = f"{_TO_LOADED} AskHeldOut AllAnswered"
_RELEASES = "ReleaseAdapters DeleteComponent Released Ended"


def _decision_case(status: str) -> Case:
    return Case(
        f"ends-{status}",
        {
            **_EVALUATED,
            "Decide": [returns(status=status, reason="the report", release=["acme--reply--v1--sft"])],
            "DeleteComponent": [_DONE],
        },
        f"{_TO_ANSWERED} Evaluate Decide {_RELEASES} {status.capitalize()}",
        output={"status": status, "reason": "the report", "adapters": [{"name": "acme--reply--v1--sft", "released": True}]},
    )


def _failure_case(name: str, answers: Mapping[str, Sequence[Answer]], path: str, error: str, tries: int, cause: str = "why") -> Case:
    return Case(
        name,
        {**answers, "RecordFailure": [returns(status="failed", reason=cause, release=["acme--reply--v1"])], "DeleteComponent": [_DONE]},
        f"{path} RecordFailure {_RELEASES} Failed",
        status="FAILED",
        error=error,
        cause=cause,
        tries=tries,
    )


LEARNING = [
    _decision_case("registered"),
    _decision_case("rejected"),
    _failure_case("fails-when-begin-is-refused", {"Begin": [fails("NotFound")]}, "Begin", "NotFound", tries=1),
    _failure_case(
        "fails-when-athena-keeps-throttling",
        {**_BEGUN, "SelectEvents": [fails("Athena.TooManyRequestsException")]},
        "Begin SelectEvents",
        "Athena.TooManyRequestsException",
        tries=6,
    ),
    _failure_case(
        "fails-when-the-query-fails",
        {**_BEGUN, "SelectEvents": [fails("States.TaskFailed")]},
        "Begin SelectEvents",
        "States.TaskFailed",
        tries=1,
    ),
    _failure_case(
        "fails-when-the-dataset-job-fails",
        {**_SELECTED, "BuildDataset": [fails("States.TaskFailed")]},
        "Begin SelectEvents BuildDataset",
        "States.TaskFailed",
        tries=1,
    ),
    _failure_case(
        "fails-when-training-takes-too-long",
        {**_BUILT, "Train": [fails("States.Timeout")]},
        "Begin SelectEvents BuildDataset Train",
        "States.Timeout",
        tries=1,
    ),
    _failure_case(
        "fails-when-sagemaker-keeps-throttling",
        {**_BUILT, "Train": [fails("SageMaker.AmazonSageMakerException")]},
        "Begin SelectEvents BuildDataset Train",
        "SageMaker.AmazonSageMakerException",
        tries=4,
    ),
    Case(
        "waits-until-a-copy-of-the-base-runs",
        {
            **_EVALUATED,
            "DescribeBase": [_base(0), _base(0, "Updating"), _base(1)],
            "Decide": [returns(status="rejected", reason="the report", release=[])],
        },
        _TO_ANSWERED.replace(_AWAKE, f"{_AWAKE} WaitForBase DescribeBase IsAwake WaitForBase DescribeBase IsAwake")
        + " Evaluate Decide ReleaseAdapters Ended Rejected",
        output={"status": "rejected", "reason": "the report", "adapters": []},
    ),
    _failure_case(
        "fails-when-no-copy-of-the-base-ever-runs",
        {**_TRAINED, "DescribeBase": [_base(0)]},
        f"Begin SelectEvents BuildDataset Train {_AWAKE} {'WaitForBase DescribeBase IsAwake ' * 239}StaysAsleep",
        "EndpointAsleep",
        tries=0,
        cause="EndpointName--base is InService with 0 copies after 240 looks: no reason given",
    ),
    _failure_case(
        "fails-when-the-base-has-failed",
        {**_TRAINED, "DescribeBase": [_base(0, "Failed", FailureReason="no such image")]},
        f"Begin SelectEvents BuildDataset Train {_AWAKE} StaysAsleep",
        "EndpointAsleep",
        tries=0,
        cause="EndpointName--base is Failed with 0 copies after 1 looks: no such image",
    ),
    _failure_case(
        "fails-when-the-endpoint-cannot-be-kept-awake",
        {**_JOBS_DONE, "KeepAwake": [fails("ApplicationAutoScaling.ConcurrentUpdateException")]},
        "Begin SelectEvents BuildDataset Train MaySleep KeepAwake",
        "ApplicationAutoScaling.ConcurrentUpdateException",
        tries=6,
    ),
    _failure_case(
        "fails-when-the-base-is-not-there",
        {**_TRAINED, "DescribeBase": [fails("SageMaker.ValidationException")]},
        "Begin SelectEvents BuildDataset Train MaySleep KeepAwake DescribeBase",
        "SageMaker.ValidationException",
        tries=1,
    ),
    _failure_case(
        "fails-when-an-adapter-is-refused",
        {**_TRAINED, "CreateComponent": [fails("SageMaker.ResourceLimitExceededException")]},
        f"Begin SelectEvents BuildDataset Train {_AWAKE} LoadAdapters CreateComponent",
        "SageMaker.ResourceLimitExceededException",
        tries=1,
    ),
    _failure_case(
        "fails-when-an-adapter-does-not-load",
        {**_CREATED, "DescribeComponent": [_component("Failed", FailureReason="rank 128 is too high")]},
        f"Begin SelectEvents BuildDataset Train {_LOADS} AdapterFailed",
        "AdapterFailed",
        tries=0,
        cause="acme--reply--v1 did not load: rank 128 is too high",
    ),
    _failure_case(
        "fails-when-an-adapter-loads-for-ever",
        {**_CREATED, "DescribeComponent": [_component("Creating")]},
        f"Begin SelectEvents BuildDataset Train {_LOADS} {'WaitForComponent DescribeComponent ComponentReady ' * 239}AdapterTooSlow",
        "AdapterTooSlow",
        tries=0,
        cause="acme--reply--v1 is still Creating after 240 looks",
    ),
    Case(
        "asks-until-all-is-answered",
        {
            **_EVALUATED,
            "AskHeldOut": [
                returns(done=False, answered=4, questions=9),
                returns(done=False, answered=8, questions=9),
                returns(done=True, answered=9, questions=9),
            ],
            "Decide": [returns(status="rejected", reason="the report", release=[])],
        },
        f"{_TO_LOADED} {'AskHeldOut AllAnswered ' * 3}Evaluate Decide ReleaseAdapters Ended Rejected",
        output={"status": "rejected", "reason": "the report", "adapters": []},
        tries=0,
    ),
    _failure_case(
        "fails-when-the-endpoint-is-down",
        {**_LOADED, "AskHeldOut": [fails("DependencyUnavailable", "the model endpoint answered ModelError")]},
        f"{_TO_LOADED} AskHeldOut",
        "DependencyUnavailable",
        tries=3,
        cause="the model endpoint answered ModelError",
    ),
    _failure_case(
        "fails-at-once-when-a-model-refuses-a-prompt",
        {**_LOADED, "AskHeldOut": [fails("InvalidInput")]},
        f"{_TO_LOADED} AskHeldOut",
        "InvalidInput",
        tries=1,
    ),
    _failure_case(
        "fails-when-the-endpoint-answers-for-ever",
        {**_LOADED, "AskHeldOut": [returns(done=False, answered=8, questions=9)]},
        f"{_TO_LOADED} {'AskHeldOut AllAnswered ' * 16}AnswersTooSlow",
        "AnswersTooSlow",
        tries=0,
        cause="EndpointName gave 8 of 9 held-out answers in 16 rounds",
    ),
    _failure_case(
        "fails-when-the-answers-cannot-be-judged",
        {**_ANSWERED, "Evaluate": [fails("States.TaskFailed")]},
        f"{_TO_ANSWERED} Evaluate",
        "States.TaskFailed",
        tries=1,
    ),
    _failure_case(
        "fails-when-the-report-is-missing",
        {**_EVALUATED, "Decide": [fails("NotFound")]},
        f"{_TO_ANSWERED} Evaluate Decide",
        "NotFound",
        tries=1,
    ),
    *(
        Case(
            f"fails-unrecorded-when-the-record-cannot-be-written-after-{state}",
            {
                **_SELECTED,
                state: [fails("States.TaskFailed", json.dumps(cause))],
                "RecordFailure": [fails("DependencyUnavailable", "DynamoDB is away")],
            },
            f"{path} RecordFailure FailedUnrecorded",
            status="FAILED",
            error="FailedUnrecorded",
            cause=f"States.TaskFailed: {reason}; then DependencyUnavailable: DynamoDB is away",
            tries=6,
        )
        for state, path, cause, reason in (
            (
                "SelectEvents",
                "Begin SelectEvents",
                {"QueryExecution": {"Query": "UNLOAD ...", "Status": {"State": "FAILED", "StateChangeReason": "TABLE_NOT_FOUND"}}},
                "TABLE_NOT_FOUND",
            ),
            (
                "BuildDataset",
                "Begin SelectEvents BuildDataset",
                {"RoleArn": "arn:aws:iam::1", "ExitMessage": "3 pairs, 8 are needed"},
                "3 pairs, 8 are needed",
            ),
        )
    ),
    Case(
        "says-which-adapter-it-left-loaded",
        {
            **_EVALUATED,
            "Decide": [returns(status="registered", reason="the report", release=["acme--reply--v1--sft"])],
            "DeleteComponent": [fails("SageMaker.SageMakerException", "in use")],
        },
        f"{_TO_ANSWERED} Evaluate Decide ReleaseAdapters DeleteComponent LeftLoaded Ended Registered",
        output={
            "status": "registered",
            "reason": "the report",
            "adapters": [{"name": "acme--reply--v1--sft", "released": False, "cause": "in use"}],
        },
        tries=3,
    ),
]

LEARNING_ALWAYS_ON = [
    Case(
        "passes-at-once-where-the-endpoint-never-sleeps",
        {**_EVALUATED, "Decide": [returns(status="rejected", reason="the report", release=[])]},
        f"{_TO_ANSWERED} Evaluate Decide ReleaseAdapters Ended Rejected".replace("KeepAwake ", ""),
        output={"status": "rejected", "reason": "the report", "adapters": []},
    )
]

# --- compaction


def _job_failure(**description: str) -> Answer:
    """As `.sync` fails: the job's description is the cause."""
    return fails(
        "States.TaskFailed", json.dumps({"ProcessingJobName": "rlaas-dev-compaction-1", "ProcessingJobStatus": "Failed", **description})
    )


_COMPACTED = {"Compact": [{"Return": {"ProcessingJobName": "rlaas-dev-compaction-1", "ProcessingJobStatus": "Completed"}}]}

COMPACTION = [
    Case(
        "compacts",
        {**_COMPACTED, "LimitProcessingLogs": [{"Return": {}}], "LimitTrainingLogs": [{"Return": {}}]},
        "Compact LimitProcessingLogs LimitTrainingLogs Compacted",
        output={"job": "rlaas-dev-compaction-1"},
    ),
    Case(
        "compacts-before-anything-was-trained",
        {**_COMPACTED, "LimitProcessingLogs": [{"Return": {}}], "LimitTrainingLogs": [fails("CloudWatchLogs.ResourceNotFoundException")]},
        "Compact LimitProcessingLogs LimitTrainingLogs Compacted",
        output={"job": "rlaas-dev-compaction-1"},
        tries=1,
    ),
    Case(
        "fails-when-the-logs-may-not-be-limited",
        {**_COMPACTED, "LimitProcessingLogs": [fails("CloudWatchLogs.AccessDeniedException")]},
        "Compact LimitProcessingLogs Failed",
        status="FAILED",
        error="CloudWatchLogs.AccessDeniedException",
        cause="why",
        tries=1,
    ),
    Case(
        "fails-when-the-logs-cannot-be-limited",
        {**_COMPACTED, "LimitProcessingLogs": [{"Return": {}}], "LimitTrainingLogs": [fails("CloudWatchLogs.ServiceUnavailableException")]},
        "Compact LimitProcessingLogs LimitTrainingLogs Failed",
        status="FAILED",
        error="CloudWatchLogs.ServiceUnavailableException",
        cause="why",
        tries=4,
    ),
    Case(
        "fails-when-sagemaker-stays-away",
        {"Compact": [fails("SageMaker.AmazonSageMakerException")]},
        "Compact Failed",
        status="FAILED",
        error="SageMaker.AmazonSageMakerException",
        cause="why",
        tries=4,
    ),
    Case(
        "fails-with-the-jobs-own-words",
        {"Compact": [_job_failure(FailureReason="AlgorithmError: , exit code: 1", ExitMessage="1 of 3 partitions stay as they were")]},
        "Compact Failed",
        status="FAILED",
        error="States.TaskFailed",
        cause="1 of 3 partitions stay as they were",
        tries=1,
    ),
    Case(
        "fails-with-sagemakers-reason-when-the-job-never-spoke",
        {"Compact": [_job_failure(FailureReason="ClientError: the image does not exist")]},
        "Compact Failed",
        status="FAILED",
        error="States.TaskFailed",
        cause="ClientError: the image does not exist",
        tries=1,
    ),
    Case(
        "fails-when-the-job-is-stopped",
        {"Compact": [_job_failure(ProcessingJobStatus="Stopped")]},
        "Compact Failed",
        status="FAILED",
        error="States.TaskFailed",
        cause="rlaas-dev-compaction-1 ended as Stopped",
        tries=1,
    ),
]
