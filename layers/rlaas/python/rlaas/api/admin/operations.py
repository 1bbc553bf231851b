"""What the OpenAPI document says of an operation: the body it takes, and the type of each of its answers.

FastAPI neither reads the body nor checks the answer: `parse` does the one, so that errors are those of every other
endpoint, and a test holds every answer against its type.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import BaseModel

Types = type[BaseModel] | tuple[type[BaseModel], ...]
"""The type of an answer, or the types that it may have."""
_MEANINGS: Mapping[str, str] = {"200": "The document, or the page", "201": "Made", "202": "Started"}


class Operation(dict[str, Any]):
    """An operation's part of the document, with the models that it refers to by name."""

    def __init__(self, body: type[BaseModel] | None, answers: Mapping[str, tuple[type[BaseModel], ...]]) -> None:
        super().__init__(responses={status: _describe_response(status, models) for status, models in answers.items()})
        if body is not None:
            self["requestBody"] = {"required": True, "content": {"application/json": {"schema": _refer_to(body)}}}
        self.body = body
        self.answers = tuple(model for models in answers.values() for model in models)


def operation(body: type[BaseModel] | None = None, *, ok: Types = (), created: Types = (), started: Types = ()) -> dict[str, Any]:
    """What a route is declared with: the `body` it takes, and what it answers with 200, 201 and 202."""
    types = {"200": ok, "201": created, "202": started}
    answers = {status: types if isinstance(types, tuple) else (types,) for status, types in types.items() if types != ()}
    return {"status_code": int(min(answers)), "openapi_extra": Operation(body, answers)}


def list_operations(routers: Iterable[APIRouter]) -> list[Operation]:
    """The operations of `routers`, in their order."""
    routes = (route for router in routers for route in router.routes)
    return [route.openapi_extra for route in routes if isinstance(route, APIRoute) and isinstance(route.openapi_extra, Operation)]


def build_schema(models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    """The schema of an answer that is one of `models`, by their names."""
    references = [_refer_to(model) for model in models]
    return references[0] if len(references) == 1 else {"anyOf": references}


def _describe_response(status: str, models: Sequence[type[BaseModel]]) -> dict[str, Any]:
    return {"description": _MEANINGS[status], "content": {"application/json": {"schema": build_schema(models)}}}


def _refer_to(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
