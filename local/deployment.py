"""Plain `cdk synth` and `cdk deploy` of the stage `local` against the laptop cloud."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from local import processes

ROOT = Path(__file__).resolve().parent.parent
STAGE = "local"
ACCOUNT, REGION = "000000000000", "us-east-1"
SYNTH_INPUTS = ("app.py", "cdk.json", "package-lock.json", "pyproject.toml", "infra", "functions", "layers")
STACKS = ("data", "api", "learning", "serving", "rollout", "observability")


# `stack | 3/41 | 7:20:58 AM | CREATE_COMPLETE | AWS::Lambda::Function | local/api/Telemetry (Telemetry1234)`
EVENT = re.compile(r"^(?P<stack>[\w-]+) \|[^|]*\|[^|]*\| \w+_COMPLETE\s*\|[^|]*\| (?P<resource>[^(]+)")


class DeploymentFailed(Exception):
    """The CDK ended with an error; the text has its last lines and the path of the whole log."""


def compute_fingerprint(inputs: Iterable[str]) -> str:
    """A hash of the content of files and directories under the repository's root."""
    digest = hashlib.sha256()
    for name in inputs:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


class Deployment:
    """The app's templates in `assembly`, and their deployment to the cloud at `endpoint`."""

    def __init__(self, *, assembly: Path, logs: Path, environment: dict[str, str]) -> None:
        self.assembly, self.logs = assembly, logs
        self._environment = {
            **os.environ,
            **environment,
            "CDK_DISABLE_VERSION_CHECK": "1",
            "CI": "true",
            "JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION": "1",
        }

    @contextmanager
    def hold_assembly(self) -> Iterator[None]:
        """Within this context the assembly is that of the sources. It is written once for all clouds, and not again
        while one of them deploys it. Raises: DeploymentFailed."""
        with self.assembly.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            while not self._is_current():
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not self._is_current():  # another may have written it while this one waited
                    self._synthesize()
                fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    def _is_current(self) -> bool:
        stamp = self.assembly.with_suffix(".stamp")
        return stamp.exists() and stamp.read_text() == compute_fingerprint(SYNTH_INPUTS) and (self.assembly / "manifest.json").exists()

    def _synthesize(self) -> None:
        stamp, current = self.assembly.with_suffix(".stamp"), compute_fingerprint(SYNTH_INPUTS)
        shutil.rmtree(self.assembly, ignore_errors=True)
        stamp.unlink(missing_ok=True)
        self._cdk(["synth", "--quiet", "--output", str(self.assembly), "--context", f"stage={STAGE}"], "synth")
        stamp.write_text(current)

    def bootstrap(self) -> None:
        """The CDK's own stack (assets bucket and roles), which every account needs once."""
        self._cdk(
            ["bootstrap", f"aws://{ACCOUNT}/{REGION}", "--app", str(self.assembly)],
            "bootstrap",
        )

    def deploy(self, stacks: Sequence[str], *, news: Callable[[str], None]) -> None:
        """Deploy `stacks`, side by side where they do not depend on each other; `news` gets a line for each finished
        resource. Raises: DeploymentFailed."""
        names = [f"{STAGE}/{stack}" for stack in stacks]
        options = ["--require-approval", "never", "--exclusively", "--method", "direct", "--concurrency", "4", "--progress", "events"]
        self._cdk(["deploy", "--app", str(self.assembly), *options, *names], f"deploy-{stacks[0]}", news)

    def read_templates(self) -> dict[str, dict[str, object]]:
        """The synthesized template of each stack, by stack name."""
        directory = self.assembly / f"assembly-{STAGE}"
        manifest = json.loads((directory / "manifest.json").read_text())
        return {
            artifact["properties"].get("stackName", name): json.loads((directory / artifact["properties"]["templateFile"]).read_text())
            for name, artifact in manifest["artifacts"].items()
            if artifact["type"] == "aws:cloudformation:stack"
        }

    def _cdk(self, arguments: list[str], name: str, news: Callable[[str], None] = lambda line: None) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        log_file = self.logs / f"cdk-{name}.log"
        command = [str(ROOT / "node_modules/.bin/cdk"), *arguments]
        with log_file.open("w") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=processes.end_with_parent,
            )
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                if event := EVENT.match(line):
                    news(f"{event['stack']}: {event['resource'].strip()}")
        if process.wait():
            tail = "".join(log_file.read_text().splitlines(keepends=True)[-25:])
            raise DeploymentFailed(f"`cdk {arguments[0]}` failed; whole log in {log_file}\n{tail}")
