"""What the emulator starts ends with it, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local import processes
from tests.local_cloud.conftest import IMAGES, ROOT, Emulator, start, until


def busy(home: Path, **settings: str) -> Emulator:
    """An emulator with a job that runs and a function that is being called."""
    images = f'{{"learning": {{"python": "{sys.executable}", "cwd": "{IMAGES}"}}}}'
    emulator = start("local.emulator", home, RLAAS_IMAGES=images, **settings)
    emulator.client("s3").create_bucket(Bucket="bucket")
    emulator.client("s3").put_object(Bucket="bucket", Key="data/a", Body=b"a")
    call = emulator.function("slow", "import time\ndef handler(event, context):\n    print('in')\n    time.sleep(event)", Timeout=600)
    call(0)
    emulator.client("lambda").invoke(FunctionName="slow", Payload=b"300", InvocationType="Event")
    emulator.client("sagemaker").create_processing_job(
        ProcessingJobName="stubborn",
        RoleArn="arn:aws:iam::000000000000:role/test",
        AppSpecification={"ImageUri": "x/learning:1", "ContainerEntrypoint": ["python", "stubborn.py"]},
        ProcessingResources={"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}},
    )
    until(lambda: "started" in log.read_text() if (log := home / "log" / "processing-stubborn.log").exists() else False)
    until(lambda: len(processes.list_marked(home)) >= 5)  # emulator, worker, supervisor, job, the job's child
    return emulator


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_emulator(tmp_path: Path, way: signal.Signals) -> None:
    emulator = busy(tmp_path / "home")
    os.kill(emulator.process.pid, way)
    emulator.process.wait(40)
    until(lambda: not processes.list_marked(tmp_path / "home"), seconds=40)


def test_a_cloud_of_its_owner_ends_with_it(tmp_path: Path) -> None:
    owner = subprocess.Popen(["sleep", "600"])
    process = processes.Process.of(owner.pid)
    assert process is not None
    emulator = busy(tmp_path / "home", RLAAS_OWNER=process.text)
    owner.kill()
    owner.wait()
    emulator.process.wait(40)
    until(lambda: not processes.list_marked(tmp_path / "home"), seconds=40)


INTERRUPTED = """
import os, pathlib, time
from tests.local_cloud.test_emulator_processes import busy

def test_that_is_interrupted():
    home = pathlib.Path(os.environ["THE_HOME"])
    busy(home)
    (home / "worker").write_text(str(os.getpid()))
    time.sleep(600)
"""


def _as_a_terminal_starts_it() -> None:
    """Start a session that gets SIGHUP when the window closes, also where the tests themselves run under nohup."""
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "whom"),
    [
        (signal.SIGINT, "terminal"),
        (signal.SIGHUP, "terminal"),
        (signal.SIGTERM, "pytest"),
        (signal.SIGKILL, "pytest"),
        (signal.SIGKILL, "worker"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_an_interrupted_test_leaves_no_emulator(tmp_path: Path, way: signal.Signals, whom: str) -> None:
    (tmp_path / "test_interrupted.py").write_text(INTERRUPTED)
    home = tmp_path / "home"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "xdist",
        "-n",
        "1",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    quick = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # others take seconds to load, in both processes
    environment = {
        **os.environ,
        **quick,
        "THE_HOME": str(home),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers/rlaas/python")]),
    }
    with (tmp_path / "output").open("wb") as output:
        run = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output, preexec_fn=_as_a_terminal_starts_it)
    worker = home / "worker"
    until(lambda: (worker.exists() and worker.read_text()) or run.poll() is not None, seconds=180)
    assert run.poll() is None, (tmp_path / "output").read_text()
    if whom == "terminal":  # as Ctrl-C and a closed window do, to the foreground's processes
        os.killpg(run.pid, way)
    else:
        os.kill(run.pid if whom == "pytest" else int(worker.read_text()), way)
    try:
        until(lambda: not processes.list_marked(home), seconds=40)
    finally:
        processes.end(home, first=None, seconds=1)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
        run.wait(30)


def test_everything_listens_on_the_loopback_only(emulator: Emulator) -> None:
    pids = {process.pid for process in processes.list_marked(emulator.home)}
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            link = str(descriptor.readlink()) if descriptor.is_symlink() else ""
            if link.startswith("socket:["):
                inodes.add(link[8:-1])
    listening = [
        fields[1]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and fields[9] in inodes
    ]
    assert listening
    assert {address.partition(":")[0] for address in listening} == {"0100007F"}


def test_a_pid_file_does_not_name_a_later_process_with_its_number(tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        process = processes.Process.of(sleeper.pid)
        assert process is not None
        processes.write(tmp_path / "pid", process)
        assert processes.read(tmp_path / "pid") == process
        processes.write(tmp_path / "pid", processes.Process(process.pid, process.started - 1))
        assert processes.read(tmp_path / "pid") is None
    finally:
        sleeper.kill()
        sleeper.wait()
    assert not process.is_alive()


def test_ending_a_cloud_ends_only_its_own_processes(tmp_path: Path) -> None:
    mine, other = (
        subprocess.Popen(
            [sys.executable, str(IMAGES / "stubborn.py")], env={processes.MARK: str(tmp_path / name)}, stdout=subprocess.DEVNULL, cwd=ROOT
        )
        for name in ("mine", "other")
    )
    try:
        until(lambda: len(processes.list_marked(tmp_path / "mine")) == len(processes.list_marked(tmp_path / "other")) == 2)
        processes.end(tmp_path / "mine", first=None, seconds=1)
        mine.wait(10)
        assert not processes.list_marked(tmp_path / "mine")
        assert len(processes.list_marked(tmp_path / "other")) == 2
    finally:
        processes.end(tmp_path / "other", first=None, seconds=1)
        other.wait(10)
