"""A learning run as a record, and its states: what its jobs have to do, and what follows from their result.

A run makes dataset vN and adapter vN; when the promotion report recommends the adapter it becomes the skill's next
policy, which a rollout may then ship. A run never changes the route.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, Protocol

from pydantic import Field, JsonValue

from rlaas.clock import Clock, Timestamp
from rlaas.errors import Conflict, NotFound
from rlaas.evaluation.asking import HeldOutPlan
from rlaas.evaluation.comparison import System
from rlaas.evaluation.report import Criteria, PromotionReport
from rlaas.ids import PolicyId, SkillName, TenantId, make_adapter_name, make_base_component_name, make_policy_id
from rlaas.learning.selection import build_unload_statement
from rlaas.learning.training import TrainingSettings
from rlaas.policies.backend import SageMakerBackend
from rlaas.policies.bundle import AdapterRef, Policy
from rlaas.routing.route_store import RouteRecords
from rlaas.tenancy.registry import Change, dataset_key, run_key
from rlaas.wire import Json, WireModel

_ATTEMPTS = 5


class LearningSettings(TrainingSettings):
    """What a run learns from, and the hyperparameters it learns with.

    It learns from the events of the `window_days` before its request, and fails with fewer than `min_pairs` training
    pairs. `validation_share` and `test_share` of the threads are held out; on at least `min_threads` test threads the
    candidate must reach `min_win_rate` (`evaluation.report.Criteria`).
    """

    window_days: int = Field(default=30, ge=1, le=3650)
    min_pairs: int = Field(default=8, ge=1)
    validation_share: float = Field(default=0.05, ge=0, lt=1)
    test_share: float = Field(default=0.1, ge=0, lt=1)
    min_threads: int = Field(default=Criteria().min_threads, ge=2)
    min_win_rate: float = Field(default=Criteria().min_win_rate, ge=0.5, le=1)


class LearningRun(WireModel):
    """A learning run from its request to its end. `version` is the number of its dataset and adapter, `policy_version`
    that of its policy."""

    run_id: str
    tenant_id: TenantId
    skill: SkillName
    settings: LearningSettings
    baseline: PolicyId
    status: Literal["running", "registered", "rejected", "failed"] = "running"
    reason: str
    version: int | None = None
    policy_version: int | None = None
    report_uri: str | None = None
    created_at: Timestamp
    ended_at: Timestamp | None = None

    @property
    def registered_policy_id(self) -> str | None:
        """The policy that the run registered; `None` without one."""
        return make_policy_id(self.skill, self.policy_version) if self.policy_version is not None and self.status == "registered" else None


class Dataset(WireModel):
    """A dataset version: its `s3://` URI, the run that built it, and its manifest."""

    tenant_id: TenantId
    skill: SkillName
    version: int = Field(ge=1)
    uri: str
    run_id: str
    manifest: dict[str, Json]
    created_at: Timestamp


class Artifacts(Protocol):
    """Files of runs, by `s3://` URI."""

    def read(self, uri: str) -> bytes:
        """The whole file. Raises: NotFound."""
        ...

    def read_sha256(self, uri: str) -> str:
        """The file's SHA-256, hexadecimal. Raises: NotFound."""
        ...


@dataclass(frozen=True, slots=True)
class RunSite:
    """Where a stage's runs happen: its name, its lake's bucket, its artifacts bucket with the base model under
    `models/`, its endpoint."""

    stage: str
    lake: str
    bucket: str
    endpoint: str
    base_model: str


def fail_run(records: RouteRecords, run: LearningRun, error: str, *, clock: Clock) -> LearningRun:
    """Record why a run failed. A run that has ended stays as it is. Raises: NotFound."""
    return _close(records, run, "failed", error, report_uri=None, clock=clock)


@dataclass(frozen=True, slots=True)
class RunConductor:
    """The states of one learning run, each safe to repeat."""

    records: RouteRecords
    artifacts: Artifacts
    clock: Clock
    place: RunSite
    tenant_id: str
    skill: str
    run_id: str

    def begin(self) -> dict[str, JsonValue]:
        """Allocate the run's version and return the name, arguments and URIs of each job (`plan_run`). Raises:
        NotFound."""
        run = self._run()
        if run.version is None:
            number = self.records.allocate_number(self.tenant_id, self.skill, "dataset")
            run = self._amend(lambda current: current.model_copy(update={"version": current.version or number}))
        baseline = self.records.get_policy(self.tenant_id, run.baseline)
        return plan_run(run, self.place, baseline)

    def decide(self) -> LearningRun:
        """Record the dataset, and register the adapter as the skill's next policy if the promotion report recommends
        it.

        Raises: NotFound when the report, the manifest or the adapter is not at the URI that `begin` gave the jobs.
        """
        run = self._run()
        if run.status != "running":
            return run
        paths = _RunPaths(run, self.place)
        report = PromotionReport.model_validate_json(self.artifacts.read(paths.report), extra="ignore")
        self._record_dataset(run, paths)
        if not report.promote:
            return self._close("rejected", report.reason, report_uri=paths.report)
        if run.policy_version is None:
            number = self.records.allocate_number(self.tenant_id, self.skill, "policy")
            run = self._amend(lambda current: current.model_copy(update={"policy_version": current.policy_version or number}))
        self._register_policy(run, paths)
        return self._close("registered", report.reason, report_uri=paths.report)

    def fail(self, error: str) -> LearningRun | None:
        """Record why the run failed; `None` when the run was never recorded. A run that has ended stays as it is."""
        try:
            return fail_run(self.records, self._run(), error, clock=self.clock)
        except NotFound:
            return None

    def list_unneeded_adapters(self) -> list[JsonValue]:
        """The adapters that are no longer needed: the SFT-only control, and the candidate unless it was registered."""
        try:
            run = self._run()
        except NotFound:
            return []
        if run.version is None:
            return []
        paths = _RunPaths(run, self.place)
        return [paths.sft_only] if run.status == "registered" else [paths.candidate, paths.sft_only]

    def _record_dataset(self, run: LearningRun, paths: "_RunPaths") -> None:
        manifest: dict[str, JsonValue] = json.loads(self.artifacts.read(f"{paths.dataset}manifest.json"))
        dataset = Dataset(
            tenant_id=self.tenant_id,
            skill=self.skill,
            version=paths.version,
            uri=paths.dataset,
            run_id=self.run_id,
            manifest=manifest,
            created_at=self.clock(),
        )
        self._put_once(dataset_key(self.skill, paths.version), dataset)

    def _register_policy(self, run: LearningRun, paths: "_RunPaths") -> None:
        assert run.policy_version is not None
        baseline = self.records.get_policy(self.tenant_id, run.baseline)
        adapter = AdapterRef(
            name=paths.candidate,
            artifact_uri=paths.adapter,
            sha256=self.artifacts.read_sha256(paths.adapter),
            run_id=self.run_id,
            dataset_version=f"v{paths.version}",
        )
        backend = SageMakerBackend(endpoint=self.place.endpoint, component=paths.candidate)
        policy = Policy.of(
            baseline.model_copy(update={"base_model": self.place.base_model, "adapter": adapter, "backend": backend}),
            tenant_id=self.tenant_id,
            skill=self.skill,
            version=run.policy_version,
            created_at=self.clock(),
        )
        try:
            self.records.put_policy(policy, self._change(f"registered by {self.run_id}"))
        except Conflict:
            return  # an earlier try wrote it: no other run has this number

    def _put_once(self, key: str, record: WireModel) -> None:
        try:
            self.records.put(self.tenant_id, key, record, self._change(f"made by {self.run_id}"))
        except Conflict:
            return  # an earlier try wrote it: no other run has this number

    def _close(self, status: Literal["registered", "rejected"], reason: str, *, report_uri: str) -> LearningRun:
        return _close(self.records, self._run(), status, reason, report_uri=report_uri, clock=self.clock)

    def _run(self) -> LearningRun:
        return self.records.get(LearningRun, self.tenant_id, run_key(self.skill, self.run_id)).record

    def _amend(self, transition: Callable[[LearningRun], LearningRun]) -> LearningRun:
        return _amend(self.records, self._run(), transition, clock=self.clock)

    def _change(self, reason: str) -> Change:
        return Change(actor=f"learning:{self.run_id}", reason=reason, at=self.clock())


def _close(
    records: RouteRecords,
    run: LearningRun,
    status: Literal["registered", "rejected", "failed"],
    reason: str,
    *,
    report_uri: str | None,
    clock: Clock,
) -> LearningRun:
    now = clock()

    def close(current: LearningRun) -> LearningRun:
        if current.status != "running":
            return current
        return current.model_copy(update={"status": status, "reason": reason, "report_uri": report_uri, "ended_at": now})

    return _amend(records, run, close, clock=clock)


def _amend(
    records: RouteRecords,
    run: LearningRun,
    transition: Callable[[LearningRun], LearningRun],
    *,
    clock: Clock,
    attempts: int = _ATTEMPTS,
) -> LearningRun:
    """Replace the record by its successor; look again when another writer was faster."""
    key = run_key(run.skill, run.run_id)
    stored = records.get(LearningRun, run.tenant_id, key)
    successor = transition(stored.record)
    if successor == stored.record:
        return successor
    change = Change(actor=f"learning:{run.run_id}", reason=successor.reason, at=clock())
    try:
        records.replace(run.tenant_id, key, successor, expected_version=stored.version, change=change)
    except Conflict:
        if attempts == 1:
            raise
        return _amend(records, run, transition, clock=clock, attempts=attempts - 1)
    return successor


class _RunPaths:
    """The names and URIs of a run that has its version."""

    def __init__(self, run: LearningRun, place: RunSite) -> None:
        assert run.version is not None
        self.version = run.version
        tag = re.sub(r"[^a-z0-9]+", "-", run.run_id.lower().removeprefix("run_")).strip("-")
        root = f"s3://{place.bucket}/tenants/{run.tenant_id}/{run.skill}"
        self.jobs = {kind: f"rlaas-{place.stage}-{kind}-{tag}"[:63].rstrip("-") for kind in ("dataset", "train", "evaluate")}
        # Prefixes for SageMaker end in a slash: without it, v1 would match v10 too.
        self.events = f"s3://{place.lake}/athena/unload/{run.tenant_id}/{run.run_id}/"
        self.dataset = f"{root}/datasets/v{self.version}/"
        self.runs = f"{root}/runs/{run.run_id}"
        self.adapter = f"{self.runs}/{self.jobs['train']}/output/model.tar.gz"
        self.sft_only_adapter = f"{self.runs}/{self.jobs['train']}/output/output.tar.gz"
        self.answers = f"{self.runs}/answers/"
        self.evaluation = f"{self.runs}/evaluation/"
        self.report = f"{self.evaluation}promotion_report.json"
        self.candidate = make_adapter_name(place.endpoint, run.tenant_id, run.skill, self.version)
        self.sft_only = make_adapter_name(place.endpoint, run.tenant_id, run.skill, self.version, sft_only=True)


def plan_run(run: LearningRun, place: RunSite, baseline: Policy) -> dict[str, JsonValue]:
    """The input of the state machine for a run that has its version: the statement for Athena, and the names, arguments
    and URIs of the jobs."""
    paths, settings = _RunPaths(run, place), run.settings
    held_out = _plan_held_out(run, place, paths, baseline)
    return {
        "run_id": run.run_id,
        "select_events": {
            "statement": [
                *build_unload_statement(
                    tenant_id=run.tenant_id,
                    skill=run.skill,
                    since=run.created_at - timedelta(days=settings.window_days),
                    until=run.created_at,
                    folder=paths.events,
                )
            ],
            "output_uri": paths.events,
        },
        "build_dataset": {
            "job_name": paths.jobs["dataset"],
            "arguments": _build_arguments(
                tenant=run.tenant_id,
                skill=run.skill,
                version=f"v{paths.version}",
                min_pairs=str(settings.min_pairs),
                validation_share=str(settings.validation_share),
                test_share=str(settings.test_share),
            ),
            "output_uri": paths.dataset,
        },
        "train": {
            "job_name": paths.jobs["train"],
            "hyperparameters": {**settings.to_strings(), "base_model": place.base_model},
            "base_model_uri": f"s3://{place.bucket}/models/{place.base_model}/",
            "output_uri": paths.runs,
        },
        "adapters": [
            {"name": paths.candidate, "artifact_uri": paths.adapter},
            {"name": paths.sft_only, "artifact_uri": paths.sft_only_adapter},
        ],
        "ask_held_out": held_out.model_dump(mode="json"),
        "evaluate": {
            "job_name": paths.jobs["evaluate"],
            "arguments": _build_arguments(
                endpoint=place.endpoint,
                baseline_component=held_out.components["baseline"],
                candidate_component=paths.candidate,
                sft_only_component=paths.sft_only,
                min_threads=str(settings.min_threads),
                min_win_rate=str(settings.min_win_rate),
            ),
            "output_uri": paths.evaluation,
        },
    }


def _plan_held_out(run: LearningRun, place: RunSite, paths: _RunPaths, baseline: Policy) -> HeldOutPlan:
    backend = baseline.backend
    assert isinstance(backend, SageMakerBackend)  # `request_run` checks this
    components: dict[System, str] = {
        "baseline": backend.component or make_base_component_name(place.endpoint),
        "candidate": paths.candidate,
        "sft_only": paths.sft_only,
    }
    return HeldOutPlan(
        tenant_id=run.tenant_id,
        dataset_version=f"v{paths.version}",
        dataset_uri=paths.dataset,
        answers_uri=paths.answers,
        endpoint=place.endpoint,
        components=components,
        max_tokens=baseline.sampling.max_tokens,
    )


def _build_arguments(**values: str) -> list[JsonValue]:
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]
