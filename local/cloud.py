"""The laptop cloud, up and down: the emulator in the background, the stage `local` deployed to it.

Its state lies under `.rlaas/` and ends with it: a cloud that was stopped, however that happened, starts anew and empty.
`up` is incremental: it deploys what changed to a cloud that runs, and returns at once when nothing did.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shlex
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local import preflight, processes, readback
from local.deployment import ACCOUNT, REGION, ROOT, STACKS, SYNTH_INPUTS, Deployment, compute_fingerprint

STATE = Path(os.environ.get("RLAAS_STATE", ROOT / ".rlaas")).resolve()
PORT = int(os.environ.get("RLAAS_PORT", "4566"))
PID_FILE = STATE / "run" / "emulator.pid"
RECORD = STATE / "run" / "cloud.json"
SHELL = STATE / "run" / "aws.env"
LOGS = STATE / "logs"
ASSEMBLY = ROOT / ".rlaas" / "cdk.out"  # of the sources, whatever the state
VENVS = ROOT / ".rlaas" / "venvs"
BASE_MODEL = "smollm2-135m-instruct"  # as infra.config has it; a test compares them
TENANT = "acme"
SCOPES = ("infer", "telemetry", "admin", "platform")
START_SECONDS, STOP_SECONDS = 60.0, 30.0
# Jobs run beside vLLM, so few threads; the two malloc settings save small training runs most of their system time.
JOB_ENVIRONMENT = {
    "OMP_NUM_THREADS": "2",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TRIM_THRESHOLD_": "40000000000",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers/rlaas/python")]),
}

Say = Callable[[str], None]


class CannotStart(Exception):
    """Something needed is missing; each line says what and how to mend it."""


@dataclass(frozen=True, kw_only=True)
class CloudAccess:
    """Where a laptop cloud's AWS APIs are and the key to them, which is made when it starts and ends with it."""

    endpoint: str
    access_key_id: str
    secret_access_key: str = field(repr=False)

    def environment(self) -> dict[str, str]:
        """The environment variables with which an unchanged AWS client calls this cloud."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_SESSION_TOKEN": "",  # the user's own would belong to another key
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def use(self) -> None:
        """Have this process's AWS clients call this cloud."""
        os.environ.update(self.environment())

    def client(self, service: str) -> Any:
        """A boto3 client of this cloud's `service`."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
            config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 2}, read_timeout=120),
        )


@dataclass(frozen=True, kw_only=True)
class Cloud(CloudAccess):
    """A laptop cloud that runs with the stage deployed."""

    api_url: str
    tenant_id: str
    api_key: str
    fingerprint: str

    @property
    def logs(self) -> Path:
        """The directory of its logs."""
        return LOGS

    @property
    def shell(self) -> Path:
        """The file whose variables let a shell call this cloud's AWS APIs: `. FILE`."""
        return SHELL


def up(say: Say = lambda line: None, news: Say = lambda line: None) -> Cloud:
    """Start the cloud and deploy the stage, as far as that is not done yet. `say` gets a line for each step, `news` a
    line for each resource that a step deploys.

    Raises: CannotStart, local.deployment.DeploymentFailed, local.readback.Dropped.
    """
    with _alone():
        sources, engine = (
            compute_fingerprint(SYNTH_INPUTS),
            compute_fingerprint(("local/emulator", "local/emulator-requirements.txt", "containers/vllm")),
        )
        identity = f"{sources}-{engine}-{PORT}"
        is_running = _is_running()
        previous = _previous_cloud()
        if is_running and previous and previous.fingerprint == identity:
            return previous
        if is_running and previous and not previous.fingerprint.endswith(f"{engine}-{PORT}"):
            say("the emulator changed: starting it anew")
            is_running = False
        fresh = not is_running or not previous
        cloud = _deploy(_begin(say) if fresh or not previous else previous, identity, say, news, fresh=fresh)
        _write_private(RECORD, json.dumps(asdict(cloud)))
        return cloud


def down() -> bool:
    """Stop the cloud with all it started and delete its data; whether there was anything to stop."""
    with _alone():
        return _clear()


def status() -> dict[str, Any]:
    """What runs: `cloud` (None when none is up), `processes` by what they are, `endpoints` by name."""
    is_running, previous = _is_running(), _previous_cloud()
    report: dict[str, Any] = {"cloud": previous if is_running else None, "processes": len(processes.list_marked(STATE)), "endpoints": {}}
    if is_running and previous:
        for page in previous.client("sagemaker").get_paginator("list_inference_components").paginate():
            report["endpoints"] |= {
                each["InferenceComponentName"]: each["InferenceComponentStatus"] for each in page["InferenceComponents"]
            }
    return report


def read_faults(logs: Path) -> list[str]:
    """The emulator's own errors since it started, a line each; `faults.log` in `logs` has their traces."""
    try:
        text = (logs / "faults.log").read_text(errors="replace")
    except FileNotFoundError:
        return []
    return [f"{lines[0]}: {lines[-1]}" for entry in text.split("\n\n") if (lines := entry.strip().splitlines())]


def describe_logs() -> str:
    """Where to look after a failure, a line each: the emulator's own last error, whether it has ended, the directory of
    logs."""
    lines = [f"the laptop cloud's own last error: {last}\nlog: {LOGS / 'faults.log'}" for last in read_faults(LOGS)[-1:]]
    if PID_FILE.exists() and processes.read(PID_FILE) is None:
        lines.append(f"the emulator has ended\nlog: {LOGS / 'emulator.log'}")
    return "\n".join([*lines, f"logs: {LOGS}"])


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock that lets one `up` or `down` work at a time."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart("another `make up`, `make down` or `make demo` is at work here: wait for it to end") from None
        yield


def _is_running() -> bool:
    """Whether the emulator lives and answers."""
    return processes.read(PID_FILE) is not None and _answers(f"http://127.0.0.1:{PORT}")


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint}/_ministack/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _previous_cloud() -> Cloud | None:
    """The cloud that the last `up` recorded; None without a readable record."""
    try:
        return Cloud(**json.loads(RECORD.read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _clear() -> bool:
    """End every process of this cloud and drop its state; whether there was any process."""
    first = processes.read(PID_FILE)
    was_running = bool(first or processes.list_marked(STATE))
    processes.end(STATE, first=first, seconds=STOP_SECONDS)
    for file in (PID_FILE, RECORD, SHELL):
        file.unlink(missing_ok=True)
    shutil.rmtree(STATE / "emulator", ignore_errors=True)
    return was_running


def _begin(say: Say) -> CloudAccess:
    """Start the emulator without earlier state, with a new key."""
    if _clear():
        say("ended what an earlier cloud left behind")
    problems = preflight.find_problems(for_cloud=True)
    if problems:
        raise CannotStart("\n".join(problems))
    home = STATE / "emulator"
    for name in ("state", "s3", "tmp"):
        (home / name).mkdir(parents=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    (LOGS / "faults.log").unlink(missing_ok=True)
    # Ministack takes a key id of twelve digits for an account number; this one belongs to MINISTACK_ACCOUNT_ID.
    access = CloudAccess(
        endpoint=f"http://127.0.0.1:{PORT}",
        access_key_id="AKIA" + "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") for _ in range(16)),
        secret_access_key=secrets.token_urlsafe(30),
    )
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "RLAAS_FIREHOSE_SECONDS", processes.OWNER) if name in os.environ},
        "GATEWAY_PORT": str(PORT),
        "BIND_HOST": "127.0.0.1",
        "MINISTACK_ACCOUNT_ID": ACCOUNT,
        "MINISTACK_REGION": REGION,
        "AWS_ACCESS_KEY_ID": access.access_key_id,
        "AWS_SECRET_ACCESS_KEY": access.secret_access_key,
        "STATE_DIR": str(home / "state"),
        "S3_DATA_DIR": str(home / "s3"),
        "TMPDIR": str(home / "tmp"),
        "RLAAS_LOG_DIR": str(LOGS),
        "RLAAS_IMAGES": json.dumps(_images()),
        processes.MARK: str(STATE),
        # Both would listen on every interface (MQTT on 8883, SFTP on 2222).
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "LOG_LEVEL": os.environ.get("RLAAS_LOG_LEVEL", "INFO"),
    }
    with (LOGS / "emulator.log").open("wb") as log:
        process = subprocess.Popen(
            [str(VENVS / "emulator/bin/python"), "-m", "local.emulator"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    emulator = processes.Process.of(process.pid)
    if emulator:
        processes.write(PID_FILE, emulator)
    deadline = time.monotonic() + START_SECONDS
    while not _answers(access.endpoint):
        if process.poll() is not None or time.monotonic() > deadline:
            tail = "".join((LOGS / "emulator.log").read_text(errors="replace").splitlines(keepends=True)[-15:])
            raise CannotStart(f"the emulator did not start; whole log in {LOGS / 'emulator.log'}\n{tail}")
        time.sleep(0.05)
    say(f"emulator answers on 127.0.0.1:{PORT}")
    _write_private(SHELL, "".join(f"export {name}={shlex.quote(value)}\n" for name, value in access.environment().items()))
    return access


def _write_private(file: Path, text: str) -> None:
    """Write what nobody but this user may read."""
    file.touch(mode=0o600)
    file.chmod(0o600)
    file.write_text(text)


def _images() -> dict[str, dict[str, Any]]:
    """The stand-ins of the two container images (see local/emulator/sagemaker/images.py); RLAAS_IMAGES overrides them
    by name."""
    return {
        "rlaas-learning": {"python": sys.executable, "cwd": str(ROOT), "env": JOB_ENVIRONMENT},
        "rlaas-vllm": {
            "python": str(VENVS / "serving/bin/python"),
            "cwd": str(ROOT),
            "serve": ["python", str(ROOT / "containers/vllm/serve.py"), "serve"],
            "env": {"OMP_NUM_THREADS": "2"},
        },
        **json.loads(os.environ.get("RLAAS_IMAGES", "{}")),
    }


def _deploy(access: CloudAccess, identity: str, say: Say, news: Say, *, fresh: bool) -> Cloud:
    deployment = Deployment(assembly=ASSEMBLY, logs=LOGS, environment={**access.environment(), processes.MARK: str(STATE)})
    with contextlib.ExitStack() as work:
        model = work.enter_context(ThreadPoolExecutor(1)).submit(_base_model, say)
        say("synthesizing the stacks (about 15 s when the code changed)")
        work.enter_context(deployment.hold_assembly())
        if fresh:
            say("bootstrapping the CDK")
            deployment.bootstrap()
        say("deploying the data stack")
        deployment.deploy(["data"], news=news)
        _upload(model.result(), access, say)
        say("deploying the other stacks; the model server starts with them (about a minute on two cores)")
        deployment.deploy([stack for stack in STACKS if stack != "data"], news=news)
        for line in readback.check(deployment.read_templates(), access.client):
            say(line)
    outputs = {
        output["OutputKey"]: output["OutputValue"]
        for output in access.client("cloudformation").describe_stacks(StackName="rlaas-local-api")["Stacks"][0]["Outputs"]
    }
    api_url = f"{access.endpoint}/_aws/execute-api/{outputs['ApiId']}/{_find_stage(outputs['ApiUrl'])}"
    previous = None if fresh else _previous_cloud()
    key = previous.api_key if previous else _first_key(outputs["BootstrapFunction"], access)
    return Cloud(
        endpoint=access.endpoint,
        access_key_id=access.access_key_id,
        secret_access_key=access.secret_access_key,
        api_url=api_url,
        tenant_id=TENANT,
        api_key=key,
        fingerprint=identity,
    )


def _find_stage(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]


def _base_model(say: Say) -> Path:
    """The directory of the base model's files; RLAAS_BASE_MODEL names another, such as the tests' tiny one."""
    if path := os.environ.get("RLAAS_BASE_MODEL"):
        return Path(path)
    from local import base_model

    say("preparing the base model (half a minute the first time)")
    return base_model.ensure_base_model(STATE / "models" / BASE_MODEL)


def _upload(directory: Path, access: CloudAccess, say: Say) -> None:
    """Put the base model into the artifacts bucket, file by file where it is not there yet."""
    s3, bucket, prefix = access.client("s3"), f"rlaas-local-artifacts-{ACCOUNT}-{REGION}", f"models/{BASE_MODEL}/"
    sizes = {entry["Key"]: entry["Size"] for entry in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])}
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        key = prefix + file.relative_to(directory).as_posix()
        if sizes.get(key) != file.stat().st_size:
            say(f"uploading {key} ({file.stat().st_size / 2**20:.0f} MiB)")
            s3.upload_file(str(file), bucket, key)


def _first_key(function: str, access: CloudAccess) -> str:
    """The key of `TENANT`, which people use by hand."""
    request = json.dumps({"tenant_id": TENANT, "scopes": SCOPES}).encode()
    answer = access.client("lambda").invoke(FunctionName=function, Payload=request)
    body = json.loads(answer["Payload"].read())
    if "FunctionError" in answer:
        raise CannotStart(f"the bootstrap function failed: {body.get('errorType')}: {body.get('errorMessage')}; logs in {LOGS}")
    return str(body["api_key"])
