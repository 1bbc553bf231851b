"""How a job ends: with its reason where SageMaker looks for one."""

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError
from pydantic import ValidationError

from rlaas.errors import RlaasError
from training_jobs.ml_root import ml_root

REASON_BYTES = 1024
"""What SageMaker shows of a job's words: the first KB of their UTF-8."""


class JobFailed(Exception):
    """The job cannot do what it was asked. Its message says why and what to do, and holds nobody's words."""


def exit_status(job: Callable[[], None]) -> int:
    """Run `job`; 0, or 1 with the reason left for SageMaker and more of it in the log.

    SageMaker shows /opt/ml/output/failure as a training job's FailureReason and /opt/ml/output/message as a processing
    job's ExitMessage (its FailureReason is then the exit status); it reads the one of the two that the kind of job has.
    """
    try:
        job()
    except JobFailed as error:
        print(error, file=sys.stderr)
        _leave(str(error))
    except Exception as error:
        traceback.print_exc()
        _leave(reason(error))
    except SystemExit:
        _leave("the job's arguments are wrong; its log says which")
        raise
    else:
        return 0
    return 1


def reason(error: Exception) -> str:
    """What may be shown of `error` to whoever reads the run. Other people's messages can hold the data: of them, the
    kind and the place."""
    name = type(error).__name__
    if isinstance(error, ValidationError):
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        return f"{name}: " + "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
    if isinstance(error, RlaasError | BotoCoreError | ClientError | OSError):
        return f"{name}: {error}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{name} in {Path(place.filename).name}, line {place.lineno}; the job's log has the rest"


def _leave(text: str) -> None:
    output = ml_root() / "output"
    output.mkdir(parents=True, exist_ok=True)
    for name in ("failure", "message"):
        (output / name).write_bytes(text.encode()[:REASON_BYTES].decode(errors="ignore").encode())
