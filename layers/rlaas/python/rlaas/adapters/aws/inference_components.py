"""A stage's adapters on SageMaker, each an inference component on top of the base model's, and the scaling by which the
base model sleeps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, cast

import boto3
from botocore.exceptions import ClientError

from rlaas.adapters.aws.clients import client, dependency, read_error_code
from rlaas.errors import Conflict
from rlaas.ids import find_adapter_owner, make_base_component_name
from rlaas.learning.adapter_upkeep import LoadedAdapter

if TYPE_CHECKING:
    from types_boto3_sagemaker import SageMakerClient
    from types_boto3_sagemaker.type_defs import InferenceComponentSpecificationTypeDef

_REFUSALS = frozenset({"ValidationException", "ResourceLimitExceeded"})
_THERE, _NOT_THERE = "already existing", "Could not find"
"""Parts of the message when Create meets a name that exists, and when Describe or Delete meet one that does not:
SageMaker has one error code for all refusals."""


class SageMakerAdapters:
    """`Adapters` of one endpoint."""

    def __init__(self, endpoint: str, sagemaker: "SageMakerClient | None" = None) -> None:
        self._endpoint = endpoint
        self._client = sagemaker

    @property
    def _sagemaker(self) -> "SageMakerClient":
        """Made when it is first used: most requests to the admin API need none."""
        return self._client or client("sagemaker")

    def iterate_loaded(self) -> Iterator[LoadedAdapter]:
        """All adapters of the endpoint. Raises: DependencyUnavailable."""
        pages = self._sagemaker.get_paginator("list_inference_components").paginate(
            EndpointNameEquals=self._endpoint, PaginationConfig={"PageSize": 100}
        )
        with dependency("SageMaker"):
            for page in pages:
                for component in page["InferenceComponents"]:
                    name = component["InferenceComponentName"]
                    if find_adapter_owner(name, self._endpoint) is not None:
                        yield LoadedAdapter(name, component.get("InferenceComponentStatus", "Creating"), component["CreationTime"])

    def find(self, name: str) -> LoadedAdapter | None:
        """The adapter `name`; `None` when there is none. Raises: DependencyUnavailable."""
        with dependency("SageMaker"):
            try:
                component = self._sagemaker.describe_inference_component(InferenceComponentName=name)
            except ClientError as error:
                if _NOT_THERE in _message(error):
                    return None
                raise
        status = component.get("InferenceComponentStatus", "Creating")
        return LoadedAdapter(name, status, component["CreationTime"], component.get("FailureReason"))

    def load(self, name: str, artifact_uri: str) -> None:
        """Start to load the adapter, unless it exists. Raises: Conflict if SageMaker refuses, DependencyUnavailable."""
        specification = {"BaseInferenceComponentName": make_base_component_name(self._endpoint), "Container": {"ArtifactUrl": artifact_uri}}
        with self._refusals(f"does not load the adapter {name}", ignore=_THERE):
            self._sagemaker.create_inference_component(
                InferenceComponentName=name,
                EndpointName=self._endpoint,
                Specification=cast("InferenceComponentSpecificationTypeDef", specification),
            )

    def unload(self, name: str) -> None:
        """Start to unload the adapter, if it exists. Raises: Conflict if SageMaker refuses, DependencyUnavailable."""
        with self._refusals(f"does not unload the adapter {name}", ignore=_NOT_THERE):
            self._sagemaker.delete_inference_component(InferenceComponentName=name)

    @staticmethod
    @contextmanager
    def _refusals(what: str, *, ignore: str) -> Iterator[None]:
        """Raise SageMaker's refusals inside as Conflict, except one whose message holds `ignore`: the request had its
        effect before."""
        with dependency("SageMaker"):
            try:
                yield
            except ClientError as error:
                if ignore in _message(error):
                    return
                if read_error_code(error) in _REFUSALS:
                    raise Conflict(f"SageMaker {what}: {_message(error)}") from error
                raise

    def base_is_awake(self) -> bool:
        """Whether a copy of the base model runs. Raises: DependencyUnavailable."""
        with dependency("SageMaker"):
            base = self._sagemaker.describe_inference_component(InferenceComponentName=make_base_component_name(self._endpoint))
        return base.get("RuntimeConfig", {}).get("CurrentCopyCount", 0) > 0


class _Scaling(Protocol):
    def register_scalable_target(self, *, ServiceNamespace: str, ResourceId: str, ScalableDimension: str, MinCapacity: int) -> object: ...


def let_sleep(endpoint: str) -> None:
    """Allow Application Auto Scaling to scale the base model to no copy when nobody asks it. Raises:
    DependencyUnavailable."""
    scaling = cast(_Scaling, boto3.client("application-autoscaling"))
    with dependency("Application Auto Scaling"):
        scaling.register_scalable_target(
            ServiceNamespace="sagemaker",
            ResourceId=f"inference-component/{make_base_component_name(endpoint)}",
            ScalableDimension="sagemaker:inference-component:DesiredCopyCount",
            MinCapacity=0,
        )


def _message(error: ClientError) -> str:
    return f"{read_error_code(error)}: {error.response['Error'].get('Message', '')}"
