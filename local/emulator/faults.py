"""Errors of the emulator's own in what goes on in the background: `faults.log` has each with its trace,
`local.cloud.faults` reads it.

An exception that nobody catches ends its thread, and stock ministack logs its own among all else: who waits for that
work waits on. Errors of a request are no faults: whoever asked was answered.
"""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

ANSWERED = ("ministack", "hypercorn", "asyncio")
"""Loggers of what goes wrong with a request, a caller who left among it."""
logger = logging.getLogger("rlaas.emulator")


def _is_fault(record: logging.LogRecord) -> bool:
    return bool(record.exc_info) and record.levelno >= logging.ERROR and record.name.partition(".")[0] not in ANSWERED


def _ended(thread: threading.ExceptHookArgs) -> None:
    if thread.exc_type is not SystemExit and thread.exc_value is not None:
        logger.error("thread %s ended", thread.thread.name if thread.thread else "?", exc_info=thread.exc_value)


def install() -> None:
    """Keep every fault from now on."""
    handler = logging.FileHandler(Path(os.environ["RLAAS_LOG_DIR"], "faults.log"), delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.terminator = "\n\n"
    handler.addFilter(_is_fault)
    logging.getLogger().addHandler(handler)
    threading.excepthook = _ended
