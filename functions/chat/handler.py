"""OpenAI's `/v1/chat/completions` and Anthropic's `/v1/messages`, whole or streamed: a web server behind Lambda Web
Adapter, started by run.sh."""

import os

from rlaas.api import web
from rlaas.api.admission import admit_caller
from rlaas.api.answering import answer_request, stream_request
from rlaas.api.anthropic_errors import anthropic_failure
from rlaas.api.http import Body, GatewayEvent, header, parse
from rlaas.clock import utc_now
from rlaas.inference.chat_completion_chunks import chunks
from rlaas.inference.chat_completions import ChatRequest, extras, to_completion, to_infer
from rlaas.inference.message_events import events
from rlaas.inference.messages import CountRequest, MessagesRequest, build_infer_request, count_tokens, to_message
from rlaas.runtime.stage import current_stage
from rlaas.tenancy.keys import require_scope


def chat(event: GatewayEvent) -> Body | web.Stream:
    """Answer one request of an OpenAI client. Raises: RlaasError."""
    who = admit_caller(event)
    require_scope(who.scopes, "infer")
    request, stage = parse(ChatRequest, event), current_stage()
    key, trace = header(event, "Idempotency-Key"), header(event, "traceparent")
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


def messages(event: GatewayEvent) -> Body | web.Stream:
    """One request of an Anthropic client."""
    who = admit_caller(event)
    require_scope(who.scopes, "infer")
    request, stage = parse(MessagesRequest, event), current_stage()
    key, trace = header(event, "Idempotency-Key"), header(event, "traceparent")
    if not request.stream:
        answer = answer_request(build_infer_request(request), who, stage=stage, idempotency_key=key, traceparent=trace)
        return to_message(request, answer)
    stream = stream_request(build_infer_request(request), who, stage=stage, idempotency_key=key, traceparent=trace)
    return events(stream.deltas, message_id=stream.output_id, model=request.model, extras=extras(stream))


def count(event: GatewayEvent) -> Body:
    """How many tokens the prompt of an Anthropic client has: an estimate."""
    who = admit_caller(event)
    require_scope(who.scopes, "infer")
    return {"input_tokens": count_tokens(parse(CountRequest, event), tenant_id=who.tenant_id), "rlaas::estimate": True}


DOORS = {
    "/v1/chat/completions": web.Door(chat),
    "/v1/messages": web.Door(messages, failure=anthropic_failure, named_parts=True),
    "/v1/messages/count_tokens": web.Door(count, failure=anthropic_failure),
}

if __name__ == "__main__":
    with web.server(DOORS, port=int(os.environ["AWS_LWA_PORT"])) as server:
        server.serve_forever()
