"""What the clients share: they build events, check them and hand them to delivery."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from rlaas_sdk import events, ids
from rlaas_sdk.configuration import choose_spool_path, derive_owner, resolve_destination
from rlaas_sdk.delivery import Delivery, Stats
from rlaas_sdk.errors import EventDropped, InferenceFailed, InvalidEvent, NotConfigured, Refused, Undelivered
from rlaas_sdk.events import Common, Event, FeedbackAction, Message, ToolCall, Usage
from rlaas_sdk.failures import describe_failure
from rlaas_sdk.inference import Request, Result
from rlaas_sdk.losses import Losses
from rlaas_sdk.processes import close_at_exit
from rlaas_sdk.spool import Spool
from rlaas_sdk.transport import Transport, build_headers

if TYPE_CHECKING:
    from typing_extensions import Unpack

Wrapped = TypeVar("Wrapped")
REMEMBERED_INTERACTIONS = 1024


class Recorder:
    """Reports events. Raises nothing unless it is `strict`; then a method that reports raises InvalidEvent or
    EventDropped."""

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
        """No file is opened and no thread started before the first event.

        `spool` is the file where events wait (":memory:" for none), `owner` the name under which they wait there. By
        default that is the URL and the key's id; a name of your own keeps waiting events over a change of key.
        `durable` writes each event to the spool before the call returns. `strict` raises what is otherwise counted and
        logged. `exit_timeout_s` bounds the flush when the process ends. Raises where `strict`: NotConfigured.
        """
        self.strict = strict
        self._durable = durable
        self._infer_timeout_s = infer_timeout_s
        self._losses = Losses()
        self._without_output: OrderedDict[str, None] = OrderedDict()
        self._delivery: Delivery | None = None
        try:
            self._api_url, self._api_key = resolve_destination(api_url, api_key)
        except NotConfigured as error:
            if strict:
                raise
            self._losses.note("not configured, nothing is sent", detail=str(error))
            return
        event_spool = Spool(
            choose_spool_path(spool), owner or derive_owner(self._api_url, self._api_key), max_bytes=max_spool_bytes, max_age_s=max_age_s
        )
        self._delivery = Delivery(
            event_spool,
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
        """Report a request that a user made, with the skill's inputs or a chat's messages; the interaction's id."""
        identifier = interaction_id or ids.interaction_id()
        if interaction_id is None:
            while len(self._without_output) >= REMEMBERED_INTERACTIONS:
                with suppress(KeyError):  # another thread removed the last one
                    self._without_output.popitem(last=False)
            self._without_output[identifier] = None
        self._record(lambda: events.build_interaction(skill, identifier, inputs, messages, common))
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
        """Report what answered an interaction; the output's id. `messages` is the prompt as the model saw it; without
        it, learning uses the interaction's."""
        identifier = output_id or self._output_id(interaction_id)
        self._record(
            lambda: events.build_output(
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
        action: FeedbackAction | None = None,
        rating: float | None = None,
        preferred_output_id: str | None = None,
        comment: str | None = None,
        label: str | None = None,
        metric: str | None = None,
        value: bool | float | str | None = None,
        feedback_id: str | None = None,
        **common: Unpack[Common],
    ) -> str:
        """Report what a person did with an output, in exactly one of the fields from `final_text` to `metric`; the
        feedback's id.

        `rating` is in [0, 1]; `value` goes with `metric`. `interaction_id` may be left out where `output_id` contains
        it, as every output id made by RLaaS does.
        """
        identifier = feedback_id or ids.feedback_id(interaction_id, output_id)
        self._record(
            lambda: events.build_feedback(
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
        """Report a business outcome that became known later, such as `resolved` or `csat`; the task result's id."""
        identifier = task_result_id or ids.task_result_id(interaction_id)
        self._record(lambda: events.build_task_result(skill, identifier, interaction_id, name, value, common))
        return identifier

    def stats(self) -> Stats:
        """Counts of what became of this process's events, and of the dropped ones by reason."""
        if self._delivery is None:
            return Stats(0, 0, 0, 0, 0, 0, self._losses.counts())
        return self._delivery.stats()

    def wrap_openai(self, client: Wrapped, *, skill: str, stream_usage: bool = False) -> Wrapped:
        """Trace every chat completion and every response of an `openai` client (sync or async, streams too) as `skill`;
        returns the same client.

        `stream_usage` asks OpenAI for the token counts of streamed completions, in one more chunk that the application
        does not see. Raises: InvalidEvent where `skill` is no skill's name.
        """
        from rlaas_sdk.openai_tracing import ClientTracing, trace_client

        trace_client(client, ClientTracing(events.check_skill(skill), stream_usage, self._record_quietly, self._run_later))
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
        """As `_record`, for traced calls: never raises, even in a strict client, because the host called only
        OpenAI."""
        try:
            self._record(make)
        except Exception as error:
            self._losses.note("a traced call was not recorded", detail=type(error).__name__)

    def _run_later(self, report: Callable[[], None]) -> None:
        if self._delivery is not None:
            self._delivery.run_later(report)

    def _output_id(self, interaction_id: str) -> str:
        """The first output's id where this client made the interaction and has reported no output of it; else an id
        with a random tail, which cannot clash."""
        is_first = isinstance(interaction_id, str) and self._without_output.pop(interaction_id, "") is None
        return ids.first_output_id(interaction_id) if is_first else ids.output_id(str(interaction_id))

    def _flush(self, timeout_s: float) -> bool:
        refusals_before = self._losses.counts().get("refused", 0)
        is_delivered = self._delivery is None or self._delivery.flush(timeout_s)
        if self.strict and not is_delivered:
            raise Undelivered(f"events still wait after {timeout_s} s")
        if self.strict and (new_refusals := self._losses.counts().get("refused", 0) - refusals_before):
            raise Refused(f"the service refused {new_refusals} events")
        return is_delivered

    def _flush_quietly(self, timeout_s: float) -> None:
        if self._delivery is not None:
            self._delivery.flush(timeout_s)

    def _close(self, timeout_s: float) -> bool:
        return self._delivery is None or self._delivery.close(timeout_s)

    def _infer_failed(self, error: Exception) -> None:
        self._losses.note("the service gave no answer", detail=describe_failure(error))
        if self.strict:
            raise error if isinstance(error, (InferenceFailed, InvalidEvent)) else InferenceFailed(describe_failure(error)) from error

    def _headers(self, request: Request[Result]) -> dict[str, str]:
        if self._delivery is None:
            raise InferenceFailed("not configured")
        idempotency = {"Idempotency-Key": request.idempotency_key} if request.idempotency_key else {}
        return build_headers(self._api_key) | idempotency
