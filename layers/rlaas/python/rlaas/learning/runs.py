"""A learning run as a record, and its states: what its jobs are asked to do, and what becomes of the result.

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
from rlaas.evaluation.asking import AskedRun
from rlaas.evaluation.comparison import System
from rlaas.evaluation.report import Criteria, PromotionReport
from rlaas.ids import PolicyId, SkillName, TenantId, adapter_name, base_component, policy_id
from rlaas.learning.selection import unload_statement
from rlaas.learning.training import TrainingSettings
from rlaas.policies.backend import SageMakerBackend
from rlaas.policies.bundle import AdapterRef, Policy
from rlaas.policies.policy_store import Policies
from rlaas.routing.route_store import Routes
from rlaas.tenancy.registry import Change, Registry, dataset_key, run_key
from rlaas.wire import Json, WireModel

_ATTEMPTS = 5


class LearningSettings(TrainingSettings):
    """What a run learns from, and the hyperparameters it learns with.

    The events of the last `window_days` until the run begins; fewer than `min_pairs` training pairs fail it. Shares of
    the threads are kept for validation and testing, and the candidate must win on `min_threads` of them at
    `min_win_rate` (`evaluation.report.Criteria`).
    """

    window_days: int = Field(default=30, ge=1, le=3650)
    min_pairs: int = Field(default=8, ge=1)
    validation_share: float = Field(default=0.05, ge=0, lt=1)
    test_share: float = Field(default=0.1, ge=0, lt=1)
    min_threads: int = Field(default=Criteria().min_threads, ge=2)
    min_win_rate: float = Field(default=Criteria().min_win_rate, ge=0.5, le=1)


class LearningRun(WireModel):
    """A learning run from its request to its end. `version` is N of its dataset and adapter; `policy_version` that of
    its policy."""

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
        """The policy it registered."""
        return policy_id(self.skill, self.policy_version) if self.policy_version is not None and self.status == "registered" else None


class Dataset(WireModel):
    """A dataset version: where it lies, which run built it, and its manifest."""

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

    def sha256(self, uri: str) -> str:
        """The file's SHA-256, hexadecimal. Raises: NotFound."""
        ...


class Records(Registry, Routes, Policies, Protocol):
    """The registry with its routes and policies."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stage's runs happen: its name, its lake's bucket, its artifacts bucket with the base model under
    `models/`, its endpoint."""

    stage: str
    lake: str
    bucket: str
    endpoint: str
    base_model: str


def fail_run(records: Records, run: LearningRun, error: str, *, clock: Clock) -> LearningRun:
    """Write why a run failed. One that has ended stays as it is."""
    return _close(records, run, "failed", error, report_uri=None, clock=clock)


@dataclass(frozen=True, slots=True)
class RunConductor:
    """The states of one learning run, each safe to repeat."""

    records: Records
    artifacts: Artifacts
    clock: Clock
    place: Place
    tenant_id: str
    skill: str
    run_id: str

    def begin(self) -> dict[str, JsonValue]:
        """Allocate the run's version and say what each job is to be called, to read and to write."""
        run = self._run()
        if run.version is None:
            number = self.records.next_number(self.tenant_id, self.skill, "dataset")
            run = self._amend(lambda current: current.model_copy(update={"version": current.version or number}))
        baseline = self.records.get_policy(self.tenant_id, run.baseline)
        return plan(run, self.place, baseline)

    def decide(self) -> LearningRun:
        """Record the dataset, and register the adapter as the skill's next policy if the promotion report recommends
        it.

        Raises: NotFound when the report, the manifest or the adapter is not where the jobs were told to write them.
        """
        run = self._run()
        if run.status != "running":
            return run
        where = _Where(run, self.place)
        report = PromotionReport.model_validate_json(self.artifacts.read(where.report), extra="ignore")
        self._record_dataset(run, where)
        if not report.promote:
            return self._close("rejected", report.reason, report_uri=where.report)
        if run.policy_version is None:
            number = self.records.next_number(self.tenant_id, self.skill, "policy")
            run = self._amend(lambda current: current.model_copy(update={"policy_version": current.policy_version or number}))
        self._register_policy(run, where)
        return self._close("registered", report.reason, report_uri=where.report)

    def fail(self, error: str) -> LearningRun | None:
        """Write why the run failed; `None` when nothing of it was recorded. A run that has ended stays as it is."""
        try:
            return fail_run(self.records, self._run(), error, clock=self.clock)
        except NotFound:
            return None

    def to_release(self) -> list[JsonValue]:
        """The adapters nobody will ask again: the SFT-only control, and the candidate unless it was registered."""
        try:
            run = self._run()
        except NotFound:
            return []
        if run.version is None:
            return []
        where = _Where(run, self.place)
        return [where.control] if run.status == "registered" else [where.candidate, where.control]

    def _record_dataset(self, run: LearningRun, where: "_Where") -> None:
        manifest: dict[str, JsonValue] = json.loads(self.artifacts.read(f"{where.dataset}manifest.json"))
        dataset = Dataset(
            tenant_id=self.tenant_id,
            skill=self.skill,
            version=where.version,
            uri=where.dataset,
            run_id=self.run_id,
            manifest=manifest,
            created_at=self.clock(),
        )
        self._put_once(dataset_key(self.skill, where.version), dataset)

    def _register_policy(self, run: LearningRun, where: "_Where") -> None:
        assert run.policy_version is not None
        baseline = self.records.get_policy(self.tenant_id, run.baseline)
        adapter = AdapterRef(
            name=where.candidate,
            artifact_uri=where.adapter,
            sha256=self.artifacts.sha256(where.adapter),
            run_id=self.run_id,
            dataset_version=f"v{where.version}",
        )
        backend = SageMakerBackend(endpoint=self.place.endpoint, component=where.candidate)
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
            return  # an earlier try put it: the number is this run's alone

    def _put_once(self, key: str, record: WireModel) -> None:
        try:
            self.records.put(self.tenant_id, key, record, self._change(f"made by {self.run_id}"))
        except Conflict:
            return  # an earlier try put it: the number is this run's alone

    def _close(self, status: Literal["registered", "rejected"], reason: str, *, report_uri: str) -> LearningRun:
        return _close(self.records, self._run(), status, reason, report_uri=report_uri, clock=self.clock)

    def _run(self) -> LearningRun:
        return self.records.get(LearningRun, self.tenant_id, run_key(self.skill, self.run_id)).record

    def _amend(self, transition: Callable[[LearningRun], LearningRun]) -> LearningRun:
        return _amend(self.records, self._run(), transition, clock=self.clock)

    def _change(self, reason: str) -> Change:
        return Change(actor=f"learning:{self.run_id}", reason=reason, at=self.clock())


def _close(
    records: Records,
    run: LearningRun,
    status: Literal["registered", "rejected", "failed"],
    reason: str,
    *,
    report_uri: str | None,
    clock: Clock,
) -> LearningRun:
    now = clock()

    def closed(current: LearningRun) -> LearningRun:
        if current.status != "running":
            return current
        return current.model_copy(update={"status": status, "reason": reason, "report_uri": report_uri, "ended_at": now})

    return _amend(records, run, closed, clock=clock)


def _amend(
    records: Records,
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


class _Where:
    """The names and URIs of a run that has its version."""

    def __init__(self, run: LearningRun, place: Place) -> None:
        assert run.version is not None
        self.version = run.version
        tag = re.sub(r"[^a-z0-9]+", "-", run.run_id.lower().removeprefix("run_")).strip("-")
        root = f"s3://{place.bucket}/tenants/{run.tenant_id}/{run.skill}"
        self.jobs = {kind: f"rlaas-{place.stage}-{kind}-{tag}"[:63].rstrip("-") for kind in ("dataset", "train", "evaluate")}
        # What SageMaker reads as a prefix ends in a slash: without one, v1 is v10 as well.
        self.events = f"s3://{place.lake}/athena/unload/{run.tenant_id}/{run.run_id}/"
        self.dataset = f"{root}/datasets/v{self.version}/"
        self.runs = f"{root}/runs/{run.run_id}"
        self.adapter = f"{self.runs}/{self.jobs['train']}/output/model.tar.gz"
        self.control_adapter = f"{self.runs}/{self.jobs['train']}/output/output.tar.gz"
        self.answers = f"{self.runs}/answers/"
        self.evaluation = f"{self.runs}/evaluation/"
        self.report = f"{self.evaluation}promotion_report.json"
        self.candidate = adapter_name(place.endpoint, run.tenant_id, run.skill, self.version)
        self.control = adapter_name(place.endpoint, run.tenant_id, run.skill, self.version, sft_control=True)


def plan(run: LearningRun, place: Place, baseline: Policy) -> dict[str, JsonValue]:
    """What the state machine asks Athena and the jobs of a run that has its version: a statement, names, arguments and
    URIs."""
    where, settings = _Where(run, place), run.settings
    asked = _asked(run, place, where, baseline)
    return {
        "run_id": run.run_id,
        "select_events": {
            "statement": [
                *unload_statement(
                    tenant_id=run.tenant_id,
                    skill=run.skill,
                    since=run.created_at - timedelta(days=settings.window_days),
                    until=run.created_at,
                    folder=where.events,
                )
            ],
            "output_uri": where.events,
        },
        "build_dataset": {
            "job_name": where.jobs["dataset"],
            "arguments": _arguments(
                tenant=run.tenant_id,
                skill=run.skill,
                version=f"v{where.version}",
                min_pairs=str(settings.min_pairs),
                validation_share=str(settings.validation_share),
                test_share=str(settings.test_share),
            ),
            "output_uri": where.dataset,
        },
        "train": {
            "job_name": where.jobs["train"],
            "hyperparameters": {**settings.to_strings(), "base_model": place.base_model},
            "base_model_uri": f"s3://{place.bucket}/models/{place.base_model}/",
            "output_uri": where.runs,
        },
        "adapters": [
            {"name": where.candidate, "artifact_uri": where.adapter},
            {"name": where.control, "artifact_uri": where.control_adapter},
        ],
        "ask_held_out": asked.model_dump(mode="json"),
        "evaluate": {
            "job_name": where.jobs["evaluate"],
            "arguments": _arguments(
                endpoint=place.endpoint,
                baseline_component=asked.components["baseline"],
                candidate_component=where.candidate,
                control_component=where.control,
                min_threads=str(settings.min_threads),
                min_win_rate=str(settings.min_win_rate),
            ),
            "output_uri": where.evaluation,
        },
    }


def _asked(run: LearningRun, place: Place, where: _Where, baseline: Policy) -> AskedRun:
    served = baseline.backend
    assert isinstance(served, SageMakerBackend)  # `request_run` sees to it
    components: dict[System, str] = {
        "baseline": served.component or base_component(place.endpoint),
        "candidate": where.candidate,
        "sft_only": where.control,
    }
    return AskedRun(
        tenant_id=run.tenant_id,
        dataset_version=f"v{where.version}",
        dataset_uri=where.dataset,
        answers_uri=where.answers,
        endpoint=place.endpoint,
        components=components,
        max_tokens=baseline.sampling.max_tokens,
    )


def _arguments(**values: str) -> list[JsonValue]:
    return [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]
