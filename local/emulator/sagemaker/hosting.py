"""Models, endpoints and their configurations, and model package groups, as the API asks for them."""

from __future__ import annotations

import time

from local.emulator.children import run_in_background
from local.emulator.sagemaker.errors import ApiError, describe_failure, make_in_use
from local.emulator.sagemaker.hosted import (
    COMPONENTS,
    CONFIGS,
    ENDPOINTS,
    GROUPS,
    MODELS,
    Endpoint,
    JsonObject,
    find,
    make_arn,
    make_server,
)
from local.emulator.sagemaker.images import image
from local.emulator.sagemaker.server import START_SECONDS


def create_model(request: JsonObject) -> JsonObject:
    """CreateModel."""
    name = request["ModelName"]
    if name in MODELS:
        raise ApiError("ValidationException", f'Cannot create already existing model "{make_arn("model", name)}".')
    container = request.get("PrimaryContainer") or (request.get("Containers") or [None])[0]
    if container is None or "Image" not in container:
        raise ApiError("ValidationException", "a model needs a PrimaryContainer with an Image")
    image(container["Image"])
    MODELS[name] = {**request, "ModelArn": make_arn("model", name), "CreationTime": time.time()}
    return {"ModelArn": MODELS[name]["ModelArn"]}


def describe_model(request: JsonObject) -> JsonObject:
    """DescribeModel."""
    return dict(find(MODELS, "model", request["ModelName"]))


def delete_model(request: JsonObject) -> JsonObject:
    """DeleteModel."""
    find(MODELS, "model", request["ModelName"])
    del MODELS[request["ModelName"]]
    return {}


def create_endpoint_config(request: JsonObject) -> JsonObject:
    """CreateEndpointConfig."""
    name = request["EndpointConfigName"]
    if name in CONFIGS:
        raise ApiError(
            "ValidationException", f'Cannot create already existing endpoint configuration "{make_arn("endpoint-config", name)}".'
        )
    for variant in request["ProductionVariants"]:
        if variant.get("ModelName"):
            find(MODELS, "model", variant["ModelName"])
        elif not request.get("ExecutionRoleArn"):
            raise ApiError("ValidationException", "ExecutionRoleArn is required when a production variant names no model")
    CONFIGS[name] = {**request, "EndpointConfigArn": make_arn("endpoint-config", name), "CreationTime": time.time()}
    return {"EndpointConfigArn": CONFIGS[name]["EndpointConfigArn"]}


def describe_endpoint_config(request: JsonObject) -> JsonObject:
    """DescribeEndpointConfig."""
    return dict(find(CONFIGS, "endpoint configuration", request["EndpointConfigName"]))


def delete_endpoint_config(request: JsonObject) -> JsonObject:
    """DeleteEndpointConfig."""
    find(CONFIGS, "endpoint configuration", request["EndpointConfigName"])
    del CONFIGS[request["EndpointConfigName"]]
    return {}


def create_endpoint(request: JsonObject) -> JsonObject:
    """CreateEndpoint: InService once every variant that names a model answers /ping; at once when models come as
    inference components."""
    name = request["EndpointName"]
    if name in ENDPOINTS:
        raise ApiError("ValidationException", f'Cannot create already existing endpoint "{make_arn("endpoint", name)}".')
    config = find(CONFIGS, "endpoint configuration", request["EndpointConfigName"])
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
        "EndpointArn": make_arn("endpoint", name),
        "EndpointConfigName": request["EndpointConfigName"],
        "ProductionVariants": variants,
        "EndpointStatus": "Creating",
        "CreationTime": now,
        "LastModifiedTime": now,
    }
    endpoint = Endpoint(record)
    for variant in config["ProductionVariants"]:
        if variant.get("ModelName"):
            model = find(MODELS, "model", variant["ModelName"])
            endpoint.servers[variant["VariantName"]] = make_server(
                model, f"/aws/sagemaker/Endpoints/{name}", f"{name}-{variant['VariantName']}", {}
            )
    ENDPOINTS[name] = endpoint
    if endpoint.servers:
        run_in_background(_start_endpoint, endpoint, name=f"endpoint-{name}")
    else:
        record["EndpointStatus"] = "InService"
    return {"EndpointArn": record["EndpointArn"]}


def _start_endpoint(endpoint: Endpoint) -> None:
    try:
        for server in endpoint.servers.values():
            server.start(START_SECONDS)
        endpoint.record["EndpointStatus"] = "InService"
    except Exception as problem:
        reason = describe_failure(f"starting endpoint {endpoint.record['EndpointName']}", problem)
        endpoint.record |= {"EndpointStatus": "Failed", "FailureReason": reason}
    endpoint.record["LastModifiedTime"] = time.time()


def describe_endpoint(request: JsonObject) -> JsonObject:
    """DescribeEndpoint."""
    endpoint: Endpoint = find(ENDPOINTS, "endpoint", request["EndpointName"])
    return dict(endpoint.record)


def update_endpoint(request: JsonObject) -> JsonObject:
    """UpdateEndpoint: takes another configuration; a variant's own model starts anew with it, inference components
    stay."""
    endpoint: Endpoint = find(ENDPOINTS, "endpoint", request["EndpointName"])
    config = find(CONFIGS, "endpoint configuration", request["EndpointConfigName"])
    name = request["EndpointName"]
    old, endpoint.servers = (
        endpoint.servers,
        {
            variant["VariantName"]: make_server(
                find(MODELS, "model", variant["ModelName"]), f"/aws/sagemaker/Endpoints/{name}", f"{name}-{variant['VariantName']}", {}
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
        run_in_background(_start_endpoint, endpoint, name=f"endpoint-{name}")
    return {"EndpointArn": endpoint.record["EndpointArn"]}


def delete_endpoint(request: JsonObject) -> JsonObject:
    """DeleteEndpoint: when it has no inference components any more."""
    name = request["EndpointName"]
    endpoint: Endpoint = find(ENDPOINTS, "endpoint", name)
    names = [component.record["InferenceComponentName"] for component in COMPONENTS.values() if component.record["EndpointName"] == name]
    if names:
        raise ApiError(
            "ValidationException", f'Cannot delete endpoint "{name}" while inference components are on it: {", ".join(sorted(names))}'
        )
    del ENDPOINTS[name]
    for server in endpoint.servers.values():
        server.stop()
    return {}


def list_endpoints(request: JsonObject) -> JsonObject:
    """ListEndpoints."""
    keys = ("EndpointName", "EndpointArn", "CreationTime", "LastModifiedTime", "EndpointStatus")
    return {
        "Endpoints": [
            {key: endpoint.record[key] for key in keys}
            for endpoint in ENDPOINTS.values()
            if request.get("NameContains", "") in endpoint.record["EndpointName"]
        ]
    }


def create_model_package_group(request: JsonObject) -> JsonObject:
    """CreateModelPackageGroup."""
    name = request["ModelPackageGroupName"]
    if name in GROUPS:
        raise make_in_use("Model package group", name)
    arn = make_arn("model-package-group", name)
    GROUPS[name] = {
        **request,
        "ModelPackageGroupArn": arn,
        "ModelPackageGroupStatus": "Completed",
        "CreationTime": time.time(),
        "CreatedBy": {},
    }
    return {"ModelPackageGroupArn": arn}


def describe_model_package_group(request: JsonObject) -> JsonObject:
    """DescribeModelPackageGroup, by name or ARN."""
    return dict(find(GROUPS, "model package group", request["ModelPackageGroupName"].rpartition("/")[2]))


def delete_model_package_group(request: JsonObject) -> JsonObject:
    """DeleteModelPackageGroup."""
    describe_model_package_group(request)
    del GROUPS[request["ModelPackageGroupName"].rpartition("/")[2]]
    return {}
