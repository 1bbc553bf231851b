"""The one way in for events: validated references, an id, one conditional write."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache, partial

from ulid import ULID

from rlaas.clock import Clock, rfc3339
from rlaas.errors import Conflict, DependencyUnavailable, InvalidInput, PayloadTooLarge, RlaasError
from rlaas.ids import IdPrefix, derive_id, encode_canonical_json, hash_text, make_bound_id, new_id
from rlaas.privacy.scrub import Scrubber
from rlaas.routing.assign import Decision
from rlaas.skills.skill import Metric
from rlaas.telemetry.checking import add_decision, check_event
from rlaas.telemetry.events import (
    AnyEvent,
    EventType,
    FeedbackSubmitted,
    GuardrailActed,
    InteractionCreated,
    OutputProduced,
    RequestFailed,
    RewardComputed,
    TaskResultReported,
)
from rlaas.telemetry.feedback_token import ShownOutput, issue_feedback_token
from rlaas.telemetry.item_size import MAX_STORED_BYTES, MIN_ANSWER_BYTES, count_bytes, cut_output, may_fit
from rlaas.telemetry.permission import permit
from rlaas.telemetry.scrubbing import scrub_events
from rlaas.telemetry.store import EventStore, ShadowRole, SkillSource, StoredEvent, Trial
from rlaas.wire import check_idempotency_key

_NOT_OF_THE_EVENT = {"dryrun", "feedback_token", "preferred_feedback_token"}
"""What a request says about itself: neither stored nor part of what makes two payloads the same."""

_WAVES: tuple[tuple[EventType, ...], ...] = (("interaction",), ("output",), ("feedback", "task_result", "reward", "guardrail", "failure"))
"""Events of one batch are stored in this order, so that each finds what it refers to."""

_KINDS: dict[type[AnyEvent], tuple[EventType, str, IdPrefix]] = {
    InteractionCreated: ("interaction", "interaction_id", "int"),
    OutputProduced: ("output", "output_id", "out"),
    FeedbackSubmitted: ("feedback", "feedback_id", "fbk"),
    TaskResultReported: ("task_result", "task_result_id", "tsk"),
    RewardComputed: ("reward", "reward_id", "rew"),
    GuardrailActed: ("guardrail", "guardrail_id", "grd"),
    RequestFailed: ("failure", "failure_id", "fal"),
}


@dataclass(frozen=True, slots=True)
class RecordedEvent:
    """What became of an event: `new` or a replay, and `pending` while what it refers to has not landed."""

    event_id: str
    new: bool
    pending: bool
    feedback_token: str | None = None
    """For an output: the token by which a page that shows it gives feedback."""


def record_event(
    event: AnyEvent,
    tenant_id: str,
    store: EventStore,
    clock: Clock,
    *,
    skills: SkillSource,
    scrubber: Scrubber,
    idempotency_key: str | None = None,
    page_key_id: str | None = None,
) -> RecordedEvent:
    """Store `event` once: `record_events` of one. Raises: what it refuses the event with."""
    [outcome] = record_events(
        [event], tenant_id, store, clock, skills=skills, scrubber=scrubber, idempotency_keys=[idempotency_key], page_key_id=page_key_id
    )
    if isinstance(outcome, RlaasError):
        raise outcome
    return outcome


def record_events(
    events: Sequence[AnyEvent],
    tenant_id: str,
    store: EventStore,
    clock: Clock,
    *,
    skills: SkillSource,
    scrubber: Scrubber,
    idempotency_keys: Sequence[str | None] | None = None,
    page_key_id: str | None = None,
) -> list[RecordedEvent | RlaasError]:
    """Store each of `events` once; in their order, what became of it or why it was refused. Of several with one id the
    first is stored and the others are compared with it; else no event depends on another.

    An event's id is the body's, else derived from its idempotency key, else fresh; an id in the body is itself the
    idempotency key, so the header then has no say. What it refers to may come later (`pending`), or earlier in
    `events`; what is already there must fit. A dry run is answered as if it were stored. Texts are scrubbed before
    anything is stored. They count as received in their order, a microsecond apart, since the feedback received last is
    the one that counts. With the `page_key_id` of a publishable key they are a page's: feedback on outputs whose tokens
    it has.

    Refusals: Forbidden for what a page may not report, NotFound for an unknown skill, InvalidInput when the interaction
    or output belongs to something else, a metric is not registered or of another type, or the event occurred before
    2020 or in the future, PayloadTooLarge when it is more than an item holds once it is masked, Conflict when the id
    holds another payload, DependencyUnavailable when a write failed.
    Raises: DependencyUnavailable when nothing could be read or scrubbed.
    """
    batch = _Batch(tenant_id, clock(), scrubber, cache(partial(skills.has_skill, tenant_id)), cache(partial(skills.get_metrics, tenant_id)))
    keys = idempotency_keys or [None] * len(events)
    outcomes: dict[int, RecordedEvent | RlaasError] = {}
    permitted_events: dict[int, AnyEvent] = {}
    prepared: list[_Prepared] = []
    for place, (event, key) in enumerate(zip(events, keys, strict=True)):
        try:
            permitted_events[place] = permit(event, page_key_id, scrubber=scrubber, now=batch.received_at, idempotency_key=key)
        except RlaasError as error:
            outcomes[place] = error
    clean_events = dict(zip(permitted_events, scrub_events([*permitted_events.values()], scrubber), strict=True))
    for place, event in permitted_events.items():
        try:
            prepared.append(batch.prepare(place, event, clean_events[place], keys[place]))
        except RlaasError as error:
            outcomes[place] = error
    ids = {item.stored.event_id for item in prepared}
    existing = store.read_heads(tenant_id, {target for item in prepared for target in list_targets(item.stored).values()} - ids)
    dry_events: dict[str, StoredEvent] = {}

    def look_up(dry: Sequence[StoredEvent]) -> list[StoredEvent | None]:
        heads = store.read_heads(tenant_id, [stored.event_id for stored in dry])
        return [heads.get(stored.event_id) for stored in dry]

    for event_types in _WAVES:
        wave = [item for item in prepared if item.stored.event_type in event_types]
        answers, stored_events = _put([item for item in wave if item.dry], dry_events | existing, look_up)
        outcomes |= answers
        dry_events |= stored_events
        answers, stored_events = _put([item for item in wave if not item.dry], existing, store.put_each)
        outcomes |= answers
        existing |= stored_events
    return [outcomes[place] for place in range(len(events))]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """The event at `place` of a batch as it will be stored, or would be if it is `dry`, with an output's feedback
    token."""

    place: int
    stored: StoredEvent
    dry: bool
    token: str | None


@dataclass(frozen=True, slots=True)
class _Batch:
    """Whose events came when, and what they are checked and scrubbed with."""

    tenant_id: str
    received_at: datetime
    scrubber: Scrubber
    has_skill: Callable[[str], bool]
    metrics_of: Callable[[str], Mapping[str, Metric]]

    def prepare(self, place: int, event: AnyEvent, clean: AnyEvent, idempotency_key: str | None) -> _Prepared:
        """The event as it will be stored. Raises: the refusal of the event, an RlaasError."""
        check_event(event, received_at=self.received_at, has_skill=self.has_skill, metrics_of=self.metrics_of)
        if isinstance(event, OutputProduced):
            event, clean = (add_decision(one, event, self.scrubber, self.received_at) for one in (event, clean))
        stored = prepare(
            event,
            self.tenant_id,
            received_at=self.received_at + timedelta(microseconds=place),
            clean=clean,
            digest=self.scrubber.digest,
            idempotency_key=idempotency_key,
        )
        token = None
        if isinstance(event, OutputProduced):
            output = ShownOutput(event.skill, event.interaction_id, stored.event_id, event.thread_id, event.user_id)
            token = issue_feedback_token(output, scrubber=self.scrubber, now=self.received_at)
        return _Prepared(place, stored, event.dryrun, token)


def _put(
    events: Sequence[_Prepared],
    existing: Mapping[str, StoredEvent],
    put_each: Callable[[Sequence[StoredEvent]], Sequence[StoredEvent | DependencyUnavailable | None]],
) -> tuple[dict[int, RecordedEvent | RlaasError], dict[str, StoredEvent]]:
    """Put those of `events` whose references fit the `existing` events, of several with one id the first.

    What became of each, by its place; and what is stored now, by id.
    """
    outcomes: dict[int, RecordedEvent | RlaasError] = {}
    fitting: list[_Prepared] = []
    first: dict[str, StoredEvent] = {}
    for item in events:
        try:
            stored = replace(item.stored, pending=_is_pending(item.stored, existing))
        except InvalidInput as error:
            outcomes[item.place] = error
            continue
        fitting.append(replace(item, stored=stored))
        first.setdefault(stored.event_id, stored)
    answers = dict(zip(first, put_each([*first.values()]), strict=True)) if first else {}
    stored_events: dict[str, StoredEvent] = {}
    for item in fitting:
        leader = first[item.stored.event_id]
        answer = answers[item.stored.event_id]
        outcomes[item.place] = _build_outcome(item.stored, answer if item.stored is leader else answer or leader, item.token)
        if not isinstance(answer, DependencyUnavailable):
            stored_events[leader.event_id] = answer or leader
    return outcomes, stored_events


def _build_outcome(
    stored: StoredEvent, answer: StoredEvent | DependencyUnavailable | None, token: str | None
) -> RecordedEvent | RlaasError:
    if isinstance(answer, DependencyUnavailable):
        return answer
    if answer is not None and not is_same_event(answer, stored):
        return Conflict(f"the id {stored.event_id!r} holds another payload", param=f"{stored.event_type}_id")
    return RecordedEvent(event_id=stored.event_id, new=answer is None, pending=stored.pending, feedback_token=token)


def prepare(
    event: AnyEvent,
    tenant_id: str,
    *,
    received_at: datetime,
    clean: AnyEvent | None = None,
    digest: Callable[[str], str] | None = hash_text,
    idempotency_key: str | None = None,
) -> StoredEvent:
    """`event` as it will be stored: `clean`, which is it without personal data, with its id and time filled in, and the
    `digest` of what the client sent, by which a replay is known; None where no client sent it. Raises: PayloadTooLarge
    when it is more than an item holds, masks included."""
    event_type, id_field, prefix = _KINDS[type(event)]
    about = event.about if isinstance(event, FeedbackSubmitted) else event.interaction_id
    event_id: str = getattr(event, id_field) or make_id(tenant_id, event_type, prefix, idempotency_key, about)
    output_id = event.output_id if isinstance(event, FeedbackSubmitted | RewardComputed | GuardrailActed) else None
    interaction_id = about or (event_id if event_type == "interaction" else None)
    occurred_at = event.occurred_at or received_at
    decision = event.decision if isinstance(event, OutputProduced | RequestFailed) else None
    fields = (clean or event).model_dump(mode="json", exclude_none=True, exclude=_NOT_OF_THE_EVENT)
    fields |= {id_field: event_id, "occurred_at": rfc3339(occurred_at)}
    if interaction_id is not None:
        fields["interaction_id"] = interaction_id
    payload = encode_canonical_json(fields)
    if (size := count_bytes(payload)) > MAX_STORED_BYTES:
        raise PayloadTooLarge(
            f"the event has {size} bytes with its personal data masked; at most {MAX_STORED_BYTES} are stored: send it in smaller parts"
        )
    return StoredEvent(
        event_type=event_type,
        event_id=event_id,
        tenant_id=tenant_id,
        skill=event.skill,
        interaction_id=interaction_id,
        output_id=event_id if event_type == "output" else output_id,
        thread_id=event.thread_id,
        policy_id=_find_policy(event),
        occurred_at=occurred_at,
        received_at=received_at,
        payload_sha256=digest(_encode_sent(event, id_field)) if digest is not None else None,
        payload=payload,
        shadow_roles=_list_shadow_roles(decision) if isinstance(event, OutputProduced) and decision is not None else (),
        trial=Trial.of(decision) if decision is not None else None,
    )


def _encode_sent(event: AnyEvent, id_field: str) -> str:
    """The canonical JSON of what the client sent, without the event's id."""
    return encode_canonical_json(event.model_dump(mode="json", exclude_unset=True, exclude={id_field, "page_key_id", *_NOT_OF_THE_EVENT}))


def _find_policy(event: AnyEvent) -> str | None:
    if isinstance(event, RequestFailed):
        return event.decision.policy_id
    return event.policy_id if isinstance(event, OutputProduced | RewardComputed | GuardrailActed) else None


def _list_shadow_roles(decision: Decision) -> tuple[ShadowRole, ...]:
    shadow_roles: dict[ShadowRole, bool] = {"mirrored": bool(decision.shadows), "shadow": decision.shadow}
    return tuple(role for role, holds in shadow_roles.items() if holds)


def _prepare_clean(event: AnyEvent, tenant_id: str, *, received_at: datetime, scrubber: Scrubber) -> StoredEvent:
    """`event` as it will be stored, scrubbed. Raises: DependencyUnavailable."""
    [clean] = scrub_events([event], scrubber)
    return prepare(event, tenant_id, received_at=received_at, clean=clean, digest=scrubber.digest)


def prepare_request(request: InteractionCreated, tenant_id: str, *, received_at: datetime, scrubber: Scrubber) -> StoredEvent:
    """`request`, which the gateway answers, as it will be stored, scrubbed. A conversation that is larger than an item
    holds is left out as a whole, and `metadata` then names it under `cut`.

    Raises: PayloadTooLarge for the rest of the request, DependencyUnavailable.
    """
    if may_fit(request.messages, MAX_STORED_BYTES):
        try:
            return _prepare_clean(request, tenant_id, received_at=received_at, scrubber=scrubber)
        except PayloadTooLarge:
            if not request.messages:
                raise
    [clean] = scrub_events([request.model_copy(update={"messages": (), "metadata": {**request.metadata, "cut": ["messages"]}})], scrubber)
    return prepare(request, tenant_id, received_at=received_at, clean=clean, digest=scrubber.digest)


def prepare_answers(outputs: Sequence[OutputProduced], tenant_id: str, *, received_at: datetime, scrubber: Scrubber) -> list[StoredEvent]:
    """`outputs`, which are paid for, as they will be stored, scrubbed in one go. What is larger than an item holds is
    cut: its text at the end; tool calls, the prompt and what the model thought as a whole. `metadata` then names the
    cut fields, under `cut`. Raises: DependencyUnavailable."""
    stored: list[StoredEvent] = []
    for output, clean in zip(outputs, scrub_events([*map(_leave_out_messages, outputs)], scrubber), strict=True):
        assert isinstance(clean, OutputProduced)
        try:
            stored.append(prepare(output, tenant_id, received_at=received_at, clean=clean, digest=None))
        except PayloadTooLarge:
            stored.append(prepare(output, tenant_id, received_at=received_at, clean=cut_output(clean), digest=None))
    return stored


def _leave_out_messages(output: OutputProduced) -> OutputProduced:
    """`output`, without its prompt where that is larger than an item holds."""
    if may_fit(output.messages, MAX_STORED_BYTES - MIN_ANSWER_BYTES):
        return output
    return output.model_copy(update={"messages": None, "metadata": {**output.metadata, "cut": ["messages"]}})


def is_same_event(one: StoredEvent, other: StoredEvent) -> bool:
    """Whether two events with one id came from the same payload."""
    return (one.event_type, one.payload_sha256) == (other.event_type, other.payload_sha256)


def make_id(tenant_id: str, event_type: EventType, prefix: IdPrefix, idempotency_key: str | None, interaction_id: str | None = None) -> str:
    """The id of an event that brings none: the one its idempotency key always gives, else a fresh one that names the
    interaction it is about, where it can. Raises: InvalidInput."""
    if idempotency_key is not None:
        check_idempotency_key(idempotency_key)
        return derive_id(prefix, tenant_id, event_type, idempotency_key)
    return (interaction_id and make_bound_id(prefix, interaction_id, str(ULID())[-10:])) or new_id(prefix)


def list_targets(event: StoredEvent) -> dict[str, str]:
    """What `event` refers to, by field."""
    if event.event_type == "interaction" or event.interaction_id is None:
        return {}
    targets = {"interaction_id": event.interaction_id}
    if event.event_type == "feedback" and event.output_id is not None:
        targets["output_id"] = event.output_id
    return targets


def _is_pending(event: StoredEvent, existing: Mapping[str, StoredEvent]) -> bool:
    for field, event_id in list_targets(event).items():
        target = existing.get(event_id)
        if target is None:
            continue
        expected_type = field.removesuffix("_id")
        if (target.event_type, target.skill, target.interaction_id) != (expected_type, event.skill, event.interaction_id):
            raise InvalidInput(f"{event_id!r} is not an {expected_type} of this skill and interaction", param=field)
    return not has_landed(event, existing)


def has_landed(event: StoredEvent, ids: Container[str]) -> bool:
    """Whether `ids` hold everything that `event` refers to."""
    return all(target in ids for target in list_targets(event).values())
