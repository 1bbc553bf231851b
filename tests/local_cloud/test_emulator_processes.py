"""What the emulator starts ends with it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local import processes
from tests.local_cloud.conftest import IMAGES, ROOT, Emulator, start, until


def busy(home: Path) -> Emulator:
    """An emulator with a job that runs and a function that is being called."""
    images = f'{{"learning": {{"python": "{sys.executable}", "cwd": "{IMAGES}"}}}}'
    emulator = start("local.emulator", home, RLAAS_IMAGES=images)
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
    until(lambda: len(processes.marked(home)) >= 5)  # emulator, worker, supervisor, job, the job's child
    return emulator


@pytest.mark.parametrize("way", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_emulator(tmp_path: Path, way: signal.Signals) -> None:
    emulator = busy(tmp_path / "home")
    os.kill(emulator.process.pid, way)
    emulator.process.wait(40)
    until(lambda: not processes.marked(tmp_path / "home"), seconds=40)


def test_everything_listens_on_the_loopback_only(emulator: Emulator) -> None:
    pids = {process.pid for process in processes.marked(emulator.home)}
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
    assert not process.lives()


def test_ending_a_cloud_ends_only_its_own_processes(tmp_path: Path) -> None:
    mine, other = (
        subprocess.Popen(
            [sys.executable, str(IMAGES / "stubborn.py")], env={processes.MARK: str(tmp_path / name)}, stdout=subprocess.DEVNULL, cwd=ROOT
        )
        for name in ("mine", "other")
    )
    try:
        until(lambda: len(processes.marked(tmp_path / "mine")) == len(processes.marked(tmp_path / "other")) == 2)
        processes.end(tmp_path / "mine", first=None, seconds=1)
        mine.wait(10)
        assert not processes.marked(tmp_path / "mine")
        assert len(processes.marked(tmp_path / "other")) == 2
    finally:
        processes.end(tmp_path / "other", first=None, seconds=1)
        other.wait(10)
