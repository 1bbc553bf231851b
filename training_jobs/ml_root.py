"""The directory where SageMaker puts a job's inputs and from which it takes the outputs."""

import os
from pathlib import Path


def ml_root() -> Path:
    """`/opt/ml`, or RLAAS_ML_ROOT where several jobs run on one machine."""
    return Path(os.environ.get("RLAAS_ML_ROOT", "/opt/ml"))
