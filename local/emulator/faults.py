"""The emulator's own errors in background work: `faults.log` has each with its trace, `local.cloud.read_faults` reads
it.

An exception that nobody catches ends its thread, and stock ministack logs it among all else, so whoever waits for that
work waits for ever. Errors of a request are no faults: its client got an answer.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

REQUEST_LOGGERS = ("ministack", "uvicorn", "asyncio")
"""Loggers of errors in requests, such as a client that left."""
logger = logging.getLogger("rlaas.emulator")


def _is_fault(record: logging.LogRecord) -> bool:
    return bool(record.exc_info) and record.levelno >= logging.ERROR and record.name.partition(".")[0] not in REQUEST_LOGGERS


def _log_end(thread: threading.ExceptHookArgs) -> None:
    if thread.exc_type is not SystemExit and thread.exc_value is not None:
        logger.error("thread %s ended", thread.thread.name if thread.thread else "?", exc_info=thread.exc_value)


def install() -> None:
    """Log every fault from now on."""
    handler = logging.FileHandler(Path(os.environ["RLAAS_LOG_DIR"], "faults.log"), delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.terminator = "\n\n"
    handler.addFilter(_is_fault)
    logging.getLogger().addHandler(handler)
    threading.excepthook = _log_end
