"""Sets up everything the laptop cloud, the demo and the tests run on: `python3 -m local.setup`.

Runs on the machine's own Python before any package is there, so it imports the standard library only. Each step is
skipped while its inputs (lock files, the interpreter) are unchanged. What it makes lies under `.venv/` and `.rlaas/`;
deleting both starts afresh.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from local import preflight

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".rlaas"
TORCH = "torch==2.13.0"
UV = STATE / "venvs" / "uv"


@dataclass(frozen=True)
class Step:
    """One thing to install: done when `result` is there and the stamp under `.rlaas/stamps/` equals the hash of
    `inputs`."""

    name: str
    about_seconds: int
    inputs: tuple[Path, ...]
    result: Path
    commands: Callable[[], list[list[str]]]
    python: str = sys.version

    @property
    def stamp(self) -> Path:
        """Where the fingerprint of the last success is kept."""
        return STATE / "stamps" / self.name.replace(" ", "-")

    def fingerprint(self) -> str:
        """A hash of everything the step's result depends on."""
        digest = hashlib.sha256(f"{self.python}{ROOT}".encode())
        for path in self.inputs:
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def is_done(self) -> bool:
        """Whether the last success was with the same inputs, and nobody has removed what it made."""
        return self.result.exists() and self.stamp.exists() and self.stamp.read_text() == self.fingerprint()


def environment(directory: Path, lock: Path, *, torch: bool, python: str = sys.executable) -> list[list[str]]:
    """Commands that make a virtual environment of `python` hold exactly `lock`.

    torch is installed with its dependencies (a CPU build has next to none, a CUDA build needs them); everything else is
    named in the lock, so nothing is resolved and nothing can move torch.
    """
    install = [str(UV / "bin" / "uv"), "pip", "install", "--quiet", "--python", str(directory / "bin" / "python")]
    return [
        [python, "-m", "venv", "--clear", str(directory)],
        *([[*install, TORCH]] if torch else []),
        [*install, "--no-deps", "--requirement", str(lock)],
    ]


def steps() -> list[list[Step]]:
    """The installer, then lanes that run side by side; the steps of a lane run in order."""
    locks = ROOT / "requirements"
    venvs = STATE / "venvs"
    installer = Step(
        "installer (uv)",
        8,
        (locks / "uv.lock",),
        UV / "bin" / "uv",
        lambda: [
            [sys.executable, "-m", "venv", "--clear", str(UV)],
            [str(UV / "bin" / "pip"), "install", "--quiet", "--requirement", str(locks / "uv.lock")],
        ],
    )
    main = Step(
        "main environment",
        75,
        (locks / "dev.lock",),
        ROOT / ".venv" / "bin" / "python",
        lambda: environment(ROOT / ".venv", locks / "dev.lock", torch=True),
    )
    emulator = Step(
        "emulator environment",
        10,
        (locks / "emulator.lock",),
        venvs / "emulator" / "bin" / "python",
        lambda: environment(venvs / "emulator", locks / "emulator.lock", torch=False),
    )
    node = Step(
        "aws-cdk",
        10,
        (ROOT / "package-lock.json",),
        ROOT / "node_modules" / "aws-cdk",
        lambda: [["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]],
    )
    serving = Step(
        "serving environment (vLLM)",
        75,
        (locks / "serving.lock", ROOT / "local" / "serving_environment.py"),
        venvs / "serving" / "bin" / "python",
        lambda: [
            *environment(venvs / "serving", locks / "serving.lock", torch=True),
            [sys.executable, "-m", "local.serving_environment", str(venvs / "serving")],
        ],
    )
    layers = Step(
        "Lambda layers",
        60,
        (*sorted((ROOT / "layers").glob("*/requirements.lock")), ROOT / "infra" / "bundling.py"),
        STATE / "layers",
        lambda: [[str(UV / "bin" / "python"), "-m", "infra.bundling"]],
    )
    return [[installer], [main], [emulator, node, serving], [layers]]


def find_other_python(python: str) -> Step:
    """The main environment's packages on another interpreter, under `.rlaas/venvs/other`, for `make test-python`.

    torch only where the version has the wheel that the laptop uses: on another it would be a CUDA build of gigabytes.
    """
    command = [python, "-c", "import sys; print(sys.version.split()[0], sys.version_info[:2] == (3, 11))"]
    version, has_torch = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    lock = ROOT / "requirements" / "dev.lock"
    directory = STATE / "venvs" / "other"
    commands = environment(directory, lock, torch=has_torch == "True", python=python)
    return Step("other environment", 75, (lock,), directory / "bin" / "python", lambda: commands, f"{python} {version}")


def clients() -> list[list[Step]]:
    """Lanes with the clients of others that tests/clients runs: a Python environment for each, one for those of Node.

    They lie under `.rlaas/clients/`; nothing of theirs can move what the rest runs on.
    """
    folder, node = STATE / "clients", ROOT / "requirements" / "clients" / "node"
    python_clients = [
        Step(
            f"client {lock.stem}",
            15,
            (lock,),
            folder / lock.stem / "bin" / "python",
            partial(environment, folder / lock.stem, lock, torch=False),
        )
        for lock in sorted((ROOT / "requirements" / "clients").glob("*.lock"))
    ]
    manifests = (node / "package.json", node / "package-lock.json")
    install = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", str(folder / "node")]
    node_clients = Step(
        "clients of Node",
        60,
        manifests,
        folder / "node" / "node_modules",
        lambda: [["mkdir", "-p", str(folder / "node")], ["cp", *map(str, manifests), str(folder / "node")], install],
    )
    return [python_clients, [node_clients]]


class Failed(Exception):
    """A set-up command ended with an error; carries the step's log."""


def run(step: Step, say: Callable[[str], None]) -> None:
    """Run one step, its output to `.rlaas/logs/setup-<step>.log`."""
    if step.is_done():
        return
    log_path = STATE / "logs" / f"setup-{step.stamp.name}.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    say(f"{step.name}: installing, about {step.about_seconds} s ...")
    with log_path.open("w") as log:
        for command in step.commands():
            log.write("$ " + " ".join(command) + "\n")
            log.flush()
            if subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False).returncode:
                tail = "".join(log_path.read_text().splitlines(keepends=True)[-15:])
                raise Failed(f"{step.name}: `{' '.join(command[:6])} ...` failed; whole log in {log_path}\n{tail}")
    step.stamp.parent.mkdir(parents=True, exist_ok=True)
    step.stamp.write_text(step.fingerprint())
    say(f"{step.name}: ready after {time.monotonic() - start:.0f} s")


def main() -> int:
    """Check the machine, then install what is missing; returns the process's exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m local.setup", description=__doc__)
    parser.add_argument("--for-cloud", action="store_true", help="also check what starting the laptop cloud needs (port, memory)")
    parser.add_argument("--clients", action="store_true", help="install the clients that tests/clients runs, and nothing else")
    parser.add_argument("--other-python", metavar="PYTHON", help="install the tests' packages on this interpreter, too")
    arguments = parser.parse_args()
    problems = preflight.find_problems(for_cloud=arguments.for_cloud)
    for problem in problems:
        print(f"set-up: {problem}", file=sys.stderr)
    if problems:
        return 1
    others = [[find_other_python(arguments.other_python)]] if arguments.other_python else []
    all_lanes = [steps()[0], *clients()] if arguments.clients else [*steps(), *others]
    lanes = [[step for step in lane if not step.is_done()] for lane in all_lanes]
    failures = install(lanes) if any(lanes) else []
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def install(lanes: list[list[Step]]) -> list[str]:
    """Run the first lane, then the others side by side, and print progress; the failures, a text each."""
    missing = [step for lane in lanes for step in lane]
    longest = max(sum(step.about_seconds for step in lane) for lane in lanes)
    start = time.monotonic()
    lock = threading.Lock()

    def say(text: str) -> None:
        with lock:
            print(f"[set-up {time.monotonic() - start:4.0f} s] {text}", flush=True)

    say(f"installing {', '.join(step.name for step in missing)}; about {-(-longest // 60)} minutes, once")
    failures: list[str] = []

    def work(lane: list[Step]) -> None:
        try:
            for step in lane:
                run(step, say)
        except Failed as failure:
            failures.append(str(failure))

    work(lanes[0])
    threads = [threading.Thread(target=work, args=(lane,), daemon=True) for lane in lanes[1:] if lane and not failures]
    for thread in threads:
        thread.start()
    wait_s = 0.0
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.2)
        wait_s += 0.2
        if wait_s >= 20 and not failures:
            wait_s = 0.0
            say("still installing: " + ", ".join(step.name for step in missing if not step.is_done()))
    if not failures:
        say("everything is installed")
    return failures


if __name__ == "__main__":
    # pip's own setting of where else wheels lie (a CPU build of torch, say) holds for uv too.
    if "PIP_FIND_LINKS" in os.environ:
        os.environ.setdefault("UV_FIND_LINKS", os.environ["PIP_FIND_LINKS"])
    sys.exit(main())
