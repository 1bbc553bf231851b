"""Models, endpoints and inference components: each served model is one supervised `serve` process.

The process gets what a SageMaker container gets (PORT 8080 there, a free one here; the model's files under /opt/ml/model; GET /ping, POST
/invocations). Adapters are loaded and unloaded by the container's own LoRA routes (POST /adapters, DELETE /adapters/NAME), and chosen per
request by the header X-Amzn-SageMaker-Adapter-Identifier. No container stands between the process and what else runs here, a browser among
it, so each is given a key that every request must carry (RLAAS_HOSTING_KEY, see containers/vllm/one_door.py).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3
from ministack.core import responses

from local.emulator.children import Child, LogStream, aws_environment, in_background
from local.emulator.sagemaker import artifacts
from local.emulator.sagemaker.errors import REASON_CHARACTERS, ApiError, failure_reason, in_use, not_found
from local.emulator.sagemaker.images import image

START_SECONDS = 900
STOP_SECONDS = 12.0
INVOKE_SECONDS = 60.0
STREAM_SECONDS = 480.0
PING_SECONDS = 0.1
PAGE = 10
ADAPTER_HEADER = "X-Amzn-SageMaker-Adapter-Identifier"
KEY_HEADER = "X-RLAAS-Hosting-Key"
Record = dict[str, Any]

_http = urllib3.PoolManager(maxsize=64, retries=False)


class Server:
    """A `serve` process with one model's files, ready once it answers /ping."""

    def __init__(
        self,
        *,
        image_uri: str,
        artifacts_uri: str | None,
        compressed: bool,
        environment: dict[str, str],
        log_group: str,
        name: str,
        isolated: bool = False,
    ) -> None:
        self.image = image(image_uri)
        if not self.image.serve:
            raise ApiError("ValidationException", f"image {image_uri} has no serve command here")
        self.artifacts_uri, self.compressed, self.environment = artifacts_uri, compressed, environment
        self.log_group, self.name, self.isolated = log_group, name, isolated
        self.root = Path(tempfile.gettempdir()) / "ml" / "hosting" / name
        self.port = 0
        self._key = {KEY_HEADER: secrets.token_urlsafe(24)}
        self._child: Child | None = None

    def start(self, seconds: float) -> None:
        """Fetch the model, start the process, wait until it answers /ping.

        Raises: ApiError with what SageMaker gives as FailureReason.
        """
        shutil.rmtree(self.root, ignore_errors=True)
        model = self.root / "model"
        model.mkdir(parents=True)
        if self.artifacts_uri:
            (artifacts.unpack if self.compressed else artifacts.download)(self.artifacts_uri, model)
        self.port = _free_port()
        given = {
            "PORT": str(self.port),
            "HOST": "127.0.0.1",
            "RLAAS_HOSTING_KEY": self._key[KEY_HEADER],
            "RLAAS_ML_ROOT": str(self.root),
            "SM_MODEL_DIR": str(model),
            "SM_VLLM_MODEL": str(model),
        }
        child = self._child = Child(
            self.image.command(self.image.serve),
            cwd=self.image.cwd,
            environment=aws_environment(isolated=self.isolated) | self.image.env | self.environment | given,
            log_file=Path(os.environ["RLAAS_LOG_DIR"]) / f"endpoint-{self.name}.log",
            stream=LogStream(self.log_group, f"{self.name}/i-local"),
            stop_seconds=STOP_SECONDS,
        )
        deadline = time.monotonic() + seconds
        while not self.answers_ping():
            if child.poll() is not None:
                raise ApiError("ModelError", _last_words(self.name, child))
            if time.monotonic() > deadline:
                self.stop()
                raise ApiError(
                    "ModelError",
                    f"The container for {self.name} did not pass the ping health check in {seconds:.0f} s; see {child.log_file}",
                )
            time.sleep(PING_SECONDS)

    def answers_ping(self) -> bool:
        """Whether GET /ping answers 200."""
        try:
            return _http.request("GET", f"http://127.0.0.1:{self.port}/ping", headers=self._key, timeout=5.0).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def running(self) -> bool:
        """Whether the process is there."""
        return self._child is not None and self._child.poll() is None

    def end(self) -> str | None:
        """How the process ended by itself; None while it runs, and after `stop`."""
        child = self._child
        return _last_words(self.name, child) if child and child.poll() is not None else None

    def stop(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child:
            child.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def load_adapter(self, name: str, uri: str) -> None:
        """Fetch the adapter archive at `uri` and load it as `name`."""
        directory = self.root / "adapters" / name
        artifacts.unpack(uri, directory)
        if not (directory / "adapter_config.json").is_file():
            raise ApiError("ValidationException", f"{uri} has no adapter_config.json at its root")
        body = json.dumps({"name": name, "src": str(directory)})
        answer = self._ask("POST", "/adapters", body)
        if answer.status != 200:
            raise ApiError("ModelError", f"loading adapter {name}: {answer.status} {answer.data.decode(errors='replace')[:600]}")

    def unload_adapter(self, name: str) -> None:
        """Unload the adapter; one that is not loaded is no error."""
        answer = self._ask("DELETE", f"/adapters/{urllib.parse.quote(name, safe='')}", None)
        if answer.status not in (200, 404):
            raise ApiError("ModelError", f"unloading adapter {name}: {answer.status} {answer.data.decode(errors='replace')[:600]}")
        shutil.rmtree(self.root / "adapters" / name, ignore_errors=True)

    def _ask(self, method: str, path: str, body: str | None) -> urllib3.BaseHTTPResponse:
        try:
            return _http.request(
                method,
                f"http://127.0.0.1:{self.port}{path}",
                body=body,
                headers={"Content-Type": "application/json", **self._key},
                timeout=INVOKE_SECONDS,
            )
        except urllib3.exceptions.HTTPError as problem:
            raise ApiError("ModelError", self.end() or f"{method} {path}: {problem}") from problem

    def invoke(self, body: bytes, headers: dict[str, str], *, stream: bool) -> urllib3.BaseHTTPResponse:
        """POST /invocations.

        Raises: ApiError as InvokeEndpoint does: ModelError for the model's own errors, ServiceUnavailable when nobody answers.
        """
        seconds = STREAM_SECONDS if stream else INVOKE_SECONDS
        try:
            answer = _http.request(
                "POST",
                f"http://127.0.0.1:{self.port}/invocations",
                body=body,
                headers={**headers, **self._key},
                timeout=urllib3.Timeout(connect=5.0, read=seconds),
                preload_content=not stream,
            )
        except urllib3.exceptions.ReadTimeoutError as problem:
            waited = "Your invocation timed out while waiting for a response from container primary"
            message = f'Received server error (0) from primary with message "{waited}": {problem}'
            raise ApiError("ModelError", message, 424, OriginalStatusCode=0, OriginalMessage=str(problem), LogStreamArn="") from problem
        except urllib3.exceptions.HTTPError as problem:
            raise ApiError("ServiceUnavailable", self.end() or f"the container of {self.name} does not answer: {problem}", 503) from problem
        if answer.status >= 400:
            original = answer.data.decode(errors="replace")
            side = "client" if answer.status < 500 else "server"
            message = f'Received {side} error ({answer.status}) from primary with message "{original[:800]}". See {self.log_group}.'
            raise ApiError(
                "ModelError", message, 424, OriginalStatusCode=answer.status, OriginalMessage=original, LogStreamArn=self.log_group
            )
        return answer


def _last_words(name: str, child: Child) -> str:
    log = f"; see {child.log_file}"
    tail = " | ".join(list(child.tail)[-8:])
    return f"The container for {name} exited with status {child.poll()}: {tail}"[: REASON_CHARACTERS - len(log)] + log


@dataclass
class Component:
    """An inference component: a base with its server, or an adapter on a base's."""

    record: Record
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

    def described(self) -> Record:
        """Its description now: Failed once the process it lives in has ended by itself."""
        if self.status == "InService" and self.server and (end := self.server.end()):
            self.record |= {"InferenceComponentStatus": "Failed", "FailureReason": end, "LastModifiedTime": time.time()}
        return dict(self.record)


@dataclass
class Endpoint:
    """An endpoint: its description and the servers of variants that name a model."""

    record: Record
    servers: dict[str, Server] = field(default_factory=dict)


_models = responses.AccountRegionScopedDict()
_configs = responses.AccountRegionScopedDict()
_endpoints = responses.AccountRegionScopedDict()
_components = responses.AccountRegionScopedDict()
_groups = responses.AccountRegionScopedDict()


def _arn(kind: str, name: str) -> str:
    return f"arn:aws:sagemaker:{responses.get_region()}:{responses.get_account_id()}:{kind}/{name}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def create_model(request: Record) -> Record:
    """CreateModel."""
    name = request["ModelName"]
    if name in _models:
        raise ApiError("ValidationException", f'Cannot create already existing model "{_arn("model", name)}".')
    container = request.get("PrimaryContainer") or (request.get("Containers") or [None])[0]
    if container is None or "Image" not in container:
        raise ApiError("ValidationException", "a model needs a PrimaryContainer with an Image")
    image(container["Image"])
    _models[name] = {**request, "ModelArn": _arn("model", name), "CreationTime": time.time()}
    return {"ModelArn": _models[name]["ModelArn"]}


def describe_model(request: Record) -> Record:
    """DescribeModel."""
    return dict(_find(_models, "model", request["ModelName"]))


def delete_model(request: Record) -> Record:
    """DeleteModel."""
    _find(_models, "model", request["ModelName"])
    del _models[request["ModelName"]]
    return {}


def create_endpoint_config(request: Record) -> Record:
    """CreateEndpointConfig."""
    name = request["EndpointConfigName"]
    if name in _configs:
        raise ApiError("ValidationException", f'Cannot create already existing endpoint configuration "{_arn("endpoint-config", name)}".')
    for variant in request["ProductionVariants"]:
        if variant.get("ModelName"):
            _find(_models, "model", variant["ModelName"])
        elif not request.get("ExecutionRoleArn"):
            raise ApiError("ValidationException", "ExecutionRoleArn is required when a production variant names no model")
    _configs[name] = {**request, "EndpointConfigArn": _arn("endpoint-config", name), "CreationTime": time.time()}
    return {"EndpointConfigArn": _configs[name]["EndpointConfigArn"]}


def describe_endpoint_config(request: Record) -> Record:
    """DescribeEndpointConfig."""
    return dict(_find(_configs, "endpoint configuration", request["EndpointConfigName"]))


def delete_endpoint_config(request: Record) -> Record:
    """DeleteEndpointConfig."""
    _find(_configs, "endpoint configuration", request["EndpointConfigName"])
    del _configs[request["EndpointConfigName"]]
    return {}


def create_endpoint(request: Record) -> Record:
    """CreateEndpoint: InService once every variant that names a model answers /ping; at once when models come as inference components."""
    name = request["EndpointName"]
    if name in _endpoints:
        raise ApiError("ValidationException", f'Cannot create already existing endpoint "{_arn("endpoint", name)}".')
    config = _find(_configs, "endpoint configuration", request["EndpointConfigName"])
    now = time.time()
    variants = [
        {
            "VariantName": variant["VariantName"],
            "CurrentWeight": variant.get("InitialVariantWeight", 1.0),
            "DesiredWeight": variant.get("InitialVariantWeight", 1.0),
            "CurrentInstanceCount": variant.get("InitialInstanceCount", 1),
            "DesiredInstanceCount": variant.get("InitialInstanceCount", 1),
        }
        for variant in config["ProductionVariants"]
    ]
    record = {
        "EndpointName": name,
        "EndpointArn": _arn("endpoint", name),
        "EndpointConfigName": request["EndpointConfigName"],
        "ProductionVariants": variants,
        "EndpointStatus": "Creating",
        "CreationTime": now,
        "LastModifiedTime": now,
    }
    endpoint = Endpoint(record)
    for variant in config["ProductionVariants"]:
        if variant.get("ModelName"):
            model = _find(_models, "model", variant["ModelName"])
            endpoint.servers[variant["VariantName"]] = _server_of_model(
                model, f"/aws/sagemaker/Endpoints/{name}", f"{name}-{variant['VariantName']}", {}
            )
    _endpoints[name] = endpoint
    if endpoint.servers:
        in_background(_start_endpoint, endpoint, name=f"endpoint-{name}")
    else:
        record["EndpointStatus"] = "InService"
    return {"EndpointArn": record["EndpointArn"]}


def _start_endpoint(endpoint: Endpoint) -> None:
    try:
        for server in endpoint.servers.values():
            server.start(START_SECONDS)
        endpoint.record["EndpointStatus"] = "InService"
    except Exception as problem:
        reason = failure_reason(f"starting endpoint {endpoint.record['EndpointName']}", problem)
        endpoint.record |= {"EndpointStatus": "Failed", "FailureReason": reason}
    endpoint.record["LastModifiedTime"] = time.time()


def describe_endpoint(request: Record) -> Record:
    """DescribeEndpoint."""
    endpoint: Endpoint = _find(_endpoints, "endpoint", request["EndpointName"])
    return dict(endpoint.record)


def update_endpoint(request: Record) -> Record:
    """UpdateEndpoint: takes another configuration; a variant's own model starts anew with it, inference components stay."""
    endpoint: Endpoint = _find(_endpoints, "endpoint", request["EndpointName"])
    config = _find(_configs, "endpoint configuration", request["EndpointConfigName"])
    name = request["EndpointName"]
    old, endpoint.servers = (
        endpoint.servers,
        {
            variant["VariantName"]: _server_of_model(
                _find(_models, "model", variant["ModelName"]), f"/aws/sagemaker/Endpoints/{name}", f"{name}-{variant['VariantName']}", {}
            )
            for variant in config["ProductionVariants"]
            if variant.get("ModelName")
        },
    )
    endpoint.record |= {"EndpointConfigName": request["EndpointConfigName"], "LastModifiedTime": time.time()}
    for server in old.values():
        server.stop()
    if endpoint.servers:
        endpoint.record["EndpointStatus"] = "Updating"
        in_background(_start_endpoint, endpoint, name=f"endpoint-{name}")
    return {"EndpointArn": endpoint.record["EndpointArn"]}


def delete_endpoint(request: Record) -> Record:
    """DeleteEndpoint: when it has no inference components any more."""
    name = request["EndpointName"]
    endpoint: Endpoint = _find(_endpoints, "endpoint", name)
    held = [component.record["InferenceComponentName"] for component in _components.values() if component.record["EndpointName"] == name]
    if held:
        raise ApiError(
            "ValidationException", f'Cannot delete endpoint "{name}" while inference components are on it: {", ".join(sorted(held))}'
        )
    del _endpoints[name]
    for server in endpoint.servers.values():
        server.stop()
    return {}


def list_endpoints(request: Record) -> Record:
    """ListEndpoints."""
    shown = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
    return {
        "Endpoints": [
            {key: endpoint.record[key] for key in shown}
            for endpoint in _endpoints.values()
            if request.get("NameContains", "") in endpoint.record["EndpointName"]
        ]
    }


def create_inference_component(request: Record) -> Record:
    """CreateInferenceComponent: a model of its own, or an adapter on the base component it names."""
    name = request["InferenceComponentName"]
    if name in _components:
        raise ApiError("ValidationException", f'Cannot create already existing inference component "{_arn("inference-component", name)}".')
    endpoint: Endpoint = _find(_endpoints, "endpoint", request["EndpointName"])
    if endpoint.record["EndpointStatus"] != "InService":
        raise ApiError("ValidationException", f'Endpoint "{request["EndpointName"]}" is in status {endpoint.record["EndpointStatus"]}')
    specification = request.get("Specification") or {}
    container, base = specification.get("Container") or {}, specification.get("BaseInferenceComponentName")
    now = time.time()
    record: Record = {
        "InferenceComponentName": name,
        "InferenceComponentArn": _arn("inference-component", name),
        "EndpointName": request["EndpointName"],
        "EndpointArn": endpoint.record["EndpointArn"],
        "VariantName": request.get("VariantName") or endpoint.record["ProductionVariants"][0]["VariantName"],
        "Specification": _described(specification),
        "RuntimeConfig": {"DesiredCopyCount": (request.get("RuntimeConfig") or {}).get("CopyCount", 1), "CurrentCopyCount": 0},
        "InferenceComponentStatus": "Creating",
        "CreationTime": now,
        "LastModifiedTime": now,
    }
    if base:
        host: Component = _find(_components, "inference component", base)
        if host.status != "InService" or host.server is None or host.copies == 0:
            found = f"is in status {host.status} with {host.copies} copies"
            raise ApiError("ValidationException", f'Base inference component "{base}" {found}, it must be InService with one at least')
        if not container.get("ArtifactUrl"):
            raise ApiError("ValidationException", "an adapter inference component needs Specification.Container.ArtifactUrl")
        component = Component(record, host.server, base, container["ArtifactUrl"])
    else:
        component = Component(record, _server_of(specification, name))
    _components[name] = component
    in_background(_start, component, specification, name=f"component-{name}")
    return {"InferenceComponentArn": record["InferenceComponentArn"]}


def update_inference_component(request: Record) -> Record:
    """UpdateInferenceComponent: a base starts anew with the changed specification and gets its adapters back."""
    name = request["InferenceComponentName"]
    component: Component = _find(_components, "inference component", name)
    if component.base:
        raise ApiError("ValidationException", f"{name} is an adapter: create another instead of changing it")
    if specification := request.get("Specification"):
        old, component.server = component.server, _server_of(specification, name)
        component.record |= {
            "Specification": _described(specification),
            "InferenceComponentStatus": "Updating",
            "LastModifiedTime": time.time(),
        }
        component.record.pop("FailureReason", None)
        if old:
            old.stop()
        in_background(_start, component, specification, name=f"component-{name}")
    return {"InferenceComponentArn": component.record["InferenceComponentArn"]}


def update_inference_component_runtime_config(request: Record) -> Record:
    """UpdateInferenceComponentRuntimeConfig: a base's copies; without any its process ends, and from none on it gets its adapters back."""
    name = request["InferenceComponentName"]
    component: Component = _find(_components, "inference component", name)
    if component.base:
        raise ApiError("ValidationException", f"{name} is an adapter: it has the copies of its base {component.base}")
    if component.status != "InService":
        raise ApiError("ValidationException", f'Cannot update inference component "{name}" while it is in status {component.status}')
    counts, copies = component.record["RuntimeConfig"], request["DesiredRuntimeConfig"]["CopyCount"]
    counts["DesiredCopyCount"] = copies
    component.record |= {"InferenceComponentStatus": "Updating", "LastModifiedTime": time.time()}
    if copies and not counts["CurrentCopyCount"]:
        in_background(_start, component, component.record["Specification"], name=f"component-{name}")
    else:
        counts["CurrentCopyCount"] = copies
        in_background(_settle, component, name=f"component-{name}")
    return {"InferenceComponentArn": component.record["InferenceComponentArn"]}


def _settle(component: Component) -> None:
    if not component.copies and component.server:
        component.server.stop()
    component.record |= {"InferenceComponentStatus": "InService", "LastModifiedTime": time.time()}


def _server_of(specification: Record, name: str) -> Server:
    """The process that a base component's specification asks for."""
    group, container = f"/aws/sagemaker/InferenceComponents/{name}", specification.get("Container") or {}
    environment = container.get("Environment") or {}
    if specification.get("ModelName"):
        return _server_of_model(_find(_models, "model", specification["ModelName"]), group, name, environment)
    if not container.get("Image"):
        raise ApiError("ValidationException", "Specification needs ModelName, Container.Image, or BaseInferenceComponentName")
    return Server(
        image_uri=container["Image"],
        artifacts_uri=container.get("ArtifactUrl"),
        compressed=True,
        environment=environment,
        log_group=group,
        name=name,
    )


def _described(specification: Record) -> Record:
    described = dict(specification)
    if container := dict(described.get("Container") or {}):
        if uri := container.pop("Image", None):
            container["DeployedImage"] = {"SpecifiedImage": uri, "ResolvedImage": uri}
        described["Container"] = container
    return described


def _server_of_model(model: Record, log_group: str, name: str, environment: dict[str, str]) -> Server:
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


def _start(component: Component, specification: Record) -> None:
    name = component.record["InferenceComponentName"]
    seconds = (specification.get("StartupParameters") or {}).get("ContainerStartupHealthCheckTimeoutInSeconds", START_SECONDS)
    assert component.server is not None
    try:
        if component.base and component.artifact:
            component.server.load_adapter(name, component.artifact)
        else:
            component.server.start(seconds)
            for other in list(_components.values()):
                if other.base == name and other.artifact:
                    other.server = component.server
                    component.server.load_adapter(other.record["InferenceComponentName"], other.artifact)
        component.record["RuntimeConfig"]["CurrentCopyCount"] = component.record["RuntimeConfig"]["DesiredCopyCount"]
        component.record["InferenceComponentStatus"] = "InService"
    except Exception as problem:
        component.record |= {"InferenceComponentStatus": "Failed", "FailureReason": failure_reason(f"starting {name}", problem)}
    component.record["LastModifiedTime"] = time.time()


def describe_inference_component(request: Record) -> Record:
    """DescribeInferenceComponent."""
    component: Component = _find(_components, "inference component", request["InferenceComponentName"])
    return component.described()


def list_inference_components(request: Record) -> Record:
    """ListInferenceComponents, a page of it."""
    shown = ("InferenceComponentName", "InferenceComponentArn", "EndpointName", "EndpointArn", "VariantName", "InferenceComponentStatus")
    kept = [
        component.described()
        for component in _components.values()
        if request.get("NameContains", "") in component.record["InferenceComponentName"]
    ]
    if endpoint := request.get("EndpointNameEquals"):
        kept = [record for record in kept if record["EndpointName"] == endpoint]
    if status := request.get("StatusEquals"):
        kept = [record for record in kept if record["InferenceComponentStatus"] == status]
    times = ("CreationTime", "LastModifiedTime")
    start, most = int(request.get("NextToken", 0)), request.get("MaxResults", PAGE)
    found: Record = {"InferenceComponents": [{key: record[key] for key in (*shown, *times)} for record in kept[start : start + most]]}
    return {**found, "NextToken": str(start + most)} if start + most < len(kept) else found


def delete_inference_component(request: Record) -> Record:
    """DeleteInferenceComponent: unloads an adapter, stops a base that has no adapters."""
    name = request["InferenceComponentName"]
    component: Component = _find(_components, "inference component", name)
    if component.status == "Deleting":
        return {}
    adapters = sorted(other.record["InferenceComponentName"] for other in _components.values() if other.base == name)
    if adapters:
        raise ApiError("ValidationException", f'Cannot delete base inference component "{name}" with adapters on it: {", ".join(adapters)}')
    was = component.status
    component.record |= {"InferenceComponentStatus": "Deleting", "LastModifiedTime": time.time()}
    in_background(_remove, name, component, was, name=f"delete-{name}")
    return {}


def _remove(name: str, component: Component, was: str) -> None:
    try:
        if component.server and component.base is None:
            component.server.stop()
        elif component.server and was != "Failed" and component.server.running():
            component.server.unload_adapter(name)
        del _components[name]
    except Exception as problem:
        component.record |= {"InferenceComponentStatus": "Failed", "FailureReason": failure_reason(f"removing {name}", problem)}


def create_model_package_group(request: Record) -> Record:
    """CreateModelPackageGroup."""
    name = request["ModelPackageGroupName"]
    if name in _groups:
        raise in_use("Model package group", name)
    arn = _arn("model-package-group", name)
    _groups[name] = {
        **request,
        "ModelPackageGroupArn": arn,
        "ModelPackageGroupStatus": "Completed",
        "CreationTime": time.time(),
        "CreatedBy": {},
    }
    return {"ModelPackageGroupArn": arn}


def describe_model_package_group(request: Record) -> Record:
    """DescribeModelPackageGroup, by name or ARN."""
    return dict(_find(_groups, "model package group", request["ModelPackageGroupName"].rpartition("/")[2]))


def delete_model_package_group(request: Record) -> Record:
    """DeleteModelPackageGroup."""
    describe_model_package_group(request)
    del _groups[request["ModelPackageGroupName"].rpartition("/")[2]]
    return {}


def _find(store: Any, kind: str, name: str) -> Any:
    found = store.get(name)
    if found is None:
        raise not_found(kind, name)
    return found


def target(endpoint_name: str, component_name: str | None) -> tuple[Server, str | None, str]:
    """(the server an invocation goes to, the adapter it asks for, the variant's name).

    Raises: ApiError as InvokeEndpoint does.
    """
    endpoint: Endpoint | None = _endpoints.get(endpoint_name)
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
    component: Component | None = _components.get(component_name)
    if component is None or component.record["EndpointName"] != endpoint_name:
        raise ApiError(
            "ValidationError", f"Inference Component {component_name} of endpoint {endpoint_name} of account {account} not found."
        )
    base: Component = _components[component.base] if component.base else component
    if base.copies == 0 and base.status in ("InService", "Updating"):
        asleep = "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if configured)"
        raise ApiError(
            "ValidationError", f"{asleep} or try to increase the capacity by invoking UpdateInferenceComponentRuntimeConfig API."
        )
    if component.status != "InService" or component.server is None:
        reason = component.record.get("FailureReason", "")
        raise ApiError("ValidationError", f"Inference Component {component_name} is in status {component.status}. {reason}".strip())
    return component.server, component_name if component.base else None, component.record["VariantName"]


def chunks(answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    """The answer's body as it comes."""
    try:
        yield from answer.read_chunked() if answer.headers.get("Transfer-Encoding") == "chunked" else answer.stream(65536)
    finally:
        answer.release_conn()


def stop_all() -> None:
    """End every server of every account; the emulator is going."""
    for endpoint in list(_endpoints._data.values()):
        for server in endpoint.servers.values():
            server.stop()
    for component in list(_components._data.values()):
        if component.server and component.base is None:
            component.server.stop()
