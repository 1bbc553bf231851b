"""What is hosted, by account and region: models, endpoints and their configurations, inference components, model
package groups."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ministack.core import responses

from local.emulator.sagemaker.errors import ApiError, make_not_found
from local.emulator.sagemaker.server import Server

JsonObject = dict[str, Any]


@dataclass
class Component:
    """An inference component: a base with its server, or an adapter on a base's."""

    record: JsonObject
    server: Server | None
    base: str | None = None
    artifact: str | None = None

    @property
    def status(self) -> str:
        """Creating, InService, Deleting or Failed."""
        value: str = self.record["InferenceComponentStatus"]
        return value

    @property
    def copies(self) -> int:
        """How many copies run."""
        value: int = self.record["RuntimeConfig"]["CurrentCopyCount"]
        return value

    def describe(self) -> JsonObject:
        """Its description; its status is Failed once its process has ended by itself."""
        if self.status == "InService" and self.server and (end := self.server.end()):
            self.record |= {"InferenceComponentStatus": "Failed", "FailureReason": end, "LastModifiedTime": time.time()}
        return dict(self.record)


@dataclass
class Endpoint:
    """An endpoint: its description and the servers of variants that name a model."""

    record: JsonObject
    servers: dict[str, Server] = field(default_factory=dict)


MODELS = responses.AccountRegionScopedDict()
CONFIGS = responses.AccountRegionScopedDict()
ENDPOINTS = responses.AccountRegionScopedDict()
COMPONENTS = responses.AccountRegionScopedDict()
GROUPS = responses.AccountRegionScopedDict()


def make_arn(kind: str, name: str) -> str:
    """The ARN of the resource of this name in the request's account and region."""
    return f"arn:aws:sagemaker:{responses.get_region()}:{responses.get_account_id()}:{kind}/{name}"


def find(store: Any, kind: str, name: str) -> Any:
    """The entry of this name in `store`. Raises: ApiError."""
    entry = store.get(name)
    if entry is None:
        raise make_not_found(kind, name)
    return entry


def make_server(model: JsonObject, log_group: str, name: str, environment: dict[str, str]) -> Server:
    """The process that serves a model, not yet started."""
    container = model.get("PrimaryContainer") or model["Containers"][0]
    source = (container.get("ModelDataSource") or {}).get("S3DataSource") or {}
    uri = source.get("S3Uri") or container.get("ModelDataUrl")
    compressed = not source or source.get("CompressionType") == "Gzip"
    return Server(
        image_uri=container["Image"],
        artifacts_uri=uri,
        compressed=compressed,
        environment=(container.get("Environment") or {}) | environment,
        log_group=log_group,
        name=name,
        isolated=bool(model.get("EnableNetworkIsolation")),
    )


def find_target(endpoint_name: str, component_name: str | None) -> tuple[Server, str | None, str]:
    """(the server an invocation goes to, the adapter it asks for, the variant's name).

    Raises: ApiError as InvokeEndpoint does.
    """
    endpoint: Endpoint | None = ENDPOINTS.get(endpoint_name)
    account = responses.get_account_id()
    if endpoint is None:
        raise ApiError("ValidationError", f"Endpoint {endpoint_name} of account {account} not found.")
    if endpoint.record["EndpointStatus"] != "InService":
        raise ApiError(
            "ValidationError", f"Endpoint {endpoint_name} of account {account} is in status {endpoint.record['EndpointStatus']}."
        )
    if component_name is None:
        if not endpoint.servers:
            raise ApiError(
                "ValidationError",
                "Inference Component Name header is required for endpoints to which you plan to deploy inference components.",
            )
        variant, server = next(iter(endpoint.servers.items()))
        return server, None, variant
    component: Component | None = COMPONENTS.get(component_name)
    if component is None or component.record["EndpointName"] != endpoint_name:
        raise ApiError(
            "ValidationError", f"Inference Component {component_name} of endpoint {endpoint_name} of account {account} not found."
        )
    base: Component = COMPONENTS[component.base] if component.base else component
    if base.copies == 0 and base.status in ("InService", "Updating"):
        message = "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if configured)"
        raise ApiError(
            "ValidationError", f"{message} or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
        )
    if component.status != "InService" or component.server is None:
        reason = component.record.get("FailureReason", "")
        raise ApiError("ValidationError", f"Inference Component {component_name} is in status {component.status}. {reason}".strip())
    return component.server, component_name if component.base else None, component.record["VariantName"]


def stop_all() -> None:
    """End every server of every account, before the emulator ends."""
    for endpoint in list(ENDPOINTS._data.values()):
        for server in endpoint.servers.values():
            server.stop()
    for component in list(COMPONENTS._data.values()):
        if component.server and component.base is None:
            component.server.stop()
