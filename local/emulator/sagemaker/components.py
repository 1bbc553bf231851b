"""Inference components, as the API asks for them: bases, each with a process, and the adapters on them."""

from __future__ import annotations

import time

from local.emulator.children import run_in_background
from local.emulator.sagemaker.errors import ApiError, describe_failure
from local.emulator.sagemaker.hosted import COMPONENTS, ENDPOINTS, MODELS, Component, Endpoint, JsonObject, find, make_arn, make_server
from local.emulator.sagemaker.server import START_SECONDS, Server

PAGE = 10


def create_inference_component(request: JsonObject) -> JsonObject:
    """CreateInferenceComponent: a model of its own, or an adapter on the base component it names."""
    name = request["InferenceComponentName"]
    if name in COMPONENTS:
        raise ApiError(
            "ValidationException", f'Cannot create already existing inference component "{make_arn("inference-component", name)}".'
        )
    endpoint: Endpoint = find(ENDPOINTS, "endpoint", request["EndpointName"])
    if endpoint.record["EndpointStatus"] != "InService":
        raise ApiError("ValidationException", f'Endpoint "{request["EndpointName"]}" is in status {endpoint.record["EndpointStatus"]}')
    specification = request.get("Specification") or {}
    container, base = specification.get("Container") or {}, specification.get("BaseInferenceComponentName")
    now = time.time()
    record: JsonObject = {
        "InferenceComponentName": name,
        "InferenceComponentArn": make_arn("inference-component", name),
        "EndpointName": request["EndpointName"],
        "EndpointArn": endpoint.record["EndpointArn"],
        "VariantName": request.get("VariantName") or endpoint.record["ProductionVariants"][0]["VariantName"],
        "Specification": _describe_specification(specification),
        "RuntimeConfig": {"DesiredCopyCount": (request.get("RuntimeConfig") or {}).get("CopyCount", 1), "CurrentCopyCount": 0},
        "InferenceComponentStatus": "Creating",
        "CreationTime": now,
        "LastModifiedTime": now,
    }
    if base:
        host: Component = find(COMPONENTS, "inference component", base)
        if host.status != "InService" or host.server is None or host.copies == 0:
            state = f"is in status {host.status} with {host.copies} copies"
            raise ApiError("ValidationException", f'Base inference component "{base}" {state}, it must be InService with one at least')
        if not container.get("ArtifactUrl"):
            raise ApiError("ValidationException", "an adapter inference component needs Specification.Container.ArtifactUrl")
        component = Component(record, host.server, base, container["ArtifactUrl"])
    else:
        component = Component(record, _make_server(specification, name))
    COMPONENTS[name] = component
    run_in_background(_start, component, specification, name=f"component-{name}")
    return {"InferenceComponentArn": record["InferenceComponentArn"]}


def update_inference_component(request: JsonObject) -> JsonObject:
    """UpdateInferenceComponent: a base starts anew with the changed specification and gets its adapters back."""
    name = request["InferenceComponentName"]
    component: Component = find(COMPONENTS, "inference component", name)
    if component.base:
        raise ApiError("ValidationException", f"{name} is an adapter: create another instead of changing it")
    if specification := request.get("Specification"):
        old, component.server = component.server, _make_server(specification, name)
        component.record |= {
            "Specification": _describe_specification(specification),
            "InferenceComponentStatus": "Updating",
            "LastModifiedTime": time.time(),
        }
        component.record.pop("FailureReason", None)
        if old:
            old.stop()
        run_in_background(_start, component, specification, name=f"component-{name}")
    return {"InferenceComponentArn": component.record["InferenceComponentArn"]}


def update_inference_component_runtime_config(request: JsonObject) -> JsonObject:
    """UpdateInferenceComponentRuntimeConfig: sets a base's copies; with none its process ends, and when it starts again
    it gets its adapters back."""
    name = request["InferenceComponentName"]
    component: Component = find(COMPONENTS, "inference component", name)
    if component.base:
        raise ApiError("ValidationException", f"{name} is an adapter: it has the copies of its base {component.base}")
    if component.status != "InService":
        raise ApiError("ValidationException", f'Cannot update inference component "{name}" while it is in status {component.status}')
    counts, copies = component.record["RuntimeConfig"], request["DesiredRuntimeConfig"]["CopyCount"]
    counts["DesiredCopyCount"] = copies
    component.record |= {"InferenceComponentStatus": "Updating", "LastModifiedTime": time.time()}
    if copies and not counts["CurrentCopyCount"]:
        run_in_background(_start, component, component.record["Specification"], name=f"component-{name}")
    else:
        counts["CurrentCopyCount"] = copies
        run_in_background(_apply_copies, component, name=f"component-{name}")
    return {"InferenceComponentArn": component.record["InferenceComponentArn"]}


def _apply_copies(component: Component) -> None:
    if not component.copies and component.server:
        component.server.stop()
    component.record |= {"InferenceComponentStatus": "InService", "LastModifiedTime": time.time()}


def _make_server(specification: JsonObject, name: str) -> Server:
    """The process that a base component's specification describes, not yet started."""
    group, container = f"/aws/sagemaker/InferenceComponents/{name}", specification.get("Container") or {}
    environment = container.get("Environment") or {}
    if specification.get("ModelName"):
        return make_server(find(MODELS, "model", specification["ModelName"]), group, name, environment)
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


def _describe_specification(specification: JsonObject) -> JsonObject:
    description = dict(specification)
    if container := dict(description.get("Container") or {}):
        if uri := container.pop("Image", None):
            container["DeployedImage"] = {"SpecifiedImage": uri, "ResolvedImage": uri}
        description["Container"] = container
    return description


def _start(component: Component, specification: JsonObject) -> None:
    name = component.record["InferenceComponentName"]
    seconds = (specification.get("StartupParameters") or {}).get("ContainerStartupHealthCheckTimeoutInSeconds", START_SECONDS)
    assert component.server is not None
    try:
        if component.base and component.artifact:
            component.server.load_adapter(name, component.artifact)
        else:
            component.server.start(seconds)
            for other in list(COMPONENTS.values()):
                if other.base == name and other.artifact:
                    other.server = component.server
                    component.server.load_adapter(other.record["InferenceComponentName"], other.artifact)
        component.record["RuntimeConfig"]["CurrentCopyCount"] = component.record["RuntimeConfig"]["DesiredCopyCount"]
        component.record["InferenceComponentStatus"] = "InService"
    except Exception as problem:
        component.record |= {"InferenceComponentStatus": "Failed", "FailureReason": describe_failure(f"starting {name}", problem)}
    component.record["LastModifiedTime"] = time.time()


def describe_inference_component(request: JsonObject) -> JsonObject:
    """DescribeInferenceComponent."""
    component: Component = find(COMPONENTS, "inference component", request["InferenceComponentName"])
    return component.describe()


def list_inference_components(request: JsonObject) -> JsonObject:
    """ListInferenceComponents, a page of it."""
    keys = ("InferenceComponentName", "InferenceComponentArn", "EndpointName", "EndpointArn", "VariantName", "InferenceComponentStatus")
    records = [
        component.describe()
        for component in COMPONENTS.values()
        if request.get("NameContains", "") in component.record["InferenceComponentName"]
    ]
    if endpoint := request.get("EndpointNameEquals"):
        records = [record for record in records if record["EndpointName"] == endpoint]
    if status := request.get("StatusEquals"):
        records = [record for record in records if record["InferenceComponentStatus"] == status]
    times = ("CreationTime", "LastModifiedTime")
    start, most = int(request.get("NextToken", 0)), request.get("MaxResults", PAGE)
    page = [{key: record[key] for key in (*keys, *times)} for record in records[start : start + most]]
    answer: JsonObject = {"InferenceComponents": page}
    return {**answer, "NextToken": str(start + most)} if start + most < len(records) else answer


def delete_inference_component(request: JsonObject) -> JsonObject:
    """DeleteInferenceComponent: unloads an adapter, stops a base that has no adapters."""
    name = request["InferenceComponentName"]
    component: Component = find(COMPONENTS, "inference component", name)
    if component.status == "Deleting":
        return {}
    adapters = sorted(other.record["InferenceComponentName"] for other in COMPONENTS.values() if other.base == name)
    if adapters:
        raise ApiError("ValidationException", f'Cannot delete base inference component "{name}" with adapters on it: {", ".join(adapters)}')
    status_before = component.status
    component.record |= {"InferenceComponentStatus": "Deleting", "LastModifiedTime": time.time()}
    run_in_background(_remove, name, component, status_before, name=f"delete-{name}")
    return {}


def _remove(name: str, component: Component, status_before: str) -> None:
    try:
        if component.server and component.base is None:
            component.server.stop()
        elif component.server and status_before != "Failed" and component.server.is_running():
            component.server.unload_adapter(name)
        del COMPONENTS[name]
    except Exception as problem:
        component.record |= {"InferenceComponentStatus": "Failed", "FailureReason": describe_failure(f"removing {name}", problem)}
