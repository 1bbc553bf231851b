"""Reports the calls of an `openai` client as interactions and outputs. The call, its answer and its errors stay as they
are.

The client's `post` is replaced, through which all of its parts send: `create`, `parse` and `stream` of chat completions
and of the Responses API, with `with_raw_response` and `with_streaming_response`, in `beta` too. Copies of the client
(`with_options`) are traced as well. Calls with a model `rlaas::<skill>` are not reported: the service records them
itself.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from rlaas_sdk import events, ids
from rlaas_sdk.events import Common, Event, Json
from rlaas_sdk.openai_answers import CallAnswer, ChatApi, Choice, OpenAIApi, ResponsesApi, read_body
from rlaas_sdk.openai_following import Follower, follow_body, follow_stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

_TRACED_ATTRIBUTE = "__rlaas_traced__"
_RAW_RESPONSE_HEADER = "x-stainless-raw-response"
_APIS: Mapping[str, OpenAIApi] = {"/chat/completions": ChatApi(), "/responses": ResponsesApi()}
_REMEMBERED_ANSWERS = 1024
_common: ContextVar[Common] = ContextVar("rlaas_common")
RecordEvent = Callable[[Callable[[], Event]], None]
RunLater = Callable[[Callable[[], None]], None]


class Trace(NamedTuple):
    """The ids under which a traced call was reported; feedback needs one of them."""

    interaction_id: str
    output_id: str


_traces: dict[int, tuple[weakref.ref[object], Trace]] = {}
_traces_by_answer_id: OrderedDict[str, Trace | None] = OrderedDict()
"""The latest answers by OpenAI's id; None where two answers had the same."""


def trace_of(answer: object) -> Trace | None:
    """The ids of what a wrapped client returned: a completion, a response, a stream or a raw response, and the final
    answer of a stream; None for any other object."""
    if (entry := _traces.get(id(answer))) and entry[0]() is answer:
        return entry[1]
    if (raw_stream := getattr(answer, "_raw_stream", None)) is not None:  # what `stream` returns reads from such a stream
        return trace_of(raw_stream)
    if not isinstance(identifier := getattr(answer, "id", None), str):
        return None
    interaction = ids.find_interaction_id(identifier)
    return _traces_by_answer_id.get(identifier) if interaction is None else Trace(interaction, identifier)


def _remember(answer: object, trace: Trace) -> None:
    key = id(answer)
    _traces[key] = (weakref.ref(answer, lambda _: _traces.pop(key, None)), trace)


def _remember_answer_id(identifier: str, trace: Trace) -> None:
    _traces_by_answer_id[identifier] = None if identifier in _traces_by_answer_id else trace
    with contextlib.suppress(KeyError):  # another thread removed the last one
        while len(_traces_by_answer_id) > _REMEMBERED_ANSWERS:
            _traces_by_answer_id.popitem(last=False)


@contextmanager
def tracing(**common: Unpack[Common]) -> Iterator[None]:
    """Within the block, traced calls carry these fields: `with tracing(thread_id="t-7", user_id="u-1"):`."""
    token = _common.set(cast("Common", {**_common.get(cast("Common", {})), **common}))
    try:
        yield
    finally:
        _common.reset(token)


@dataclass(frozen=True)
class ClientTracing:
    """How the calls of a wrapped client are reported."""

    skill: str
    stream_usage: bool
    record: RecordEvent
    """Builds an event and reports it; never raises."""
    run_later: RunLater
    """Calls a function in another thread. It takes no lock, so that the garbage collector may call it."""


def trace_client(client: Any, settings: ClientTracing) -> None:
    """Report each call of `client` and of its copies. Wrapping a client twice changes nothing."""
    if hasattr(client.post, _TRACED_ATTRIBUTE):
        return
    client.post = _trace_post(client.post, settings)
    for part in _list_parts(client):
        part._post = client.post
    for name in ("copy", "with_options"):
        setattr(client, name, _trace_copies(getattr(client, name), settings))


def _list_parts(owner: object) -> Iterator[Any]:
    """The parts of a client that were used before; each keeps the client's `post` of that time."""
    for part in list(vars(owner).values()):
        if hasattr(part, "_post"):
            yield part
            yield from _list_parts(part)


def _trace_copies(original: Callable[..., Any], settings: ClientTracing) -> Callable[..., Any]:
    @functools.wraps(original)
    def copy_and_trace(*args: Any, **options: Any) -> Any:
        copy = original(*args, **options)
        with contextlib.suppress(Exception):
            trace_client(copy, settings)
        return copy

    return copy_and_trace


def _find_api(path: str) -> OpenAIApi | None:
    """The API that a request to `path` is for; other vendors' clients put a prefix before OpenAI's paths."""
    return next((api for end, api in _APIS.items() if path.partition("?")[0].endswith(end)), None)


def _trace_post(original: Callable[..., Any], settings: ClientTracing) -> Callable[..., Any]:
    def begin_trace(path: str, options: dict[str, Any]) -> _TracedCall | None:
        with contextlib.suppress(Exception):
            if (api := _find_api(path)) is not None:
                call = _TracedCall(api, settings, options, is_async=is_async)
                return None if call.is_recorded_by_service else call
        return None

    @functools.wraps(original)
    def post(path: str, **options: Any) -> Any:
        if (traced_call := begin_trace(path, options)) is None:
            return original(path, **options)
        try:
            answer = original(path, **traced_call.options)
        except BaseException as error:
            traced_call.finish(error)
            raise
        traced_call.follow(answer)
        return answer

    @functools.wraps(original)
    async def post_async(path: str, **options: Any) -> Any:
        if (traced_call := begin_trace(path, options)) is None:
            return await original(path, **options)
        try:
            answer = await original(path, **traced_call.options)
        except BaseException as error:
            traced_call.finish(error)
            raise
        traced_call.follow(answer)
        return answer

    is_async = inspect.iscoroutinefunction(original)
    replacement = post_async if is_async else post
    setattr(replacement, _TRACED_ATTRIBUTE, True)
    return replacement


class _TracedCall:
    """One traced call, from its request to its one report. Follows what the application reads of its answer."""

    def __init__(self, api: OpenAIApi, settings: ClientTracing, options: dict[str, Any], *, is_async: bool) -> None:
        self._api = api
        self._settings = settings
        self._is_async = is_async
        interaction_id = ids.interaction_id()
        self._trace = Trace(interaction_id, ids.first_output_id(interaction_id))
        self._start_s = time.perf_counter()
        self._started_at = datetime.now(timezone.utc)
        body: Mapping[str, Any] = options.get("body") or {}
        transport: Mapping[str, Any] = options.get("options") or {}
        request = {**body, **(transport.get("extra_json") or {})}
        model = str(request.get("model"))
        self.is_recorded_by_service = model.startswith("rlaas::")
        user = next((value for name in ("user", "safety_identifier") if isinstance(value := request.get(name), str)), None)
        self._common = cast("Common", {"user_id": user, **_common.get(cast("Common", {}))})
        self._details: dict[str, Json] = {"model": model, **api.details}
        if isinstance(previous := request.get("previous_response_id"), str):
            self._details["previous_response_id"] = previous
        self._messages = api.read_messages(request)
        self._tools = api.read_tools(request)
        self._is_raw = any(str(name).lower() == _RAW_RESPONSE_HEADER for name in transport.get("headers") or ())
        self._parts = api.begin_answer()
        self._body: list[bytes] = []
        self._content_type = ""
        self._is_reported = False
        self._follower = Follower(self._add, self.finish, self._finish_later)
        wants_usage = settings.stream_usage and api.can_add_usage and not self._is_raw and bool(request.get("stream"))
        self._hides_usage = wants_usage and not isinstance(request.get("stream_options"), Mapping)
        self.options = {**options, "body": {**body, "stream_options": {"include_usage": True}}} if self._hides_usage else options

    def follow(self, answer: Any) -> None:
        """Report a completion or a response now, and what is still to be read when the application has read it or has
        given it up. Never raises."""
        with contextlib.suppress(Exception):
            _remember(answer, self._trace)
            if self._is_raw:
                self._follow_raw(answer)
            elif (read_answer := self._api.read_answer(answer)) is not None:
                self._report(read_answer)
            elif hasattr(answer, "_iterator"):
                self._details["stream"] = True
                follow_stream(answer, self._follower)

    def _follow_raw(self, raw: Any) -> None:
        response = raw.http_response
        self._content_type = str(response.headers.get("content-type", ""))
        if self._content_type.startswith("text/event-stream"):
            self._details["stream"] = True
        try:
            self._body.append(response.content)
        except Exception:  # the application is going to read it
            follow_body(response, self._follower, is_async=self._is_async)
        else:
            self.finish()

    def _add(self, part: Any) -> bool:
        if self._is_raw:
            if not self._is_reported:
                self._body.append(part)
            return False
        return self._parts.add(part) and self._hides_usage

    def finish(self, error: BaseException | None = None) -> None:
        """Report the call as far as its answer has come; with the error's name where it failed. Never raises."""
        if error is not None:
            self._details["error"] = type(error).__name__
        with contextlib.suppress(Exception):
            completion = getattr(error, "completion", None)  # `parse` refuses an answer that was cut off
            self._report(self._api.read_answer(completion) or self._build_answer())

    def _finish_later(self) -> None:
        if not self._is_reported:
            self._settings.run_later(self.finish)

    def _build_answer(self) -> CallAnswer:
        if self._is_raw and self._body:
            with contextlib.suppress(Exception):  # half a body, or no JSON
                if (answer := read_body(self._api, b"".join(self._body), self._content_type)) is not None:
                    return answer
        return self._parts.build()

    def _report(self, answer: CallAnswer) -> None:
        if self._is_reported:
            return
        self._is_reported = True
        if isinstance(answer_id := answer.details.get("response_id"), str):
            _remember_answer_id(answer_id, self._trace)
        details = {**self._details, **{name: value for name, value in answer.details.items() if value is not None}}
        metadata: dict[str, Json] = {**(self._common.get("metadata") or {}), "openai": details}
        common = cast("Common", {"occurred_at": self._started_at, **self._common, "metadata": metadata})
        self._settings.record(
            lambda: events.build_interaction(self._settings.skill, self._trace.interaction_id, None, self._messages, common, self._tools)
        )
        latency_ms = round((time.perf_counter() - self._start_s) * 1000, 3)
        for index, choice in enumerate(answer.choices):
            self._report_output(index, choice, answer, cast("Common", {**self._common, "metadata": metadata}), latency_ms)

    def _report_output(self, index: int, choice: Choice, answer: CallAnswer, common: Common, latency_ms: float) -> None:
        identifier = ids.output_id(self._trace.interaction_id) if index else self._trace.output_id
        self._settings.record(
            lambda: events.build_output(
                self._settings.skill,
                identifier,
                self._trace.interaction_id,
                choice.text,
                policy_id=None,
                messages=self._messages,
                usage=None if index else answer.usage,
                latency_ms=latency_ms,
                finish_reason=choice.finish_reason,
                common=common,
                tool_calls=choice.tool_calls,
            )
        )
