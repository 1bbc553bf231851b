"""Where SageMaker puts a job's inputs and takes its outputs from."""

import os
from pathlib import Path


def ml_root() -> Path:
    """`/opt/ml`, or what RLAAS_ML_ROOT says where jobs of one machine run side by side."""
    return Path(os.environ.get("RLAAS_ML_ROOT", "/opt/ml"))
