"""Run a job to its end, and leave the reason of a failure where SageMaker looks for it."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from rlaas.errors import RlaasError
from training_jobs.ml_root import ml_root

REASON_BYTES = 1024
"""The bytes of a reason that SageMaker shows: the first KB of its UTF-8."""


class JobFailed(Exception):
    """The job cannot do its work. The message says why and what to do, and contains no text of users."""


def run_job(job: Callable[[], None]) -> int:
    """Run `job` and return the exit status: 0, or 1 after writing the reason for SageMaker and more of it to the log.

    SageMaker shows /opt/ml/output/failure as a training job's FailureReason, and /opt/ml/output/message as a processing
    job's ExitMessage (whose FailureReason is then the exit status). Both are written; SageMaker reads the one it needs.

    Raises: SystemExit when `job` does, for wrong arguments.
    """
    try:
        job()
    except JobFailed as error:
        print(error, file=sys.stderr)
        _write_reason(str(error))
    except Exception as error:
        traceback.print_exc()
        _write_reason(explain_error(error))
    except SystemExit:
        _write_reason("the job's arguments are wrong; its log says which")
        raise
    else:
        return 0
    return 1


def explain_error(error: Exception) -> str:
    """The part of `error` that readers of the run may see. Messages of other libraries can contain the data, so for
    those it is only the error's type and place."""
    name = type(error).__name__
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        return f"{name}: " + "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
    if isinstance(error, RlaasError | BotoCoreError | ClientError | OSError):
        return f"{name}: {error}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{name} in {Path(place.filename).name}, line {place.lineno}; the job's log has the rest"


def _write_reason(text: str) -> None:
    output = ml_root() / "output"
    output.mkdir(parents=True, exist_ok=True)
    for name in ("failure", "message"):
        (output / name).write_bytes(text.encode()[:REASON_BYTES].decode(errors="ignore").encode())
