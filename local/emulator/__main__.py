"""Starts ministack with our additions: `python -m local.emulator`, in the emulator's own environment.

Settings are ministack's environment variables (GATEWAY_PORT, BIND_HOST, STATE_DIR, S3_DATA_DIR, TMPDIR), the key that
its callers sign with (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), and ours (RLAAS_IMAGES, RLAAS_LOG_DIR, RLAAS_CLOUD,
RLAAS_OWNER, RLAAS_FIREHOSE_SECONDS); `local.cloud` and the tests set them.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
import types

from local.processes import OWNER, Process

NEEDED = ("GATEWAY_PORT", "BIND_HOST", "STATE_DIR", "S3_DATA_DIR", "TMPDIR", "RLAAS_LOG_DIR", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
STOP_SECONDS = 20.0
OWNER_SECONDS = 0.5
SWITCH_SECONDS = 0.0005
"""How long a thread may hold Python's lock while another one waits for it; 0.005 by default."""


def stop(signum: int, frame: types.FrameType | None) -> None:
    """End the children, then this process.

    Stock ministack waits for the requests in flight, even a CloudFormation call that hangs, and does not end its
    children.
    """
    watchdog = threading.Timer(STOP_SECONDS, os._exit, (1,))
    watchdog.daemon = True
    watchdog.start()
    threading.Thread(target=_end_children, daemon=True).start()


def _end_children() -> None:
    from ministack.core import lambda_runtime as runtime

    from local.emulator.sagemaker import api

    api.stop_all()
    runtime.reset()
    os._exit(0)


def _stop_with(owner: Process) -> None:
    """Stop when `owner` is gone: a process that started this cloud for itself may be killed before it can stop it."""
    while owner.is_alive():
        time.sleep(OWNER_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Hook in everything and serve."""
    for name in NEEDED:
        if name not in os.environ:
            sys.exit(f"{name} is not set; start the laptop cloud by `python -m local up`")
    import uvicorn
    from ministack import app

    from local.emulator import (
        apigateway,
        athena,
        cloudformation,
        cloudwatch,
        door,
        faults,
        firehose,
        invocations,
        lambda_runtime,
        queues,
        sagemaker,
        stepfunctions,
        streams,
    )
    from local.emulator.sagemaker import api

    additions = (faults, lambda_runtime, apigateway, streams, queues, invocations, cloudwatch, athena, firehose, sagemaker)
    for addition in (*additions, stepfunctions, cloudformation):
        addition.install()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sys.setswitchinterval(SWITCH_SECONDS)
    if owner := os.environ.get(OWNER):
        threading.Thread(target=_stop_with, args=(Process.parse(owner),), daemon=True, name="owner").start()
    guarded_app = door.EmulatorDoor(app.app, port=int(os.environ["GATEWAY_PORT"]), tokens=api.OPENAI)
    # uvloop sends what one turn of the event loop has to send by one system call, and a client wakes once.
    config = uvicorn.Config(
        guarded_app,
        host=os.environ["BIND_HOST"],
        port=int(os.environ["GATEWAY_PORT"]),
        http=door.Connection,
        ws="wsproto",  # to refuse them
        loop="uvloop",
        timeout_keep_alive=75,
        backlog=1024,
        log_config=None,
        log_level=os.environ.get("LOG_LEVEL", "INFO").lower(),
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,  # ministack sends one
    )
    server = uvicorn.Server(config)
    server.handle_exit = stop
    server.run()


if __name__ == "__main__":
    main()
