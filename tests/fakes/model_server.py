"""Model vendors over real HTTP on the loopback, each in its own dialect, answering as `EchoBackend` does.

SageMaker's InvokeEndpoint, OpenAI's chat completions, Anthropic's messages and Bedrock's Converse, whole and streamed.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from tests.fakes.backend import count_usage, split_words
from tests.fakes.event_stream import encode_event
from tests.fakes.loopback import QuietHandler, serve_handler


@dataclass(frozen=True)
class ModelRequest:
    """One request; `endpoint` is the model's name for vendors other than SageMaker."""

    endpoint: str
    component: str | None
    body: dict[str, Any]
    headers: dict[str, str]


@dataclass
class ModelServer:
    """The requests so far, the models and parameters to refuse, and an answer in place of a completion. `fails_on`:
    whether the model fails on a prompt. `asleep`: SageMaker has no copy of any model. `breaks_off`: its
    streams end in the middle."""

    url: str
    requests: list[ModelRequest] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    refuses: set[str] = field(default_factory=set)
    fails_on: Callable[[str], bool] | None = None
    nonsense: str | None = None
    silent: threading.Event | None = None
    asleep: bool = False
    breaks_off: bool = False


@contextmanager
def serve_model() -> Iterator[ModelServer]:
    """Serve on a free port of the loopback until the block ends."""
    state = ModelServer(url="")

    class Models(QuietHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            component = self.headers.get("X-Amzn-SageMaker-Inference-Component")
            parts = unquote(self.path).strip("/").split("/")
            dialect = {"endpoints": "sagemaker", "model": "bedrock"}.get(parts[0], "anthropic" if parts[-1] == "messages" else "openai")
            endpoint = parts[1] if dialect in ("sagemaker", "bedrock") else body["model"]
            headers = {name.lower(): value for name, value in self.headers.items()}
            state.requests.append(ModelRequest(endpoint, component, body, headers))
            if state.silent is not None:
                state.silent.wait()
            model = component or endpoint
            refused_names = sorted(state.refuses & body.keys())
            last = body["messages"][-1]["content"]
            prompt = last if isinstance(last, str) else last[-1]["text"]
            if state.asleep and dialect == "sagemaker":
                reason = (
                    "Inference Component has no capacity to process this request. ApplicationAutoScaling may be in-progress (if configured)"
                )
                self._json({"Message": f"{reason} or try to increase the capacity."}, status=400, error="ValidationError")
            elif model in state.down or (state.fails_on is not None and state.fails_on(prompt)):
                self._answer_failure(dialect)
            elif refused_names:
                self._answer_refusal(dialect, refused_names[0])
            elif state.nonsense is not None:
                self.answer(200, state.nonsense.encode())
            else:
                text = f"{model}: {prompt}"
                streams = body.get("stream", False) or parts[-1] in ("converse-stream", "invocations-response-stream")
                getattr(self, f"_{dialect}_{'stream' if streams else 'whole'}")(model, text)

        def _sagemaker_whole(self, model: str, text: str) -> None:
            self._openai_whole(model, text)

        def _sagemaker_stream(self, model: str, text: str) -> None:
            stream = _openai_events(model, text)
            # A part may end anywhere, in the middle of a character too.
            parts = [stream[start : start + 50] for start in range(0, len(stream), 50)]
            chunks = parts[: len(parts) // 2] if state.breaks_off else parts
            content = b"".join(encode_event("PayloadPart", part, content_type="application/octet-stream") for part in chunks)
            self.answer(200, content, {"Content-Type": "application/vnd.amazon.eventstream"})

        def _openai_whole(self, model: str, text: str) -> None:
            choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            usage = count_usage(text)
            token_counts = {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens}
            self._json({"id": "chatcmpl-1", "model": model, "choices": [choice], "usage": token_counts})

        def _openai_stream(self, model: str, text: str) -> None:
            self.answer(200, _openai_events(model, text), {"Content-Type": "text/event-stream"})

        def _anthropic_whole(self, model: str, text: str) -> None:
            usage = count_usage(text).model_dump(exclude={"cached_tokens"})
            content = [{"type": "text", "text": text}]
            self._json({"type": "message", "model": model, "content": content, "stop_reason": "end_turn", "usage": usage})

        def _anthropic_stream(self, model: str, text: str) -> None:
            usage = count_usage(text)
            events: list[dict[str, Any]] = [
                {"type": "message_start", "message": {"model": model, "usage": {"input_tokens": usage.input_tokens, "output_tokens": 1}}},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                *({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in split_words(text)),
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": usage.output_tokens}},
                {"type": "message_stop"},
            ]
            stream = "".join(f"event: {payload['type']}\ndata: {json.dumps(payload)}\n\n" for payload in events)
            self.answer(200, stream.encode(), {"Content-Type": "text/event-stream"})

        def _bedrock_whole(self, model: str, text: str) -> None:
            output = {"message": {"role": "assistant", "content": [{"text": text}]}}
            self._json({"output": output, "stopReason": "end_turn", "usage": _bedrock_usage(text), "metrics": {"latencyMs": 1}})

        def _bedrock_stream(self, model: str, text: str) -> None:
            events: list[tuple[str, dict[str, Any]]] = [
                ("messageStart", {"role": "assistant"}),
                *(("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}}) for word in split_words(text)),
                ("contentBlockStop", {"contentBlockIndex": 0}),
                ("messageStop", {"stopReason": "end_turn"}),
                ("metadata", {"usage": _bedrock_usage(text), "metrics": {"latencyMs": 1}}),
            ]
            content = b"".join(encode_event(name, json.dumps(payload).encode()) for name, payload in events)
            self.answer(200, content, {"Content-Type": "application/vnd.amazon.eventstream"})

        def _answer_failure(self, dialect: str) -> None:
            error = {"sagemaker": "ModelError", "bedrock": "ModelErrorException"}.get(dialect)
            self._json({"Message": "no such model"}, status=424 if error else 500, error=error)

        def _answer_refusal(self, dialect: str, name: str) -> None:
            body = {"error": {"message": f"no {name}", "type": "invalid_request_error", "param": name, "code": None}}
            if dialect == "sagemaker":
                error_body = {"Message": "refused", "OriginalStatusCode": 400, "OriginalMessage": json.dumps(body)}
                self._json(error_body, status=424, error="ModelError")
            else:
                self._json(body, status=400)

        def _json(self, body: dict[str, Any], *, status: int = 200, error: str | None = None) -> None:
            self.answer(status, json.dumps(body).encode(), {"x-amzn-ErrorType": error} if error else {})

    with serve_handler(Models) as state.url:
        try:
            yield state
        finally:
            if state.silent is not None:
                state.silent.set()


def _openai_events(model: str, text: str) -> bytes:
    def chunk(choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({'id': 'chatcmpl-1', 'model': model, 'choices': choices, **more}, ensure_ascii=False)}\n\n"

    def choice(delta: dict[str, Any], finish_reason: str | None = None) -> list[dict[str, Any]]:
        return [{"index": 0, "delta": delta, "finish_reason": finish_reason}]

    usage = count_usage(text)
    token_counts = {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens}
    pieces = [chunk(choice({"content": word})) for word in split_words(text)]
    return "".join([*pieces, chunk(choice({}, "stop")), chunk([], usage=token_counts), "data: [DONE]\n\n"]).encode()


def _bedrock_usage(text: str) -> dict[str, int]:
    usage = count_usage(text)
    total = usage.input_tokens + usage.output_tokens
    return {"inputTokens": usage.input_tokens, "outputTokens": usage.output_tokens, "totalTokens": total}
