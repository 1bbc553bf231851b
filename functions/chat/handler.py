"""OpenAI's `/v1/chat/completions` and `/v1/responses` and Anthropic's `/v1/messages`, whole or streamed: a web server
behind Lambda Web Adapter, started by run.sh."""

import os

from rlaas.api import web
from rlaas.api.admission import admit_caller
from rlaas.api.answering import answer_request, stream_request
from rlaas.api.anthropic_errors import anthropic_failure
from rlaas.api.http import Body, GatewayEvent, header, parse
from rlaas.api.model_names import model_not_found
from rlaas.clock import utc_now
from rlaas.inference.chat_completion_chunks import chunks
from rlaas.inference.chat_completions import ChatRequest, to_completion, to_infer
from rlaas.inference.message_events import events
from rlaas.inference.messages import CountRequest, MessagesRequest, build_infer_request, count_tokens, to_message
from rlaas.inference.response_events import failure_event, response_events
from rlaas.inference.responses import INCOMPLETE, ResponsesRequest, describe, in_own_words, to_response
from rlaas.inference.responses import to_infer as response_to_infer
from rlaas.inference.skill_request import extras
from rlaas.runtime.stage import current_stage
from rlaas.tenancy.keys import require_scope


def chat(event: GatewayEvent) -> Body | web.Stream:
    """Answer one request of an OpenAI client. Raises: RlaasError."""
    who = admit_caller(event)
    require_scope(who.scopes, "infer")
    request, stage = parse(ChatRequest, event), current_stage()
    key, trace = header(event, "Idempotency-Key"), header(event, "traceparent")
    with model_not_found(who, stage):
        if not request.stream:
            answer = answer_request(to_infer(request), who, stage=stage, idempotency_key=key, traceparent=trace)
            return to_completion(request, answer, created=utc_now())
        stream = stream_request(to_infer(request), who, stage=stage, idempotency_key=key, traceparent=trace)
    return chunks(
        stream.deltas,
        completion_id=stream.output_id,
        model=request.model,
        created=utc_now(),
        include_usage=request.include_usage,
        extras=extras(stream),
    )


def responses(event: GatewayEvent) -> Body | web.Stream:
    """One request of a client of OpenAI's Responses API."""
    who = admit_caller(event)
    require_scope(who.scopes, "infer")
    request, stage, created = parse(ResponsesRequest, event), current_stage(), utc_now()
    key, trace = header(event, "Idempotency-Key"), header(event, "traceparent")
    with model_not_found(who, stage), in_own_words():
        question = response_to_infer(request, who.tenant_id, stage.events, stage.scrubbers.of(who.tenant_id))
        if not request.stream:
            answer = answer_request(question, who, stage=stage, idempotency_key=key, traceparent=trace)
            return to_response(request, answer, created=created)
        stream = stream_request(question, who, stage=stage, idempotency_key=key, traceparent=trace)
    own = extras(stream)
    return response_events(
        stream.deltas,
        output_id=stream.output_id,
        describe=lambda items, usage, reason: {**describe(request, stream.output_id, items, usage, reason, created=created), **own},
        incomplete=INCOMPLETE,
    )


def messages(event: GatewayEvent) -> Body | web.Stream:
    """One request of an Anthropic client."""
    who = admit_caller(event)
    require_scope(who.scopes, "infer")
    request, stage = parse(MessagesRequest, event), current_stage()
    key, trace = header(event, "Idempotency-Key"), header(event, "traceparent")
    with model_not_found(who, stage):
        if not request.stream:
            answer = answer_request(build_infer_request(request), who, stage=stage, idempotency_key=key, traceparent=trace)
            return to_message(request, answer)
        stream = stream_request(build_infer_request(request), who, stage=stage, idempotency_key=key, traceparent=trace)
    return events(stream.deltas, message_id=stream.output_id, model=request.model, extras=extras(stream))


def count(event: GatewayEvent) -> Body:
    """How many tokens the prompt of an Anthropic client has: an estimate."""
    who = admit_caller(event)
    require_scope(who.scopes, "infer")
    with model_not_found(who, current_stage()):
        return {"input_tokens": count_tokens(parse(CountRequest, event), tenant_id=who.tenant_id), "rlaas::estimate": True}


DOORS = {
    "/v1/chat/completions": web.Door(chat),
    "/v1/responses": web.Door(responses, failure_part=failure_event, named_parts=True),
    "/v1/messages": web.Door(messages, failure=anthropic_failure, named_parts=True),
    "/v1/messages/count_tokens": web.Door(count, failure=anthropic_failure),
}

if __name__ == "__main__":
    with web.server(DOORS, port=int(os.environ["AWS_LWA_PORT"])) as server:
        server.serve_forever()
