"""The clients: `Client`, and `AsyncClient` with the same surface."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import httpx

from rlaas_sdk import events, ids
from rlaas_sdk.configuration import destination, owner_of, spool_path
from rlaas_sdk.delivery import Delivery, Stats, close_at_exit
from rlaas_sdk.errors import EventDropped, InferenceFailed, InvalidEvent, NotConfigured, Refused, Undelivered
from rlaas_sdk.events import About, Action, Common, Event, Message, ToolCall, Usage
from rlaas_sdk.inference import Answer, Answered, Request, feedback_token_request, inference_request
from rlaas_sdk.losses import Losses
from rlaas_sdk.spool import Spool
from rlaas_sdk.transport import Transport, headers, jittered_s

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

Wrapped = TypeVar("Wrapped")
REMEMBERED_INTERACTIONS = 1024


class _Recorder:
    """What both clients share: events made, checked and handed to delivery; nothing raised unless `strict`."""

    def __init__(
        self,
        api_url: str | None = None,
        api_key: str | None = None,
        *,
        spool: str | os.PathLike[str] | None = None,
        owner: str | None = None,
        durable: bool = False,
        strict: bool = False,
        infer_timeout_s: float = 30.0,
        exit_timeout_s: float = 2.0,
        max_queue_events: int = 10_000,
        max_queue_bytes: int = 32 * 1024 * 1024,
        max_spool_bytes: int = 256 * 1024 * 1024,
        max_age_s: float = 7 * 86400.0,
    ) -> None:
        """Nothing is opened or started before the first event.

        `spool` is the file where events wait (":memory:" for none), `owner` a name for whose they are there (by default the URL and the
        key's id: give a name to keep waiting events over a change of key). `durable` writes each event to the spool before the call
        returns. `strict` raises what is otherwise counted and logged. `exit_timeout_s` bounds the flush when the process ends.
        """
        self.strict = strict
        self._durable = durable
        self._infer_timeout_s = infer_timeout_s
        self._losses = Losses()
        self._fresh: OrderedDict[str, None] = OrderedDict()
        self._delivery: Delivery | None = None
        try:
            self._api_url, self._api_key = destination(api_url, api_key)
        except NotConfigured as error:
            if strict:
                raise
            self._losses.note("not configured, nothing is sent", detail=str(error))
            return
        room = Spool(spool_path(spool), owner or owner_of(self._api_url, self._api_key), max_bytes=max_spool_bytes, max_age_s=max_age_s)
        self._delivery = Delivery(
            room,
            Transport(self._api_url, self._api_key),
            self._losses,
            max_queue_events=max_queue_events,
            max_queue_bytes=max_queue_bytes,
        )
        close_at_exit(self._delivery, exit_timeout_s)

    def log_interaction(
        self,
        skill: str,
        *,
        inputs: Mapping[str, str] | None = None,
        messages: Sequence[Message] | None = None,
        interaction_id: str | None = None,
        **common: Unpack[Common],
    ) -> str:
        """A request that a user made: the skill's inputs, or a chat's messages."""
        identifier = interaction_id or ids.interaction_id()
        if interaction_id is None:
            while len(self._fresh) >= REMEMBERED_INTERACTIONS:
                with suppress(KeyError):  # another thread took the last
                    self._fresh.popitem(last=False)
            self._fresh[identifier] = None
        self._record(lambda: events.interaction(skill, identifier, inputs, messages, common))
        return identifier

    def log_output(
        self,
        skill: str,
        interaction_id: str,
        text: str,
        *,
        policy_id: str | None = None,
        messages: Sequence[Message] | None = None,
        usage: Usage | None = None,
        latency_ms: float | None = None,
        finish_reason: str | None = None,
        tool_calls: Sequence[ToolCall] | None = None,
        output_id: str | None = None,
        **common: Unpack[Common],
    ) -> str:
        """What answered it. `messages` is the prompt as the model saw it; without it learning takes the interaction's."""
        identifier = output_id or self._output_id(interaction_id)
        self._record(
            lambda: events.output(
                skill,
                identifier,
                interaction_id,
                text,
                policy_id=policy_id,
                messages=messages,
                usage=usage,
                latency_ms=latency_ms,
                finish_reason=finish_reason,
                common=common,
                tool_calls=tool_calls,
            )
        )
        return identifier

    def submit_feedback(
        self,
        skill: str,
        *,
        interaction_id: str | None = None,
        output_id: str | None = None,
        final_text: str | None = None,
        action: Action | None = None,
        rating: float | None = None,
        preferred_output_id: str | None = None,
        comment: str | None = None,
        label: str | None = None,
        metric: str | None = None,
        value: bool | float | str | None = None,
        feedback_id: str | None = None,
        **common: Unpack[Common],
    ) -> str:
        """What a person did with an output: exactly one of the fields from `final_text` to `metric`.

        `rating` is in [0, 1]. `interaction_id` may be left out where `output_id` contains it, as all ids that RLaaS makes do.
        """
        identifier = feedback_id or ids.feedback_id(interaction_id, output_id)
        self._record(
            lambda: events.feedback(
                skill,
                identifier,
                interaction_id,
                output_id,
                final_text=final_text,
                action=action,
                rating=rating,
                preferred_output_id=preferred_output_id,
                comment=comment,
                label=label,
                metric=metric,
                value=value,
                common=common,
            )
        )
        return identifier

    def task_result(
        self,
        skill: str,
        interaction_id: str,
        name: str,
        value: bool | float | str,
        *,
        task_result_id: str | None = None,
        **common: Unpack[Common],
    ) -> str:
        """A business outcome that became known later, such as `resolved` or `csat`."""
        identifier = task_result_id or ids.task_result_id(interaction_id)
        self._record(lambda: events.task_result(skill, identifier, interaction_id, name, value, common))
        return identifier

    def stats(self) -> Stats:
        """What became of this process's events, with what was dropped by reason."""
        if self._delivery is None:
            return Stats(0, 0, 0, 0, 0, 0, self._losses.counts())
        return self._delivery.stats()

    def wrap_openai(self, client: Wrapped, *, skill: str, stream_usage: bool = False) -> Wrapped:
        """Trace every chat completion of an `openai` client (sync or async, streams too) as `skill`; returns the same client.

        `stream_usage` asks for the tokens of streams, which costs one more chunk that the application does not see.
        """
        from rlaas_sdk.openai_tracing import trace_completions

        trace_completions(client, self._record_quietly, skill=events.checked_skill(skill), stream_usage=stream_usage)
        return client

    def _record(self, make: Callable[[], Event]) -> None:
        try:
            event = make()
            if self._delivery is None:
                self._losses.drop("not_configured")
                return
        except Exception as error:
            self._losses.drop("invalid", detail=str(error))
            if self.strict:
                raise
            return
        try:
            self._delivery.submit(event, durable=self._durable)
        except EventDropped:
            if self.strict:
                raise

    def _record_quietly(self, make: Callable[[], Event]) -> None:
        """For traced calls, whose host asked for nothing: never raises, even in strict clients."""
        try:
            self._record(make)
        except Exception as error:
            self._losses.note("a traced call was not recorded", detail=type(error).__name__)

    def _output_id(self, interaction_id: str) -> str:
        """The first output's id where this client made the interaction and no output of it yet; else one that cannot clash."""
        first = isinstance(interaction_id, str) and self._fresh.pop(interaction_id, "") is None
        return ids.first_output_id(interaction_id) if first else ids.output_id(str(interaction_id))

    def _flush(self, timeout_s: float) -> bool:
        refused = self._losses.counts().get("refused", 0)
        delivered = self._delivery is None or self._delivery.flush(timeout_s)
        if self.strict and not delivered:
            raise Undelivered(f"events still wait after {timeout_s} s")
        if self.strict and (more := self._losses.counts().get("refused", 0) - refused):
            raise Refused(f"the service refused {more} events")
        return delivered

    def _flush_quietly(self, timeout_s: float) -> None:
        if self._delivery is not None:
            self._delivery.flush(timeout_s)

    def _close(self, timeout_s: float) -> bool:
        return self._delivery is None or self._delivery.close(timeout_s)

    def _infer_failed(self, error: Exception) -> None:
        self._losses.note("the service gave no answer", detail=f"{type(error).__name__}: {error}")
        if self.strict:
            raise error if isinstance(error, (InferenceFailed, InvalidEvent)) else InferenceFailed(str(error)) from error

    def _headers(self, request: Request[Answered]) -> dict[str, str]:
        if self._delivery is None:
            raise InferenceFailed("not configured")
        repeatable = {"Idempotency-Key": request.idempotency_key} if request.idempotency_key else {}
        return headers(self._api_key) | repeatable


class Client(_Recorder):
    """RLaaS for synchronous code. `log_*`, `submit_feedback` and `task_result` only enqueue, and return the event's id at once."""

    def infer(
        self,
        skill: str,
        *,
        inputs: Mapping[str, str] | None = None,
        messages: Sequence[Message] | None = None,
        interaction_id: str | None = None,
        **about: Unpack[About],
    ) -> Answer | None:
        """The skill's answer; None where there was none within `infer_timeout_s` (InferenceFailed in a strict client)."""
        return self._ask(lambda: inference_request(skill, interaction_id, inputs, messages, about))

    def feedback_token(
        self, skill: str, output_id: str, *, interaction_id: str | None = None, thread_id: str | None = None, user_id: str | None = None
    ) -> str | None:
        """What the page that shows the output gives feedback by, with a publishable key; for outputs that `log_output` or `wrap_openai`
        report, as `infer` gives it with its answer. None where there was none in time (InferenceFailed in a strict client).

        `interaction_id` may be left out where `output_id` contains it.
        """
        return self._ask(lambda: feedback_token_request(skill, output_id, interaction_id, thread_id, user_id))

    def _ask(self, make: Callable[[], Request[Answered]]) -> Answered | None:
        try:
            return self._ask_in_thread(make())
        except Exception as error:
            self._infer_failed(error)
            return None

    def _ask_in_thread(self, request: Request[Answered]) -> Answered:
        sent = self._headers(request)
        deadline = time.monotonic() + self._infer_timeout_s
        # In a thread of its own: no resolver, connection or answer can hold the caller beyond the bound.
        outcome: queue.SimpleQueue[Answered | Exception] = queue.SimpleQueue()
        threading.Thread(target=self._ask_until, args=(deadline, request, sent, outcome), name="rlaas-ask", daemon=True).start()
        try:
            result = outcome.get(timeout=self._infer_timeout_s)
        except queue.Empty:
            raise InferenceFailed(f"no answer within {self._infer_timeout_s} s") from None
        if isinstance(result, Exception):
            raise result
        return result

    def _ask_until(
        self,
        deadline: float,
        request: Request[Answered],
        sent: Mapping[str, str],
        outcome: queue.SimpleQueue[Answered | Exception],
    ) -> None:
        failures = 0
        try:
            with httpx.Client(headers=dict(sent)) as http:
                while True:
                    try:
                        left_s = max(deadline - time.monotonic(), 0.001)
                        result = request.read(http.post(f"{self._api_url}/v1/{request.path}", json=request.body, timeout=left_s))
                    except httpx.TransportError as error:
                        if isinstance(error, httpx.TimeoutException) or time.monotonic() >= deadline:
                            raise
                        result = 0.0
                    if not isinstance(result, float):
                        outcome.put(result)
                        return
                    failures += 1
                    wait_s = result + jittered_s(failures)
                    if time.monotonic() + wait_s >= deadline:
                        raise InferenceFailed("the service cannot answer now")
                    time.sleep(wait_s)
        except Exception as error:
            outcome.put(error)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Deliver what was reported so far; False where some still waits after `timeout_s`. A strict client raises Undelivered, Refused."""
        return self._flush(timeout_s)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Flush and stop the threads. What could not be delivered waits in the spool for the next process."""
        return self._close(timeout_s)

    @contextmanager
    def flushing(self, timeout_s: float = 1.0) -> Iterator[Client]:
        """Flush at the end of a block, or of each call of a function: `@client.flushing()` on an AWS Lambda handler, which freezes."""
        try:
            yield self
        finally:
            self._flush_quietly(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(_Recorder):
    """`Client` for asynchronous code: `infer`, `flush` and `close` are awaited; the rest only enqueues and is called as it is.

    An event of a `durable` client is written in the event loop's thread: microseconds as a rule, never more than about half a second.
    """

    async def infer(
        self,
        skill: str,
        *,
        inputs: Mapping[str, str] | None = None,
        messages: Sequence[Message] | None = None,
        interaction_id: str | None = None,
        **about: Unpack[About],
    ) -> Answer | None:
        """As Client.infer."""
        return await self._ask(lambda: inference_request(skill, interaction_id, inputs, messages, about))

    async def feedback_token(
        self, skill: str, output_id: str, *, interaction_id: str | None = None, thread_id: str | None = None, user_id: str | None = None
    ) -> str | None:
        """As Client.feedback_token."""
        return await self._ask(lambda: feedback_token_request(skill, output_id, interaction_id, thread_id, user_id))

    async def _ask(self, make: Callable[[], Request[Answered]]) -> Answered | None:
        import asyncio

        try:
            return await asyncio.wait_for(self._ask_until_answered(make()), self._infer_timeout_s)
        except asyncio.TimeoutError:
            self._infer_failed(InferenceFailed(f"no answer within {self._infer_timeout_s} s"))
        except Exception as error:
            self._infer_failed(error)
        return None

    async def _ask_until_answered(self, request: Request[Answered]) -> Answered:
        import asyncio

        failures = 0
        async with httpx.AsyncClient(headers=self._headers(request), timeout=self._infer_timeout_s) as http:
            while True:
                try:
                    result = request.read(await http.post(f"{self._api_url}/v1/{request.path}", json=request.body))
                except httpx.TransportError:
                    result = 0.0
                if not isinstance(result, float):
                    return result
                failures += 1
                await asyncio.sleep(result + jittered_s(failures))

    async def flush(self, timeout_s: float = 5.0) -> bool:
        """As Client.flush."""
        import asyncio

        return await asyncio.to_thread(self._flush, timeout_s)

    async def close(self, timeout_s: float = 2.0) -> bool:
        """As Client.close."""
        import asyncio

        return await asyncio.to_thread(self._close, timeout_s)

    @asynccontextmanager
    async def flushing(self, timeout_s: float = 1.0) -> AsyncIterator[AsyncClient]:
        """As Client.flushing."""
        import asyncio

        try:
            yield self
        finally:
            await asyncio.to_thread(self._flush_quietly, timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
