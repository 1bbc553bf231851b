"""Resource types that stock ministack's CloudFormation refuses: SageMaker's, EventBridge archives, a web ACL's
association.

Each handler calls the service's own API, so that the template and boto3 cannot disagree, and waits for what
CloudFormation waits for (an endpoint in service).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from ministack.services import eventbridge, stepfunctions, waf
from ministack.services.cloudformation import provisioners, stacks

from local.emulator.sagemaker import api
from local.emulator.sagemaker.errors import ApiError

Properties = dict[str, Any]
Created = tuple[str, dict[str, str]]
WAIT_SECONDS = 1200.0


def _call(operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return api.call(operation, {key: value for key, value in request.items() if key != "Tags" or value})
    except ApiError as problem:
        raise ValueError(f"{problem.message} (Service: SageMaker, Status Code: {problem.status}, Error Code: {problem.code})") from problem


def _wait_until_in_service(operation: str, name_property: str, name: str, status: str) -> None:
    """Wait until the resource is in service, at most WAIT_SECONDS.

    Raises: ValueError with its FailureReason.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        description = _call(operation, {name_property: name})
        if description[status] == "InService":
            return
        if description[status] == "Failed" or time.monotonic() > deadline:
            raise ValueError(f"{name} is {description[status]}: {description.get('FailureReason', 'not in service in time')}")
        time.sleep(0.1)


def _wait_until_gone(operation: str, request: Mapping[str, Any], status: str | None) -> None:
    """Wait until Describe no longer finds the resource; one without a status is gone at once.

    Raises: ValueError with its FailureReason when it cannot be deleted.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            description = api.call(operation, dict(request))
        except ApiError:
            return
        if (status and description[status] == "Failed") or time.monotonic() > deadline:
            raise ValueError(f"{request} is still there: {description.get('FailureReason', 'not deleted in time')}")
        time.sleep(0.05)


def _sagemaker(kind: str, *, wait: str | None = None) -> dict[str, Any]:
    """Handlers of AWS::SageMaker::<kind>; `wait` names the status to wait for."""
    name_property, arn_property = f"{kind}Name", f"{kind}Arn"

    def choose_name(logical_id: str, properties: Properties, stack_name: str) -> str:
        """The template's name, or one that changes with the content, so that a changed model or configuration is a new
        resource, as on AWS."""
        if properties.get(name_property):
            return str(properties[name_property])
        digest = hashlib.sha256(json.dumps(properties, sort_keys=True).encode()).hexdigest()[:8]
        return f"{provisioners._physical_name(stack_name, logical_id, max_len=54)}-{digest}"

    def create(logical_id: str, properties: Properties, stack_name: str) -> Created:
        name = choose_name(logical_id, properties, stack_name)
        parameters = {key: value for key, value in properties.items() if key in api.find_input_shape(f"Create{kind}").members}
        arn = _call(f"Create{kind}", {**parameters, name_property: name})[arn_property]
        if wait:
            try:
                _wait_until_in_service(f"Describe{kind}", name_property, name, wait)
            except ValueError:
                delete(name, properties)  # a create that fails leaves nothing, so that the rollback can delete what it stands on
                raise
        return (name if kind == "ModelPackageGroup" else arn), {name_property: name, arn_property: arn}

    def delete(physical_id: str, properties: Properties) -> None:
        name = physical_id.rpartition("/")[2]
        try:
            api.call(f"Delete{kind}", {name_property: name})
        except ApiError as problem:
            if problem.message.startswith("Could not find"):
                return
            raise ValueError(problem.message) from problem
        _wait_until_gone(f"Describe{kind}", {name_property: name}, wait)

    def update(physical_id: str, old: Properties, new: Properties, stack_name: str, logical_id: str | None = None) -> Created:
        if not wait:
            new_resource = create(logical_id or physical_id, new, stack_name)
            delete(physical_id, old)
            return new_resource
        name = physical_id.rpartition("/")[2]
        parameters = {key: value for key, value in new.items() if key in api.find_input_shape(f"Update{kind}").members}
        arn = _call(f"Update{kind}", {**parameters, name_property: name})[arn_property]
        _wait_until_in_service(f"Describe{kind}", name_property, name, wait)
        return arn, {name_property: name, arn_property: arn}

    return {"create": create, "delete": delete, "update": update, "update_with_logical_id": True}


def _archive_create(logical_id: str, properties: Properties, stack_name: str) -> Created:
    name = properties.get("ArchiveName") or provisioners._physical_name(stack_name, logical_id, max_len=48)
    request = {**properties, "ArchiveName": name, "EventSourceArn": properties["SourceArn"]}
    if isinstance(request.get("EventPattern"), dict):
        request["EventPattern"] = json.dumps(request["EventPattern"])
    status, _, body = eventbridge._create_archive(request)
    if status >= 400:
        raise ValueError(json.loads(body)["message"])
    return name, {"Arn": json.loads(body)["ArchiveArn"], "ArchiveName": name}


def _archive_delete(physical_id: str, properties: Properties) -> None:
    eventbridge._delete_archive({"ArchiveName": physical_id})


def _association_create(logical_id: str, properties: Properties, stack_name: str) -> Created:
    status, _, body = waf._associate_web_acl(properties)
    if status >= 400:
        raise ValueError(body.decode())
    return f"{properties['WebACLArn']}|{properties['ResourceArn']}", {}


def _association_delete(physical_id: str, properties: Properties) -> None:
    waf._disassociate_web_acl({"ResourceArn": physical_id.partition("|")[2]})


def _camel(value: Any) -> Any:
    """A template's value with its keys as Step Functions' API spells them."""
    if isinstance(value, dict):
        return {key[:1].lower() + key[1:]: _camel(inner) for key, inner in value.items()}
    return [_camel(inner) for inner in value] if isinstance(value, list) else value


def _with_logging(provision: Callable[..., Created]) -> Callable[..., Created]:
    """CloudFormation's create or update of a state machine, with a LoggingConfiguration that DescribeStateMachine can
    answer: stock keeps the template's spelling."""

    def provision_with_logging(*arguments: Any) -> Created:
        arn, attributes = provision(*arguments)
        machine = stepfunctions._state_machines[arn]
        machine["loggingConfiguration"] = _camel(machine["loggingConfiguration"])
        return arn, attributes

    return provision_with_logging


def _runs_on_worker_thread(resource_type: str) -> bool:
    """Whether creating the type takes a thread of its own. Stock runs a create on the event loop unless it knows the
    type to be slow; an endpoint would block everything until it is up."""
    return resource_type.startswith("AWS::SageMaker::") or bool(_stock_on_worker_thread(resource_type))


_stock_on_worker_thread = stacks._runs_on_worker_thread


def install() -> None:
    """Hook in."""
    handlers = provisioners._RESOURCE_HANDLERS
    for kind, wait in (
        ("Model", None),
        ("EndpointConfig", None),
        ("Endpoint", "EndpointStatus"),
        ("InferenceComponent", "InferenceComponentStatus"),
        ("ModelPackageGroup", None),
    ):
        handlers[f"AWS::SageMaker::{kind}"] = _sagemaker(kind, wait=wait)
    handlers["AWS::Events::Archive"] = {"create": _archive_create, "delete": _archive_delete}
    handlers["AWS::WAFv2::WebACLAssociation"] = {"create": _association_create, "delete": _association_delete}
    machine = handlers["AWS::StepFunctions::StateMachine"]
    machine |= {way: _with_logging(machine[way]) for way in ("create", "update")}
    stacks._runs_on_worker_thread = _runs_on_worker_thread
