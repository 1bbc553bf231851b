"""EventBridge -> Lambda as an asynchronous call: tried three times, then sent to the function's on-failure destination.

Stock ministack (services/eventbridge.py, _dispatch_to_lambda) calls the function once and ignores the result; its calls
with `InvocationType=Event` are retried and sent on, by the code that is used here.
"""

from __future__ import annotations

import json
import logging

from ministack.services import eventbridge, lambda_svc

logger = logging.getLogger("rlaas.invocations")


def dispatch(arn: str, payload: str) -> None:
    """Call the function `arn` with an event, in the background."""
    function, config, name = lambda_svc._get_func_record_for_ref(arn)
    if not function or not config:
        logger.warning("a rule's target, the function %s, does not exist", name)
        return
    lambda_svc.invoke_async_with_retry(lambda_svc._execution_record_for_config(function, config), json.loads(payload))


def install() -> None:
    """Hook in."""
    eventbridge._dispatch_to_lambda = dispatch
