"""The serving container's command: what it starts, and that nothing of it stays behind."""

import asyncio
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import psutil
import pytest

SERVE = Path(__file__).resolve().parents[3] / "containers" / "vllm" / "serve.py"
# In the place of vLLM: an API server that starts an engine which does not end with it.
ENGINE = "import time\nopen({started!r}, 'w').close()\ntime.sleep(600)\n"
SERVER = """
import pathlib, subprocess, sys, time
subprocess.Popen([sys.executable, {engine!r}])
while not pathlib.Path({started!r}).exists():
    time.sleep(0.01)
print("ready", flush=True)
if {dies}:
    sys.exit(3)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def serve() -> ModuleType:
    return load_module(SERVE)


def load_module(path: Path) -> ModuleType:
    """A file of the container's as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_options_come_from_the_environment_over_the_defaults(serve: ModuleType) -> None:
    words = serve.build_command(
        {"PORT": "9000", "SM_VLLM_MODEL": "/models/m", "SM_VLLM_MAX_MODEL_LEN": "512", "SM_VLLM_ENABLE_LORA": "false"}
    )
    assert words[1:5] == ["-m", "vllm.entrypoints.cli.main", "serve", "/models/m"]
    assert words[words.index("--max-model-len") + 1] == "512"
    assert words[words.index("--port") + 1] == "9000"
    assert "--enable-lora" not in words
    assert "--enable-lora" in serve.build_command({})


def test_no_resolver_turns_a_requested_name_into_a_path(serve: ModuleType) -> None:
    assert serve.build_environment({})["VLLM_PLUGINS"] == ""
    assert "VLLM_LORA_RESOLVER_CACHE_DIR" not in serve.build_environment({})


def test_a_chat_goes_by_the_hosting_route_where_the_header_says_which_adapter_answers(serve: ModuleType) -> None:
    module, name = serve.OPTIONS["middleware"].split(".")
    assert f"--middleware {module}.{name}" in " ".join(serve.build_command({}))
    assert str(SERVE.parent) in serve.build_environment({})["PYTHONPATH"].split(os.pathsep)
    seen: list[str] = []

    async def app(scope: dict[str, str], receive: object, send: object) -> None:
        seen.append(scope["path"])

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b'{"messages": []}'}

    door = getattr(load_module(SERVE.with_name(f"{module}.py")), name)(app)
    for path in ("/v1/chat/completions", "/invocations", "/ping", "/adapters"):
        asyncio.run(door({"type": "http", "path": path}, receive, None))
    assert seen == ["/invocations", "/invocations", "/ping", "/adapters"]


def test_a_setting_of_the_containers_environment_wins(serve: ModuleType) -> None:
    assert serve.build_environment({"VLLM_CPU_KVCACHE_SPACE": "7"})["VLLM_CPU_KVCACHE_SPACE"] == "7"


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., tuple[subprocess.Popen[str], Callable[[], list[int]]]]:
    """Starts serve.py with a stand-in vLLM; gives it and a look at the engines that live."""
    engine, started, server = tmp_path / "engine.py", tmp_path / "started", tmp_path / "vllm" / "entrypoints" / "cli" / "main.py"

    def engines() -> list[int]:
        live = psutil.process_iter(["cmdline", "status"])
        return [p.pid for p in live if str(engine) in (p.info["cmdline"] or []) and p.info["status"] != psutil.STATUS_ZOMBIE]

    def run(*, dies: bool = False, behind_shell: bool = False) -> tuple[subprocess.Popen[str], Callable[[], list[int]]]:
        server.parent.mkdir(parents=True)
        engine.write_text(ENGINE.format(started=str(started)))
        server.write_text(SERVER.format(engine=str(engine), started=str(started), dies=dies))
        command = [sys.executable, str(SERVE), "serve"]
        process = subprocess.Popen(
            ["bash", "-c", '"$@"; true', "bash", *command] if behind_shell else command,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process, engines

    return run


def gone(engines: Callable[[], list[int]]) -> bool:
    """Whether the engines end within serve.py's own patience."""
    deadline = time.monotonic() + 25
    while engines() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not engines()


def test_a_stop_ends_the_engine_too(start: Callable[..., tuple[subprocess.Popen[str], Callable[[], list[int]]]]) -> None:
    process, engines = start()
    assert engines()
    process.send_signal(signal.SIGTERM)
    assert process.wait(25) == 0
    assert not engines()


def test_a_server_that_dies_takes_its_engine_with_it_and_its_status_is_kept(
    start: Callable[..., tuple[subprocess.Popen[str], Callable[[], list[int]]]],
) -> None:
    process, engines = start(dies=True)
    assert process.wait(25) == 3
    assert not engines()


def test_a_killed_parent_takes_everything_with_it(
    start: Callable[..., tuple[subprocess.Popen[str], Callable[[], list[int]]]],
) -> None:
    shell, engines = start(behind_shell=True)
    assert engines()
    shell.kill()
    assert gone(engines)
