"""The serving container's command: vLLM with run-time LoRA adapters behind SageMaker's hosting routes.

SageMaker starts it as `serve`; the laptop cloud starts the same file with the serving environment's Python. Settings
are environment variables, named as AWS's own vLLM images name them:

    PORT                  where to listen (8080)
    HOST                  address to bind (0.0.0.0; the laptop cloud sets 127.0.0.1)
    SM_VLLM_MODEL         directory of the base model (/opt/ml/model)
    SM_VLLM_<OPTION>      any other `vllm serve` option: SM_VLLM_MAX_MODEL_LEN=1024 is `--max-model-len 1024`;
                          `true` is a bare flag

The adapters are loaded by POST /adapters only. vLLM's filesystem and hub resolvers, which would turn a name in a
request into a path without checking it, stay off.

This process stays as vLLM's parent, because vLLM's engine and worker processes outlive a killed API server. It ends the
whole process group when a signal asks it to, when vLLM ends, or when its own parent is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType

import psutil

OPTIONS = {
    "model": "/opt/ml/model",
    "served-model-name": "base",
    "max-model-len": "1024",
    "enable-lora": "true",
    "max-loras": "4",
    "max-cpu-loras": "16",
    "max-lora-rank": "16",
    "middleware": "one_door.ChatByInvocations",
    "tool-parser-plugin": "closed_tool_calls",
    # guidance makes masks while it generates. xgrammar compiles them first: for a text's `maxLength` alone that takes
    # seconds, in which other tenants wait (`make bench-grammars`).
    "structured-outputs-config": '{"backend": "guidance", "disable_any_whitespace": true}',
}
SETTINGS = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_PLUGINS": "",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    # Calls that a request forces are constrained by a schema of their arguments; vLLM's structural tags speak
    # xgrammar's language, which the guidance backend refuses ("Invalid grammar specification: 'triggers'").
    "VLLM_ENFORCE_STRICT_TOOL_CALLING": "0",
    "VLLM_HOST_IP": "127.0.0.1",  # its processes reach each other without a network, which the endpoint's containers lack
}
# On CPU, without a limit, the cache takes half the memory. All cores compute, and waiting threads sleep, so that other
# processes can have the cores.
CPU_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": str(os.cpu_count()),
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "1",
    # The model runs uncompiled here. What is left to compile, a count for logprobs, takes half a minute of C++ at the
    # first request that asks for them, in which all others wait.
    "TORCHDYNAMO_DISABLE": "1",
}
CPU_OPTIONS = {"distributed-executor-backend": "cpu_executor.InlineExecutor"}
# From intel-openmp, which vllm-cpu depends on; it distributes work faster than the OpenMP in torch.
OPENMP = "lib/libiomp5.so"
STOP_SECONDS = 10.0
POLL_SECONDS = 0.5


def on_cpu() -> bool:
    """Whether there is no GPU to serve from."""
    return not any(Path("/dev").glob("nvidia[0-9]*"))


def choose_dtype() -> str:
    """bfloat16 where the hardware computes in it; elsewhere float32, which is up to eight times as fast on such a
    processor."""
    if not on_cpu():
        return "bfloat16"
    features = Path("/proc/cpuinfo").read_text().split()
    return "bfloat16" if {"avx512_bf16", "amx_bf16", "bf16"} & set(features) else "float32"


def build_command(environment: dict[str, str]) -> list[str]:
    """The `vllm serve` command line that `environment` asks for."""
    prefix = "SM_VLLM_"
    overrides = {name[len(prefix) :].lower().replace("_", "-"): value for name, value in environment.items() if name.startswith(prefix)}
    options = OPTIONS | {"dtype": choose_dtype()} | (CPU_OPTIONS if on_cpu() else {}) | overrides
    words = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", options.pop("model")]
    words += ["--host", environment.get("HOST", "0.0.0.0"), "--port", environment.get("PORT", "8080")]
    for name, value in sorted(options.items()):
        if value.lower() == "true":
            words.append(f"--{name}")
        elif value.lower() != "false":
            words += [f"--{name}", value]
    return words


def build_environment(environment: dict[str, str]) -> dict[str, str]:
    """The environment that vLLM runs in: this file's defaults, overridden by `environment`, and the path of the modules
    beside this file."""
    result = SETTINGS | (CPU_SETTINGS if on_cpu() else {}) | environment
    result["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, [environment.get("PYTHONPATH")])])
    openmp = Path(sys.prefix, OPENMP)
    if on_cpu() and openmp.exists():
        result.setdefault("LD_PRELOAD", str(openmp))
    return result


def list_others() -> list[psutil.Process]:
    """The other processes of this process group: vLLM and what it started."""
    own, group = os.getpid(), os.getpgrp()
    processes = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if pid != own and os.getpgid(pid) == group:
                processes.append(psutil.Process(pid))
    return processes


def end_group() -> None:
    """Ask every other process of the group to end, and kill those that have not after STOP_SECONDS."""
    for force in (False, True):
        remaining = list_others()
        for process in remaining:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill() if force else process.terminate()
        psutil.wait_procs(remaining, timeout=STOP_SECONDS)


def main() -> int:
    """Run vLLM until it ends, a signal asks for the end, or the parent process is gone. Returns vLLM's exit status, or
    0 when it had not ended by itself."""
    parent = os.getppid()
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    stop = threading.Event()

    def request_stop(signum: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, request_stop)
    signal.signal(signal.SIGINT, request_stop)
    environment = dict(os.environ)
    vllm = subprocess.Popen(build_command(environment), env=build_environment(environment))
    while vllm.poll() is None and not stop.is_set() and os.getppid() == parent:
        stop.wait(POLL_SECONDS)
    status = vllm.poll()
    end_group()
    return 0 if status is None else status


if __name__ == "__main__":
    sys.exit(main())
