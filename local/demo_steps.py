"""The steps of the demo on the deployed stack: what each requests, and when one has failed."""

from __future__ import annotations

import asyncio
import json
import tarfile
import tempfile
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

import boto3
import httpx
from pydantic import JsonValue

from local.archives import extract
from local.cloud import read_faults
from local.demo_evidence import DeployedStack
from local.demo_stage import Show
from local.office.templates import SYSTEM_PROMPT, USER_PROMPT, Case, iterate_cases
from local.office.traffic import Office
from rlaas.evaluation.report import PromotionReport
from rlaas.ids import make_adapter_name, make_base_component_name, parse_policy_id
from rlaas.rollout.steps import Rollout
from rlaas.rollout.trial_evidence import TrialEvidence
from rlaas.telemetry.events import FeedbackSubmitted, RewardComputed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SKILL = "support-email-draft"
MAX_REFUSALS = 20
"""The demo stops when more requests than this failed while it waits for a rollout."""
UNRECORDED_LOOKS = 5
"""For so many looks an execution may have failed before its record says so."""
SCOPES = ("infer", "telemetry", "admin")


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoSettings:
    """The demo's sizes and times. Emails are counted in interactions; seconds are wall time."""

    seed: int = 7
    stage: str = "local"
    desks: int = 6
    """Agents who work at once: requests under way."""
    baseline_train: int = 64
    baseline_held_out: int = 24
    second_week: int = 24
    max_draft_tokens: int = 64
    temperature: float = 0.3
    rollout: dict[str, JsonValue] = field(
        default_factory=lambda: {
            "steps": [{"weight": 0.2, "margin": 0.1, "min_samples": 4}, {"weight": 0.5, "min_samples": 10}],
            "units_a_day": 86_400,
        }
    )
    """The steps, and the traffic to plan for: an email a second, since past traffic has pauses. Times are the stage's
    own."""
    learning: dict[str, object] = field(default_factory=lambda: {"test_share": 0.0, "validation_share": 0.0})
    """A learning run's settings beyond the stage's: evaluation uses held-out issues only."""
    learning_seconds: float = 1200.0
    rollout_seconds: float = 600.0
    delivery_seconds: float = 120.0
    """Longest wait for stored events to reach rewards and the lake."""
    load_after_rollback_seconds: float = 12.0
    scramble_gain: float = 4.0
    """How much the bad adapter's weights are amplified after they are shuffled."""
    poll_seconds: float = 1.0


class DemoFailed(Exception):
    """A step did not finish. The text says what failed, why, and where the log is."""


class Admin:
    """The admin API of one skill. Any answer but 2xx ends the demo with the error it carries."""

    def __init__(self, api_url: str, api_key: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=api_url.rstrip("/") + "/v1/admin/", headers={"Authorization": f"Bearer {api_key}"}, timeout=httpx.Timeout(30.0)
        )

    async def __aenter__(self) -> Admin:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def call(self, method: str, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
        """The answer's JSON. Raises: DemoFailed."""
        answer = await self._http.request(method, path, json=body)
        if not answer.is_success:
            raise DemoFailed(f"{method} /v1/admin/{path} answered {answer.status_code}: {answer.text[:500]}")
        return cast("dict[str, object]", answer.json())


@dataclass(slots=True)
class Demo:
    """One run of the demo: its settings, its office, and the stack that it runs on."""

    settings: DemoSettings
    show: Show
    admin: Admin
    office: Office
    stack: DeployedStack
    tenant_id: str
    logs: Path
    faults_before: int = 0
    """The number of the emulator's own errors before the demo."""
    situation: str = ""
    """Where a rollout or learning run is, for the news."""

    async def make_skill(self) -> str:
        """Make the skill and a baseline policy on the stage's base model that gets all traffic; the policy's id."""
        await self.admin.call("PUT", f"skills/{SKILL}", {"description": "Drafts replies to customers' emails"})
        policy = await self.admin.call("POST", f"skills/{SKILL}/policies", self._prompt_settings())
        policy_id = str(policy["policy_id"])
        route = {"control": policy_id, "unit": "thread", "expected_version": 0, "reason": "the baseline"}
        await self.admin.call("PUT", f"skills/{SKILL}/route", route)
        return policy_id

    def _prompt_settings(self) -> dict[str, object]:
        return {
            "prompt": {"system": SYSTEM_PROMPT, "user": USER_PROMPT},
            "sampling": {"temperature": self.settings.temperature, "max_tokens": self.settings.max_draft_tokens},
        }

    async def work(self, mail: Iterable[Case], name: str, amount: int | None = None, stop: asyncio.Event | None = None) -> int:
        """Have the office answer `mail`; the number of emails answered. Raises: DemoFailed."""
        done, stop = 0, stop or asyncio.Event()

        def each(was_answered: bool) -> None:
            nonlocal done
            done += 1
            self.show.report_progress(f"{done} of {amount} emails" if amount else f"{done} emails, {self.situation}")
            if amount and (not was_answered or self.faults()):
                stop.set()

        count = await self.office.work(mail, week=name, stop=stop, each=each)
        self.check_faults()
        if amount and count < amount:
            self.check_refusals(most=0)
        return count

    async def wait_for_delivery(self) -> None:
        """Wait until every acknowledged event is in the lake and every draft's feedback is in its reward. Raises:
        DemoFailed."""
        deadline = time.monotonic() + self.settings.delivery_seconds
        sent = set(self.office.ledger.acknowledged)
        while True:
            self.check_faults()
            hot = await asyncio.to_thread(self.stack.read_hot_events)
            with_action = {event.output_id for event in hot.values() if isinstance(event, FeedbackSubmitted) and event.kind == "action"}
            with_reward = {event.output_id for event in hot.values() if isinstance(event, RewardComputed) and len(event.event_ids) == 2}
            lake = await asyncio.to_thread(self.stack.count_lake_events)
            missing = len(sent - set(lake))
            if not missing and not with_action - with_reward:
                return
            if time.monotonic() > deadline:
                raise DemoFailed(
                    f"after {self.settings.delivery_seconds:.0f} s {missing} of {len(sent)} events are not in the lake and "
                    f"{len(with_action - with_reward)} of {len(with_action)} drafts have no full reward"
                )
            self.show.report_progress(f"waiting for {missing} events to reach the lake, {len(with_action - with_reward)} rewards")
            await asyncio.sleep(self.settings.poll_seconds)

    async def learn(self) -> dict[str, object]:
        """A learning run from its start to its end; its record. Raises: DemoFailed unless it registered a policy."""
        run = await self.admin.call("POST", f"skills/{SKILL}/learning-runs", {"settings": self.settings.learning})
        run_id, start = str(run["run_id"]), time.monotonic()

        def report_progress(_: dict[str, object]) -> None:
            self.show.report_progress(f"{self.stack.find_current_state('learning', run_id)}, {time.monotonic() - start:.0f} s")

        execution = ("learning", run_id)
        run = await self._until_ended(
            f"skills/{SKILL}/learning-runs/{run_id}", execution, {"running"}, self.settings.learning_seconds, report_progress
        )
        if run["status"] != "registered":
            jobs = "".join(f"\nlog: {log}" for log in sorted(self.logs.glob(f"*-{run_id.removeprefix('run_').lower()}.log")))
            raise DemoFailed(f"the learning run {run_id} ended {run['status']}: {run['reason']}{jobs}")
        return run

    async def read_promotion_report(self, run: dict[str, object]) -> PromotionReport:
        """The report that the evaluation job wrote."""
        place = urlsplit(str(run["report_uri"]))
        answer = await asyncio.to_thread(boto3.client("s3").get_object, Bucket=place.netloc, Key=place.path.lstrip("/"))
        return PromotionReport.model_validate_json(answer["Body"].read())

    async def run_rollout(self, policy_id: str, name: str, seed: int, *, load_after: float = 0.0) -> Rollout:
        """A rollout of `policy_id` under live traffic of held-out issues, which goes on for `load_after` seconds more;
        its record."""
        request: dict[str, object] = {"policy_id": policy_id, "settings": self.settings.rollout, "reason": "demo"}
        rollout = await self.admin.call("POST", f"skills/{SKILL}/rollouts", request)
        bell = asyncio.Event()
        traffic = asyncio.create_task(self.work(iterate_cases("held_out", seed), name, stop=bell))

        def report_progress(record: dict[str, object]) -> None:
            self.situation = describe_situation(record)

        try:
            path = f"skills/{SKILL}/rollouts/{rollout['rollout_id']}"
            execution = ("rollout", str(rollout["rollout_id"]))
            record = await self._until_ended(path, execution, {"starting", "running"}, self.settings.rollout_seconds, report_progress)
            await asyncio.sleep(load_after)
            record = await self.admin.call("GET", path)  # the alarm is recorded a moment after the route, and may come second
        finally:
            bell.set()
            await traffic
        return Rollout.model_validate(record, strict=False, extra="ignore")

    async def read_evidence(self, rollout: Rollout) -> TrialEvidence:
        """What the rollout's trial has seen, over time."""
        answer = await self.admin.call("GET", f"skills/{SKILL}/rollouts/{rollout.rollout_id}/evidence")
        return TrialEvidence.model_validate(answer, strict=False)

    async def _until_ended(
        self,
        path: str,
        execution: tuple[str, str],
        going_on: set[str],
        seconds: float,
        report_progress: Callable[[dict[str, object]], None],
    ) -> dict[str, object]:
        deadline = time.monotonic() + seconds
        failed_looks = 0
        while True:
            record = await self.admin.call("GET", path)
            if record["status"] not in going_on:
                return record
            self.check_refusals(most=MAX_REFUSALS)
            self.check_faults()
            failure = await asyncio.to_thread(self.stack.find_failure, *execution)
            failed_looks += failure is not None
            if failed_looks > UNRECORDED_LOOKS:
                raise DemoFailed(f"{path} is {record['status']}, and its execution has ended {failure}")
            if time.monotonic() > deadline:
                raise DemoFailed(f"{path} is still {record['status']} after {seconds:.0f} s")
            await asyncio.to_thread(report_progress, record)
            await asyncio.sleep(self.settings.poll_seconds)

    def faults(self) -> list[str]:
        """The emulator's own errors since the demo began."""
        return read_faults(self.logs)[self.faults_before :]

    def check_faults(self) -> None:
        """Raises: DemoFailed with the first of `read_faults`."""
        if own_faults := self.faults():
            raise DemoFailed(f"the laptop cloud itself failed: {own_faults[0]}")

    def check_refusals(self, *, most: int) -> None:
        """Raises: DemoFailed when more than `most` of the office's requests were refused so far."""
        refusals = self.office.ledger.refusals
        if len(refusals) > most:
            first = refusals[0]
            raise DemoFailed(
                f"{len(refusals)} of the office's requests failed; the first: {first.path} answered {first.status}: {first.detail}"
            )

    async def make_bad_policy(self, good: dict[str, object]) -> str:
        """Publish the good policy's adapter with scrambled weights, load it and register it, as any adapter; the
        policy's id."""
        adapter = cast("dict[str, object]", good["adapter"])
        backend = cast("dict[str, object]", good["backend"])
        source = urlsplit(str(adapter["artifact_uri"]))
        version = 900 + parse_policy_id(str(good["policy_id"]))[1]
        name = make_adapter_name(str(backend["endpoint"]), self.tenant_id, SKILL, version)
        key = f"tenants/{self.tenant_id}/{SKILL}/runs/scrambled/output/model.tar.gz"
        s3, sagemaker = boto3.client("s3"), boto3.client("sagemaker")
        with tempfile.TemporaryDirectory() as scratch:
            archive_file, directory = Path(scratch, "model.tar.gz"), Path(scratch, "adapter")
            await asyncio.to_thread(s3.download_file, source.netloc, source.path.lstrip("/"), str(archive_file))
            digest = await asyncio.to_thread(scramble, archive_file, directory, gain=self.settings.scramble_gain, seed=self.settings.seed)
            await asyncio.to_thread(s3.upload_file, str(archive_file), source.netloc, key)
        uri = f"s3://{source.netloc}/{key}"
        await asyncio.to_thread(
            sagemaker.create_inference_component,
            InferenceComponentName=name,
            EndpointName=str(backend["endpoint"]),
            Specification={
                "BaseInferenceComponentName": make_base_component_name(str(backend["endpoint"])),
                "Container": {"ArtifactUrl": uri},
            },
        )
        await self._wait_until_loaded(name)
        bad = {
            "name": name,
            "artifact_uri": uri,
            "sha256": digest,
            "run_id": adapter["run_id"],
            "dataset_version": adapter["dataset_version"],
        }
        body = {**self._prompt_settings(), "adapter": bad, "backend": {**backend, "component": name}}
        policy = await self.admin.call("POST", f"skills/{SKILL}/policies", body)
        return str(policy["policy_id"])

    async def _wait_until_loaded(self, name: str) -> None:
        deadline = time.monotonic() + 60
        describe = boto3.client("sagemaker").describe_inference_component
        while True:
            self.check_faults()
            component = await asyncio.to_thread(describe, InferenceComponentName=name)
            status = component["InferenceComponentStatus"]
            if status == "InService":
                return
            if status == "Failed" or time.monotonic() > deadline:
                raise DemoFailed(f"adapter {name} is {status}: {component.get('FailureReason', 'still loading')}")
            await asyncio.sleep(self.settings.poll_seconds)


def read_first_key(stage: str, tenant_id: str) -> str:
    """A key of a fresh tenant, from the function that IAM alone may call."""
    request = json.dumps({"tenant_id": tenant_id, "scopes": SCOPES}).encode()
    answer = boto3.client("lambda").invoke(FunctionName=f"rlaas-{stage}-bootstrap", Payload=request)
    body = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        raise DemoFailed(f"the bootstrap function failed: {body}")
    return str(body["api_key"])


def describe_situation(record: dict[str, object]) -> str:
    """A rollout's last step in words; the status of anything that has no steps yet."""
    steps = cast("list[dict[str, object]]", record.get("steps") or [])
    if not steps:
        return str(record["status"])
    last = steps[-1]
    return f"{float(str(last['weight'])):.0%} to the candidate: {last['n_candidate']} judged, {last['n_control']} of the control"


def scramble(archive_file: Path, directory: Path, *, gain: float, seed: int) -> str:
    """Shuffle the numbers inside each LoRA `B` matrix of a PEFT adapter and multiply them by `gain`, as a diverged run
    might leave them.

    `archive_file` is a tar whose root is the adapter; it is written anew. Returns the SHA-256 of the new file.
    """
    import torch
    from safetensors.torch import load_file, save_file

    with tarfile.open(archive_file) as archive:
        extract(archive, directory)
    weights = directory / "adapter_model.safetensors"
    chance = torch.Generator().manual_seed(seed)
    tensors = load_file(weights)
    for name, tensor in tensors.items():
        if "lora_B" in name:
            values = tensor.flatten()[torch.randperm(tensor.numel(), generator=chance)]
            tensors[name] = (gain * values).reshape(tensor.shape).to(tensor.dtype)
    save_file(tensors, weights, metadata={"format": "pt"})
    with tarfile.open(archive_file, "w:gz") as archive:
        for path in sorted(directory.iterdir()):
            archive.add(path, arcname=path.name)
    return sha256(archive_file.read_bytes()).hexdigest()
