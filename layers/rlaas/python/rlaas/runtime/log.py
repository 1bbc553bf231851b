"""Logs: structured events that hold ids and never payload text."""

from aws_lambda_powertools.logging import Logger

logger = Logger(service="rlaas")


def where(error: Exception) -> list[str]:
    """The call stack as file:line, without the message or the locals, which may hold payload text."""
    places = []
    trace = error.__traceback__
    while trace is not None:
        places.append(f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}")
        trace = trace.tb_next
    return places
