"""The admin API: a tenant's keys, budgets, skills, policies, routes, learning runs, rollouts, audit; and, for the
platform, its tenants.

FastAPI behind Mangum, a router for each resource. Bodies are read by the same `parse` as every other endpoint's, so
errors have the one shape and name the field. Every mutation may be repeated: what has a name is put once under it,
equal policies are one policy, keys, runs and rollouts take an id from the `Idempotency-Key`, and a route is replaced at
`expected_version`.
"""

from collections.abc import Awaitable, Callable

from aws_lambda_powertools import Logger
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from rlaas.api.admin import (
    audit,
    budgets,
    ceilings,
    datasets,
    events,
    keys,
    learning_runs,
    policies,
    prices,
    privacy,
    redrives,
    rollouts,
    routes,
    skills,
    tenants,
    usage,
)
from rlaas.api.admin.call import Access, read_gateway_event
from rlaas.api.admin.services import Services
from rlaas.api.http import Caller, GatewayEvent, error_body, failure_headers, find_status, internal_error_body, request_id
from rlaas.errors import InvalidInput, MethodNotAllowed, NotFound, RlaasError
from rlaas.runtime.log import log_refusal

logger = Logger(service="rlaas")
ROUTERS = tuple(
    resource.router
    for resource in (
        tenants,
        ceilings,
        redrives,
        keys,
        privacy,
        budgets,
        prices,
        usage,
        skills,
        policies,
        routes,
        learning_runs,
        rollouts,
        datasets,
        events,
        audit,
    )
)
"""Every resource's operations."""


def admin_app(services: Callable[[], Services], caller: Callable[[GatewayEvent], Caller]) -> FastAPI:
    """The application; `services` is called once per request, and `caller` says who calls, or raises a refusal."""
    app = FastAPI(title="RLaaS admin API", version="1", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.access = Access(services, caller)
    _map_errors(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


def _map_errors(app: FastAPI) -> None:
    app.add_exception_handler(RlaasError, _answer_refusal)
    app.add_exception_handler(RequestValidationError, _answer_bad_query)
    app.add_exception_handler(HTTPException, _answer_unknown_path)
    app.middleware("http")(_answer_failure)


def _build_refusal(request: Request, error: RlaasError) -> JSONResponse:
    identifier = request_id(read_gateway_event(request))
    log_refusal(error, identifier, status=find_status(error))
    return JSONResponse(error_body(error, identifier), status_code=find_status(error), headers=failure_headers(error))


async def _answer_refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RlaasError)
    return _build_refusal(request, error)


async def _answer_bad_query(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    faults = {str(fault["loc"][-1]): str(fault["msg"]) for fault in error.errors()}
    message = "; ".join(f"{name}: {reason}" for name, reason in faults.items())
    return _build_refusal(request, InvalidInput(message, param=next(iter(faults), None)))


async def _answer_unknown_path(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    routes = (route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute))
    methods = sorted({method for route in routes if route.path_regex.match(request.url.path) for method in route.methods or ()})
    return _build_refusal(request, MethodNotAllowed(methods) if methods else NotFound("there is nothing at this path"))


async def _answer_failure(request: Request, call_next: Callable[[Request], Awaitable[JSONResponse]]) -> JSONResponse:
    identifier = request_id(read_gateway_event(request))
    try:
        response = await call_next(request)
    except Exception as error:
        logger.error("failed", request_id=identifier, error=type(error).__name__, where=_find_place(error))
        response = JSONResponse(internal_error_body(identifier), status_code=500)
    response.headers["X-Request-Id"] = identifier
    return response


def _find_place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
