"""SageMaker on one machine: training and processing jobs and vLLM as supervised processes. Stock ministack has no
SageMaker at all."""

from local.emulator.sagemaker.api import install

__all__ = ["install"]
