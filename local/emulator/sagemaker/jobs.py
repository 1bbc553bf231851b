"""Training and processing jobs, what SageMaker does before and after each kind, and what the API asks of them."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

from ministack.core import responses

from local.emulator.children import run_in_background
from local.emulator.sagemaker import artifacts
from local.emulator.sagemaker.errors import ApiError, make_in_use
from local.emulator.sagemaker.images import image
from local.emulator.sagemaker.job import Job, JsonObject

MESSAGE_BYTES = 1024


class TrainingJob(Job):
    """CreateTrainingJob's job."""

    kind = "Training"

    def __init__(self, request: JsonObject) -> None:
        super().__init__(request)
        self.record |= {"SecondaryStatus": "Starting", "SecondaryStatusTransitions": [], "FinalMetricDataList": []}
        self._metrics = [
            (metric["Name"], re.compile(metric["Regex"])) for metric in request["AlgorithmSpecification"].get("MetricDefinitions") or []
        ]
        self._step("Starting")

    def _set(self, status: str, secondary: str | None = None) -> None:
        super()._set(status)
        self._step(secondary or ("Starting" if status == "InProgress" else status))

    def _step(self, secondary: str) -> None:
        now = time.time()
        transitions = self.record["SecondaryStatusTransitions"]
        if transitions:
            transitions[-1]["EndTime"] = now
        transitions.append({"Status": secondary, "StartTime": now})
        self.record["SecondaryStatus"] = secondary

    def _image_uri(self) -> str:
        uri: str = self.request["AlgorithmSpecification"]["TrainingImage"]
        return uri

    def _command(self) -> list[str]:
        algorithm = self.request["AlgorithmSpecification"]
        return [*(algorithm.get("ContainerEntrypoint") or ["python", "-m", "train"]), *(algorithm.get("ContainerArguments") or [])]

    def _prepare(self) -> None:
        self._step("Downloading")
        for directory in ("input/data", "model", "output/data", "checkpoints", "code"):
            (self.root / directory).mkdir(parents=True, exist_ok=True)
        resources = self.request.get("ResourceConfig") or {}
        self._write("input/config/hyperparameters.json", self.request.get("HyperParameters") or {})
        self._write(
            "input/config/resourceconfig.json",
            {
                "current_host": "algo-1",
                "hosts": ["algo-1"],
                "current_instance_type": resources.get("InstanceType"),
                "network_interface_name": "lo",
            },
        )
        channels = self.request.get("InputDataConfig") or []
        self._write(
            "input/config/inputdataconfig.json",
            {
                channel["ChannelName"]: {
                    "TrainingInputMode": "File",
                    "ContentType": channel.get("ContentType"),
                    "S3DistributionType": "FullyReplicated",
                }
                for channel in channels
            },
        )
        for channel in channels:
            artifacts.download(channel["DataSource"]["S3DataSource"]["S3Uri"], self.root / "input/data" / channel["ChannelName"])
        if checkpoints := self.request.get("CheckpointConfig"):
            bucket, prefix = artifacts.parse(checkpoints["S3Uri"])
            if artifacts.make_s3_client().list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1).get("Contents"):
                artifacts.download(checkpoints["S3Uri"], self.root / "checkpoints")
        self._step("Training")

    def _environment(self) -> dict[str, str]:
        channels = [channel["ChannelName"] for channel in self.request.get("InputDataConfig") or []]
        settings = self.request.get("HyperParameters") or {}
        return {
            **super()._environment(),
            "TRAINING_JOB_NAME": self.name,
            "TRAINING_JOB_ARN": self.record["TrainingJobArn"],
            "SM_MODEL_DIR": str(self.root / "model"),
            "SM_INPUT_DIR": str(self.root / "input"),
            "SM_INPUT_CONFIG_DIR": str(self.root / "input/config"),
            "SM_OUTPUT_DIR": str(self.root / "output"),
            "SM_OUTPUT_DATA_DIR": str(self.root / "output/data"),
            "SM_CHANNELS": json.dumps(channels),
            "SM_HPS": json.dumps(settings),
            "SM_CURRENT_HOST": "algo-1",
            "SM_HOSTS": '["algo-1"]',
            "SM_NUM_CPUS": str(os.cpu_count()),
            "SM_NUM_GPUS": "0",
            **{f"SM_CHANNEL_{name.upper()}": str(self.root / "input/data" / name) for name in channels},
            **{f"SM_HP_{name.upper().replace('-', '_')}": value for name, value in settings.items()},
        }

    def _on_line(self, line: str) -> None:
        for name, pattern in self._metrics:
            if (match := pattern.search(line)) and (value := _number(match[1])) is not None:
                others = [metric for metric in self.record["FinalMetricDataList"] if metric["MetricName"] != name]
                self.record["FinalMetricDataList"] = [*others, {"MetricName": name, "Value": value, "Timestamp": time.time()}]

    def _reason(self) -> str:
        file = self.root / "output/failure"
        return file.read_text(errors="replace").strip() if file.is_file() else ""

    def _collect(self) -> None:
        self._step("Uploading")
        prefix = f"{self.request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{self.name}/output"
        self.record["ModelArtifacts"] = {"S3ModelArtifacts": artifacts.pack(self.root / "model", f"{prefix}/model.tar.gz")}
        if any((self.root / "output/data").iterdir()):
            artifacts.pack(self.root / "output/data", f"{prefix}/output.tar.gz")
        self._store_checkpoints()
        seconds = int(time.time() - self.record["TrainingStartTime"])
        self.record |= {"TrainingTimeInSeconds": seconds, "BillableTimeInSeconds": seconds}

    def _collect_after_stop(self) -> None:
        self._store_checkpoints()

    def _store_checkpoints(self) -> None:
        if checkpoints := self.request.get("CheckpointConfig"):
            artifacts.upload(self.root / "checkpoints", checkpoints["S3Uri"])


def _number(text: str) -> float | None:
    """A metric's value; None for text that is no number, which SageMaker ignores."""
    try:
        return float(text)
    except ValueError:
        return None


class ProcessingJob(Job):
    """CreateProcessingJob's job."""

    kind = "Processing"

    def _image_uri(self) -> str:
        uri: str = self.request["AppSpecification"]["ImageUri"]
        return uri

    def _command(self) -> list[str]:
        specification = self.request["AppSpecification"]
        return [*(specification.get("ContainerEntrypoint") or []), *(specification.get("ContainerArguments") or [])]

    def _local(self, path: str) -> Path:
        if not path.startswith("/opt/ml/processing"):
            raise ApiError("ValidationException", f"LocalPath must start with /opt/ml/processing, got {path}")
        return Path(self.root, path.removeprefix("/opt/ml/"))

    def _outputs(self) -> list[JsonObject]:
        outputs: list[JsonObject] = (self.request.get("ProcessingOutputConfig") or {}).get("Outputs") or []
        return [output["S3Output"] for output in outputs]

    def _prepare(self) -> None:
        (self.root / "output").mkdir(parents=True, exist_ok=True)
        self._write("config/processingjobconfig.json", self.request)
        self._write("config/resourceconfig.json", {"current_host": "algo-1", "hosts": ["algo-1"]})
        for entry in self.request.get("ProcessingInputs") or []:
            artifacts.download(entry["S3Input"]["S3Uri"], self._local(entry["S3Input"]["LocalPath"]))
        for output in self._outputs():
            self._local(output["LocalPath"]).mkdir(parents=True, exist_ok=True)

    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "PROCESSING_JOB_NAME": self.name, "PROCESSING_JOB_ARN": self.record["ProcessingJobArn"]}

    def _collect(self) -> None:
        for output in self._outputs():
            artifacts.upload(self._local(output["LocalPath"]), output["S3Uri"])

    def _read_message(self) -> None:
        """/opt/ml/output/message, the first KB; one that is no UTF-8 fails the job."""
        file = self.root / "output/message"
        if file.is_file():
            try:
                self.record["ExitMessage"] = file.read_text("utf-8").encode()[:MESSAGE_BYTES].decode(errors="ignore")
            except UnicodeDecodeError:
                raise ApiError("ValidationException", "The content of /opt/ml/output/message is not valid UTF-8.") from None


_jobs = {"Training": responses.AccountRegionScopedDict(), "Processing": responses.AccountRegionScopedDict()}
_classes: dict[str, type[Job]] = {"Training": TrainingJob, "Processing": ProcessingJob}


def create(kind: str, request: JsonObject) -> JsonObject:
    """CreateTrainingJob and CreateProcessingJob."""
    name = request[f"{kind}JobName"]
    if name in _jobs[kind]:
        raise make_in_use(f"{kind} job", name)
    job = _classes[kind](request)
    image(job._image_uri())
    _jobs[kind][name] = job
    run_in_background(job.run, name=f"{kind.lower()}-{name}")
    return {f"{kind}JobArn": job.record[f"{kind}JobArn"]}


def find(kind: str, name: str) -> Job:
    """The job of that name.

    Raises: ApiError.
    """
    job: Job | None = _jobs[kind].get(name)
    if job is None:
        raise ApiError("ResourceNotFound" if kind == "Processing" else "ValidationException", "Requested resource not found.")
    return job


def describe(kind: str, request: JsonObject) -> JsonObject:
    """DescribeTrainingJob and DescribeProcessingJob."""
    return dict(find(kind, request[f"{kind}JobName"]).record)


def stop(kind: str, request: JsonObject) -> JsonObject:
    """StopTrainingJob and StopProcessingJob."""
    find(kind, request[f"{kind}JobName"]).stop()
    return {}


def delete(kind: str, request: JsonObject) -> JsonObject:
    """DeleteTrainingJob and DeleteProcessingJob: for jobs that ended."""
    job = find(kind, request[f"{kind}JobName"])
    if not job.ended.is_set():
        raise ApiError("ResourceInUse", f"{kind} job {job.name} is in status {job.status}")
    del _jobs[kind][job.name]
    return {}


def list_summaries(kind: str, request: JsonObject) -> JsonObject:
    """ListTrainingJobs and ListProcessingJobs, newest first."""
    jobs = [job for job in _jobs[kind].values() if request.get("NameContains", "") in job.name]
    jobs = [job for job in jobs if request.get("StatusEquals") in (None, job.status)]
    jobs.sort(key=lambda job: job.record["CreationTime"], reverse=True)
    keys = (
        "CreationTime",
        "LastModifiedTime",
        f"{kind}EndTime",
        f"{kind}JobName",
        f"{kind}JobArn",
        f"{kind}JobStatus",
        "FailureReason",
        "ExitMessage",
    )
    return {
        f"{kind}JobSummaries": [
            {key: job.record[key] for key in keys if key in job.record} for job in jobs[: request.get("MaxResults", 100)]
        ]
    }


def stop_all() -> None:
    """End every running job of every account, before the emulator ends."""
    for jobs in _jobs.values():
        for job in list(jobs._data.values()):
            if job._child and job._child.poll() is None:
                job._child.stop()
