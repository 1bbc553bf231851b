"""Logs: structured events with ids and without payload text."""

from aws_lambda_powertools.logging import Logger

from rlaas.errors import RlaasError
from rlaas.wire import WireModel

logger = Logger(service="rlaas")
_OUTSIDE_BODIES = frozenset({"Content-Type", "Idempotency-Key", "against", "cursor", "date", "events", "from", "group_by", "limit", "to"})
"""Headers and parameters of queries."""
_DEEPEST = 12


def log_refusal(error: RlaasError, request_id: str, *, status: int) -> None:
    """Log a refusal: the error's type, and the path of the parameter that it names."""
    logger.info("refused", request_id=request_id, error=type(error).__name__, param=mask_path(error.param), status=status)


def mask_path(param: str | None) -> str | None:
    """`param` with `*` for each part that no model declares: the client chose such a part, and it may be personal
    data."""
    if param is None or param in _OUTSIDE_BODIES:
        return param
    names = _list_field_names()
    return ".".join(part if part in names else "*" for part in param.split(".")[:_DEEPEST])


def _list_field_names() -> set[str]:
    """The names and aliases of all fields of all wire models, and `_OUTSIDE_BODIES`."""
    models, names = [WireModel], set(_OUTSIDE_BODIES)
    for model in models:
        models += model.__subclasses__()
        for name, field in model.model_fields.items():
            names |= {name, field.alias or name}
    return names


def list_frames(error: Exception) -> list[str]:
    """The call stack as `file:line`, without the message and the local variables, which may hold payload text."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return places
