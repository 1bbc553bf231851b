"""OpenAI's `/v1/chat/completions` and `/v1/responses` and Anthropic's `/v1/messages`, whole or streamed: a web server
behind Lambda Web Adapter, started by run.sh."""

import os
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

from rlaas.api import web
from rlaas.api.answering import answer_request, stream_request
from rlaas.api.anthropic_errors import anthropic_failure
from rlaas.api.asker_admission import admit_asker
from rlaas.api.http import MAX_CHAT_BYTES, Body, Caller, GatewayEvent, header, parse
from rlaas.api.model_names import model_not_found
from rlaas.clock import utc_now
from rlaas.inference.chat_completion_chunks import chunks
from rlaas.inference.chat_completions import ChatRequest, to_completion, to_infer
from rlaas.inference.decide import InferRequest
from rlaas.inference.infer import AnswerStream
from rlaas.inference.message_events import events
from rlaas.inference.messages import CountRequest, MessagesRequest, build_infer_request, count_tokens, to_message
from rlaas.inference.record import Answer
from rlaas.inference.response_events import failure_event, response_events
from rlaas.inference.responses import INCOMPLETE, ResponsesRequest, describe, in_own_words, to_response
from rlaas.inference.responses import to_infer as response_to_infer
from rlaas.inference.skill_request import extras
from rlaas.runtime.stage import current_stage

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ClientRequest(Generic[Model]):
    """One request of a client: its body, and who sent it."""

    request: Model
    who: Caller
    idempotency_key: str | None
    traceparent: str | None

    def answer(self, question: InferRequest) -> Answer:
        """The whole answer. Raises: as `answer_request`."""
        return answer_request(question, self.who, stage=current_stage(), idempotency_key=self.idempotency_key, traceparent=self.traceparent)

    def stream(self, question: InferRequest) -> AnswerStream:
        """The answer piece by piece. Raises: as `stream_request`."""
        return stream_request(question, self.who, stage=current_stage(), idempotency_key=self.idempotency_key, traceparent=self.traceparent)


def read_client_request(model: type[Model], event: GatewayEvent) -> ClientRequest[Model]:
    """The request of a caller with the scope `infer`. Raises: RlaasError."""
    who = admit_asker(event)
    request = parse(model, event, most_bytes=MAX_CHAT_BYTES)
    return ClientRequest(request, who, header(event, "Idempotency-Key"), header(event, "traceparent"))


def chat(event: GatewayEvent) -> Body | web.Stream:
    """Answer one request of an OpenAI client. Raises: RlaasError."""
    sent = read_client_request(ChatRequest, event)
    request = sent.request
    with model_not_found(sent.who, current_stage()):
        if not request.stream:
            return to_completion(request, sent.answer(to_infer(request)), created=utc_now())
        stream = sent.stream(to_infer(request))
    return chunks(
        stream.deltas,
        completion_id=stream.output_id,
        model=request.model,
        created=utc_now(),
        include_usage=request.include_usage,
        extras=extras(stream),
    )


def responses(event: GatewayEvent) -> Body | web.Stream:
    """Answer one request of a client of OpenAI's Responses API. Raises: RlaasError."""
    sent = read_client_request(ResponsesRequest, event)
    request, stage, created = sent.request, current_stage(), utc_now()
    with model_not_found(sent.who, stage), in_own_words():
        question = response_to_infer(request, sent.who.tenant_id, stage.events, stage.scrubbers.of(sent.who.tenant_id))
        if not request.stream:
            return to_response(request, sent.answer(question), created=created)
        stream = sent.stream(question)
    own = extras(stream)
    return response_events(
        stream.deltas,
        output_id=stream.output_id,
        describe=lambda *state: {**describe(request, stream.output_id, *state, created=created), **own},
        incomplete=INCOMPLETE,
    )


def messages(event: GatewayEvent) -> Body | web.Stream:
    """Answer one request of an Anthropic client. Raises: RlaasError."""
    sent = read_client_request(MessagesRequest, event)
    with model_not_found(sent.who, current_stage()):
        question = build_infer_request(sent.request)
        if not sent.request.stream:
            return to_message(sent.request, sent.answer(question))
        stream = sent.stream(question)
    return events(
        stream.deltas,
        message_id=stream.output_id,
        model=sent.request.model,
        extras=extras(stream),
        shows_thoughts=sent.request.shows_thoughts,
    )


def count(event: GatewayEvent) -> Body:
    """How many tokens the prompt of an Anthropic client has: an estimate. Raises: RlaasError."""
    sent = read_client_request(CountRequest, event)
    with model_not_found(sent.who, current_stage()):
        return {"input_tokens": count_tokens(sent.request, tenant_id=sent.who.tenant_id), "rlaas::estimate": True}


DOORS = {
    "/v1/chat/completions": web.Door(chat),
    "/v1/responses": web.Door(responses, failure_part=failure_event, named_parts=True),
    "/v1/messages": web.Door(messages, failure=anthropic_failure, named_parts=True),
    "/v1/messages/count_tokens": web.Door(count, failure=anthropic_failure),
}

if __name__ == "__main__":
    with web.server(DOORS, port=int(os.environ["AWS_LWA_PORT"])) as server:
        server.serve_forever()
