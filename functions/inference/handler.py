"""Answers: `/v1/infer`."""

from collections.abc import Mapping

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from rlaas.inference.infer import InferRequest
from rlaas.runtime.answering import answered
from rlaas.runtime.api import answer, api
from rlaas.runtime.environment import EventsEnvironment, environment
from rlaas.runtime.http import caller, header, parse
from rlaas.tenancy.keys import require_scope

app = api()


@app.post("/v1/infer")
def native() -> Response[str]:
    """The skill's inputs in, the draft and its decision out."""
    event = app.current_event.raw_event
    who = caller(event)
    require_scope(who.scopes, "infer")
    result = answered(
        parse(InferRequest, event), who, settings=environment(EventsEnvironment), idempotency_key=header(event, "Idempotency-Key")
    )
    return answer(
        200,
        {
            "interaction_id": result.interaction_id,
            "output_id": result.output_id,
            "text": result.text,
            "policy_id": result.policy_id,
            "decision": result.decision.model_dump(mode="json"),
            "usage": result.usage.model_dump() if result.usage else None,
            "finish_reason": result.finish_reason,
            "latency_ms": result.latency_ms,
            "idempotent_replay": result.replay,
        },
    )


def handler(event: Mapping[str, object], context: LambdaContext) -> dict[str, object]:
    """The Lambda entry point."""
    return app.resolve(dict(event), context)
