"""LiteLLM's proxy and TensorZero's embedded gateway on this machine, each in an environment of its own, before the same
mock model as ours.

`python -m benchmarks.gateway_peers mock` is the mock: it answers every POST with one chat completion of about a hundred
tokens at once.
"""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".rlaas" / "peers"
UV = ROOT / ".rlaas" / "venvs" / "uv" / "bin" / "uv"
PACKAGES = {
    # Without opentelemetry a failed import is tried again at every request.
    "litellm": ("litellm[proxy]==1.106.0", "opentelemetry-api", "opentelemetry-sdk", "opentelemetry-exporter-otlp"),
    "tensorzero": ("tensorzero==2026.6.0",),
}
ANSWER = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "mock-model",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": " ".join(["The parcel is on its way."] * 16)}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 60, "completion_tokens": 104, "total_tokens": 164},
}
QUESTION = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "Where is my parcel? " * 20}]
START_S = 120.0


def environment(peer: str) -> Path:
    """The Python of the peer's environment, installed and compiled when it is not there."""
    folder = PEERS / peer
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        print(f"installing {', '.join(PACKAGES[peer])} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(UV), "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *PACKAGES[peer]], check=True)
        (folder / "ready").touch()
    return python


@contextlib.contextmanager
def mock_model() -> Iterator[str]:
    """The mock in a process of its own; its `/v1` URL."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.gateway_peers", "mock", str(port)], cwd=ROOT)
    try:
        _wait(port, process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


def litellm_cpu_s(model_url: str, requests: int) -> float:
    """CPU seconds of LiteLLM's proxy, one worker, for `requests` requests one after another."""
    python, port = environment("litellm"), free_port()
    config = PEERS / "litellm.json"
    parameters = {"model": "openai/mock-model", "api_base": model_url, "api_key": "sk-none"}
    config.write_text(
        json.dumps({"model_list": [{"model_name": "mock", "litellm_params": parameters}], "litellm_settings": {"num_retries": 0}})
    )
    settings = {
        "LITELLM_LOG": "ERROR",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }
    with (PEERS / "litellm.log").open("wb") as log:
        command = [
            str(python.parent / "litellm"),
            "--config",
            str(config),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--num_workers",
            "1",
        ]
        proxy = subprocess.Popen(command, env=_clean() | settings, cwd=PEERS, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait(port, proxy)
        connection = http.client.HTTPConnection("127.0.0.1", port)
        _ask(connection, requests // 10)
        before = _cpu_s(proxy.pid)
        _ask(connection, requests)
        return _cpu_s(proxy.pid) - before
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(proxy.pid, signal.SIGKILL)
        proxy.wait()


def tensorzero_cpu_s(model_url: str, requests: int) -> float:
    """CPU seconds of a process that asks by TensorZero's embedded gateway `requests` times."""
    config = PEERS / "tensorzero.toml"
    python = environment("tensorzero")
    config.write_text(f"""[gateway]
observability.enabled = false
[models.mock]
routing = ["openai"]
[models.mock.providers.openai]
type = "openai"
model_name = "mock-model"
api_base = "{model_url}/"
api_key_location = "none"
[functions.chat]
type = "chat"
[functions.chat.variants.v1]
type = "chat_completion"
model = "mock"
""")
    program = """
import sys, time
from tensorzero import TensorZeroGateway
config, requests = sys.argv[1], int(sys.argv[2])
asked = {"system": "Answer briefly.", "messages": [{"role": "user", "content": "Where is my parcel? " * 20}]}
with TensorZeroGateway.build_embedded(config_file=config) as gateway:
    for number in range(requests + requests // 10):
        if number == requests // 10:
            started = time.process_time()
        gateway.inference(function_name="chat", input=asked, params={"chat_completion": {"max_tokens": 128}})
    print(time.process_time() - started)
"""
    quiet = _clean() | {"TENSORZERO_DISABLE_PSEUDONYMOUS_USAGE_ANALYTICS": "1", "RUST_LOG": "error"}
    result = subprocess.run(
        [str(python), "-c", program, str(config), str(requests)], env=quiet, cwd=PEERS, capture_output=True, text=True, check=True
    )
    return float(result.stdout.splitlines()[-1])


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _clean() -> dict[str, str]:
    left_out = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "OPENAI_API_KEY", "DATABASE_URL")
    return {name: value for name, value in os.environ.items() if name not in left_out}


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} does not listen on {port}; see {PEERS}")
        time.sleep(0.05)


def _ask(connection: http.client.HTTPConnection, requests: int) -> None:
    body = json.dumps({"model": "mock", "messages": QUESTION, "max_tokens": 128})
    for _ in range(requests):
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json", "Authorization": "Bearer sk-none"})
        answer = connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status}: {text[:300]!r}")


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process and those it started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") + sum(_cpu_s(int(child)) for child in children)


class _Mock(asyncio.Protocol):
    """HTTP/1.1, as little as it takes."""

    _body = json.dumps(ANSWER).encode()
    _answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_body) + _body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._read = transport, b""

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._read += data
        while (head_end := self._read.find(b"\r\n\r\n")) >= 0:
            head = self._read[:head_end].lower()
            if b"transfer-encoding: chunked" in head:
                end = self._read.find(b"0\r\n\r\n", head_end)
                if end < 0:
                    return
                length = end + 5 - head_end - 4
            else:
                length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self._read) < head_end + 4 + length:
                return
            self._read = self._read[head_end + 4 + length :]
            self._transport.write(self._answer)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Mock, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[2])))
