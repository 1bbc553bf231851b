"""Answers from a SageMaker endpoint: the OpenAI chat body to the base model or to an adapter's inference component."""

import json
from functools import cache
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from pydantic import BaseModel, ValidationError

from rlaas.aws.clients import dependency
from rlaas.errors import DependencyUnavailable
from rlaas.inference.backend import Completion
from rlaas.routing.policy import SageMakerBackend, Sampling
from rlaas.telemetry.events import Message, Usage

if TYPE_CHECKING:
    from types_boto3_sagemaker_runtime import SageMakerRuntimeClient


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _ChatCompletion(BaseModel):
    choices: list[_Choice]
    usage: _Usage


class SageMakerEndpoints:
    """`Backend` by InvokeEndpoint. One attempt a call: the fallback to the control is the retry."""

    def complete(self, backend: SageMakerBackend, messages: tuple[Message, ...], sampling: Sampling, *, timeout_s: float) -> Completion:
        """The model's answer. Raises: DependencyUnavailable when the endpoint fails, is late or answers nonsense."""
        body = {
            "messages": [message.model_dump() for message in messages],
            **sampling.model_dump(exclude_none=True),
        }
        with dependency("the model endpoint"):
            answer = _runtime(timeout_s).invoke_endpoint(
                EndpointName=backend.endpoint,
                ContentType="application/json",
                Body=json.dumps(body),
                **({"InferenceComponentName": backend.component} if backend.component else {}),
            )
            text = answer["Body"].read()
        try:
            completion = _ChatCompletion.model_validate_json(text)
            choice = completion.choices[0]
        except (ValidationError, IndexError) as error:
            raise DependencyUnavailable("the model endpoint's answer is not a chat completion") from error
        usage = Usage(input_tokens=completion.usage.prompt_tokens, output_tokens=completion.usage.completion_tokens)
        return Completion(text=choice.message.content, usage=usage, finish_reason=choice.finish_reason)


@cache
def _runtime(timeout_s: float) -> "SageMakerRuntimeClient":
    config = Config(connect_timeout=1, read_timeout=timeout_s, retries={"total_max_attempts": 1}, max_pool_connections=50)
    runtime: SageMakerRuntimeClient = boto3.client("sagemaker-runtime", config=config)
    return runtime
