"""A stage's adapters on SageMaker, each an inference component beside the base model's, and the base's leave to
sleep."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, cast

import boto3
from botocore.exceptions import ClientError

from rlaas.adapters.aws.clients import client, dependency, error_code
from rlaas.errors import Conflict
from rlaas.ids import adapters_owner, base_component
from rlaas.learning.adapter_upkeep import Loaded

if TYPE_CHECKING:
    from types_boto3_sagemaker import SageMakerClient
    from types_boto3_sagemaker.type_defs import InferenceComponentSpecificationTypeDef

_REFUSALS = frozenset({"ValidationException", "ResourceLimitExceeded"})
_THERE, _NOT_THERE = "already existing", "Could not find"
"""What Create says of a name that is taken, Describe and Delete of one that is not there, under the code they have for
all refusals."""


class SageMakerAdapters:
    """`Adapters` of one endpoint."""

    def __init__(self, endpoint: str, sagemaker: "SageMakerClient | None" = None) -> None:
        self._endpoint = endpoint
        self._given = sagemaker

    @property
    def _sagemaker(self) -> "SageMakerClient":
        """Made when first asked: most calls of a process that changes routes need none."""
        return self._given or client("sagemaker")

    def all(self) -> Iterator[Loaded]:
        """All of them. Raises: DependencyUnavailable."""
        pages = self._sagemaker.get_paginator("list_inference_components").paginate(
            EndpointNameEquals=self._endpoint, PaginationConfig={"PageSize": 100}
        )
        with dependency("SageMaker"):
            for page in pages:
                for found in page["InferenceComponents"]:
                    name = found["InferenceComponentName"]
                    if adapters_owner(name, self._endpoint) is not None:
                        yield Loaded(name, found.get("InferenceComponentStatus", "Creating"), found["CreationTime"])

    def find(self, name: str) -> Loaded | None:
        """One of them; `None` when there is none. Raises: DependencyUnavailable."""
        with dependency("SageMaker"):
            try:
                found = self._sagemaker.describe_inference_component(InferenceComponentName=name)
            except ClientError as error:
                if _NOT_THERE in _message(error):
                    return None
                raise
        return Loaded(name, found.get("InferenceComponentStatus", "Creating"), found["CreationTime"], found.get("FailureReason"))

    def load(self, name: str, artifact_uri: str) -> None:
        """Begin to load one. Raises: Conflict, DependencyUnavailable."""
        specification = {"BaseInferenceComponentName": base_component(self._endpoint), "Container": {"ArtifactUrl": artifact_uri}}
        with self._asked(f"does not load the adapter {name}", fine=_THERE):
            self._sagemaker.create_inference_component(
                InferenceComponentName=name,
                EndpointName=self._endpoint,
                Specification=cast("InferenceComponentSpecificationTypeDef", specification),
            )

    def unload(self, name: str) -> None:
        """Begin to unload one. Raises: Conflict, DependencyUnavailable."""
        with self._asked(f"does not unload the adapter {name}", fine=_NOT_THERE):
            self._sagemaker.delete_inference_component(InferenceComponentName=name)

    @staticmethod
    @contextmanager
    def _asked(what: str, *, fine: str) -> Iterator[None]:
        """Whatever is asked inside may be asked again: a refusal that says `fine` is none."""
        with dependency("SageMaker"):
            try:
                yield
            except ClientError as error:
                if fine in _message(error):
                    return
                if error_code(error) in _REFUSALS:
                    raise Conflict(f"SageMaker {what}: {_message(error)}") from error
                raise

    def base_is_awake(self) -> bool:
        """Whether a copy of the base runs. Raises: DependencyUnavailable."""
        with dependency("SageMaker"):
            base = self._sagemaker.describe_inference_component(InferenceComponentName=base_component(self._endpoint))
        return base.get("RuntimeConfig", {}).get("CurrentCopyCount", 0) > 0


class _Scaling(Protocol):
    def register_scalable_target(self, *, ServiceNamespace: str, ResourceId: str, ScalableDimension: str, MinCapacity: int) -> object: ...


def let_sleep(endpoint: str) -> None:
    """Have Application Auto Scaling take the base down to no copy again when nobody asks it. Raises:
    DependencyUnavailable."""
    scaling = cast(_Scaling, boto3.client("application-autoscaling"))
    with dependency("Application Auto Scaling"):
        scaling.register_scalable_target(
            ServiceNamespace="sagemaker",
            ResourceId=f"inference-component/{base_component(endpoint)}",
            ScalableDimension="sagemaker:inference-component:DesiredCopyCount",
            MinCapacity=0,
        )


def _message(error: ClientError) -> str:
    return f"{error_code(error)}: {error.response['Error'].get('Message', '')}"
