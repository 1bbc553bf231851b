"""The clients: `Client`, and `AsyncClient` with the same surface."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import httpx

from rlaas_sdk.events import About, Message
from rlaas_sdk.inference import Answer, Request, Result, Retry, Tries, build_inference_request, build_token_request, read_failure
from rlaas_sdk.recorder import Recorder

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class Client(Recorder):
    """RLaaS for synchronous code. `log_*`, `submit_feedback` and `task_result` only enqueue, and return the event's id
    at once."""

    def infer(
        self,
        skill: str,
        *,
        inputs: Mapping[str, str] | None = None,
        messages: Sequence[Message] | None = None,
        interaction_id: str | None = None,
        **about: Unpack[About],
    ) -> Answer | None:
        """The skill's answer to `inputs` or to a chat's `messages`; None where none comes within `infer_timeout_s`
        seconds. Raises in a strict client: InferenceFailed, InvalidEvent."""
        return self._ask(lambda: build_inference_request(skill, interaction_id, inputs, messages, about))

    def feedback_token(
        self, skill: str, output_id: str, *, interaction_id: str | None = None, thread_id: str | None = None, user_id: str | None = None
    ) -> str | None:
        """The token with which a page that holds a publishable key gives feedback on this output.

        Needed for outputs that `log_output` or `wrap_openai` report; `infer` returns it with its answer. None where
        none comes within `infer_timeout_s` seconds. `interaction_id` may be left out where `output_id` contains it.
        Raises in a strict client: InferenceFailed, InvalidEvent.
        """
        return self._ask(lambda: build_token_request(skill, output_id, interaction_id, thread_id, user_id))

    def _ask(self, make: Callable[[], Request[Result]]) -> Result | None:
        try:
            return self._ask_in_thread(make())
        except Exception as error:
            self._infer_failed(error)
            return None

    def _ask_in_thread(self, request: Request[Result]) -> Result:
        headers = self._headers(request)
        deadline, tries = time.monotonic() + self._infer_timeout_s, Tries(self._api_url)
        # In a thread of its own, so that no resolver, connection or answer delays the caller beyond the timeout.
        outcome: queue.SimpleQueue[Result | Exception] = queue.SimpleQueue()
        threading.Thread(target=self._ask_until, args=(deadline, tries, request, headers, outcome), name="rlaas-ask", daemon=True).start()
        try:
            result = outcome.get(timeout=self._infer_timeout_s)
        except queue.Empty:
            raise tries.give_up(self._infer_timeout_s) from None
        if isinstance(result, Exception):
            raise result
        return result

    def _ask_until(
        self,
        deadline: float,
        tries: Tries,
        request: Request[Result],
        headers: Mapping[str, str],
        outcome: queue.SimpleQueue[Result | Exception],
    ) -> None:
        try:
            with httpx.Client(headers=dict(headers)) as http:
                while True:
                    try:
                        left_s = max(deadline - time.monotonic(), 0.001)
                        result = request.read(http.post(f"{self._api_url}/v1/{request.path}", json=request.body, timeout=left_s))
                    except httpx.TransportError as error:
                        result = read_failure(error)
                    if not isinstance(result, Retry):
                        outcome.put(result)
                        return
                    wait_s = tries.note(result)
                    if time.monotonic() + wait_s >= deadline:
                        raise tries.give_up(self._infer_timeout_s)
                    time.sleep(wait_s)
        except Exception as error:
            outcome.put(error)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Deliver what was reported so far; False where some of it still waits after `timeout_s` seconds. Raises in a
        strict client: Undelivered, Refused."""
        return self._flush(timeout_s)

    def close(self, timeout_s: float = 2.0) -> bool:
        """Flush for at most `timeout_s` seconds and stop the threads; False where events still wait. They stay in the
        spool for the next process."""
        return self._close(timeout_s)

    @contextmanager
    def flushing(self, timeout_s: float = 1.0) -> Iterator[Client]:
        """Flush at the end of a block, or of each call of a function, for at most `timeout_s` seconds. Use
        `@client.flushing()` on the handler of an AWS Lambda function, whose process freezes after each call."""
        try:
            yield self
        finally:
            self._flush_quietly(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(Recorder):
    """`Client` for asynchronous code: `infer`, `feedback_token`, `flush` and `close` are awaited; the other methods
    are called without `await`.

    A `durable` client writes each event in the event loop's thread. That takes microseconds as a rule, and never more
    than about half a second.
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
        return await self._ask(lambda: build_inference_request(skill, interaction_id, inputs, messages, about))

    async def feedback_token(
        self, skill: str, output_id: str, *, interaction_id: str | None = None, thread_id: str | None = None, user_id: str | None = None
    ) -> str | None:
        """As Client.feedback_token."""
        return await self._ask(lambda: build_token_request(skill, output_id, interaction_id, thread_id, user_id))

    async def _ask(self, make: Callable[[], Request[Result]]) -> Result | None:
        import asyncio

        tries = Tries(self._api_url)
        try:
            return await asyncio.wait_for(self._ask_until_answered(make(), tries), self._infer_timeout_s)
        except asyncio.TimeoutError:
            self._infer_failed(tries.give_up(self._infer_timeout_s))
        except Exception as error:
            self._infer_failed(error)
        return None

    async def _ask_until_answered(self, request: Request[Result], tries: Tries) -> Result:
        import asyncio

        async with httpx.AsyncClient(headers=self._headers(request), timeout=self._infer_timeout_s) as http:
            while True:
                try:
                    result = request.read(await http.post(f"{self._api_url}/v1/{request.path}", json=request.body))
                except httpx.TransportError as error:
                    result = read_failure(error)
                if not isinstance(result, Retry):
                    return result
                await asyncio.sleep(tries.note(result))

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
