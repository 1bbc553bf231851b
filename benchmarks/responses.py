"""What OpenAI's Responses API costs beside its chat: the same question in memory, whole and streamed, from the body
that comes to the bodies that go.

The two take turns, and of each the round with the least CPU counts: what else the machine does only adds to it.
"""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.gateway import in_memory
from benchmarks.result import report
from rlaas.inference import chat_completions, responses
from rlaas.inference.chat_completion_chunks import chunks
from rlaas.inference.decide import Asker
from rlaas.inference.gateway import Gateway
from rlaas.inference.infer import infer, infer_stream
from rlaas.inference.response_events import response_events
from rlaas.inference.skill_request import extras
from tests.fakes.worlds import NOW, SKILL, TENANT, canary, furnished

ROUNDS = 9
REQUESTS = 400
ASKER = Asker(TENANT, "key")
QUESTION = "Where is my parcel? " * 20
FUNCTION = {"name": "find_order", "parameters": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}}
CHAT: dict[str, Any] = {
    "model": f"rlaas::{SKILL}",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
    "tools": [{"type": "function", "function": FUNCTION}],
}
RESPONSES: dict[str, Any] = {
    "model": f"rlaas::{SKILL}",
    "instructions": "Be brief.",
    "input": [{"role": "user", "content": QUESTION}],
    "tools": [{"type": "function", **FUNCTION}],
}


def chat(gateway: Gateway, body: str) -> Iterable[object]:
    """What a chat completion sends."""
    request = chat_completions.ChatRequest.model_validate_json(body)
    question = chat_completions.to_infer(request)
    if not request.stream:
        return [chat_completions.to_completion(request, infer(question, ASKER, gateway), created=NOW)]
    stream = infer_stream(question, ASKER, gateway)
    return chunks(
        stream.deltas, completion_id=stream.output_id, model=request.model, created=NOW, include_usage=True, extras=extras(stream)
    )


def response(gateway: Gateway, body: str) -> Iterable[object]:
    """What a response sends."""
    request = responses.ResponsesRequest.model_validate_json(body)
    question = responses.to_infer(request, TENANT, gateway.store, gateway.scrubber)
    if not request.stream:
        return [responses.to_response(request, infer(question, ASKER, gateway), created=NOW)]
    stream = infer_stream(question, ASKER, gateway)
    own = extras(stream)
    return response_events(
        stream.deltas,
        output_id=stream.output_id,
        describe=lambda items, usage, reason: {
            **responses.describe(request, stream.output_id, items, usage, reason, created=NOW),
            **own,
        },
        incomplete=responses.INCOMPLETE,
    )


def cpu_s(send: Callable[[Gateway, str], Iterable[object]], body: dict[str, Any]) -> float:
    """CPU seconds of a request, after a warm-up of a tenth."""
    gateway, text = in_memory(furnished((canary(2, 0.5),))), json.dumps(body)
    started = 0.0
    for number in range(REQUESTS + REQUESTS // 10):
        if number == REQUESTS // 10:
            started = time.process_time()
        for part in send(gateway, text):
            json.dumps(part, ensure_ascii=False)
    return (time.process_time() - started) / REQUESTS


def main() -> None:
    """Measure and report."""
    cases = {
        "chat": (chat, CHAT),
        "responses": (response, RESPONSES),
        "chat_stream": (chat, {**CHAT, "stream": True}),
        "responses_stream": (response, {**RESPONSES, "stream": True}),
    }
    rounds = [{name: cpu_s(send, body) for name, (send, body) in cases.items()} for _ in range(ROUNDS)]
    least = {name: min(one[name] for one in rounds) for name in cases}
    report(
        "responses",
        "make bench-responses",
        {
            **{f"{name}_cpu_ms": seconds * 1000 for name, seconds in least.items()},
            "responses_to_chat_ratio": least["responses"] / least["chat"],
            "responses_to_chat_stream_ratio": least["responses_stream"] / least["chat_stream"],
        },
    )


if __name__ == "__main__":
    main()
