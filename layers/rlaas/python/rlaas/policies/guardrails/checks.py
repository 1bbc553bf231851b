"""A policy's guardrails at work: what comes in before the backend sees it, what goes out before the caller does.

Each guardrail is looked at in the policy's order and sees what those before it left; a block ends the round. Whatever one does is a
`GuardrailAction`, and `acted` makes events of them. No action carries a text of the request or the answer.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Literal

from rlaas.chat import Document, Message, ToolCall
from rlaas.ids import canonical_json
from rlaas.metering.budgets import estimated_tokens
from rlaas.policies.guardrails.groundedness import GroundednessScorer, LexicalOverlap
from rlaas.policies.guardrails.injection import suspicion
from rlaas.policies.guardrails.moderation import Judgement, Moderator
from rlaas.policies.guardrails.refusal import refusal_score
from rlaas.policies.guardrails.settings import (
    AllowList,
    AnswerBlockList,
    BlockList,
    Groundedness,
    Guardrails,
    Injection,
    InputGuardrail,
    InputRule,
    OutputGuardrail,
    OutputRule,
    PersonalData,
    PersonalDataLeak,
    Refusal,
    Service,
    SizeLimit,
    StructuredOutput,
    Topic,
    Topics,
    pattern_of,
)
from rlaas.policies.guardrails.terms import Hit, Terms
from rlaas.policies.json_schema import MAX_LOOKS, looks, schema_validator, values_in
from rlaas.privacy.patterns import Span
from rlaas.privacy.reading import read
from rlaas.privacy.scrub import Scrubber, canonical
from rlaas.privacy.settings import PATTERN_ENTITIES, PatternEntity, PrivacySettings, Work

if TYPE_CHECKING:
    import jsonschema_rs

Action = Literal["block", "redact", "regenerate", "flag"]
Stage = Literal["input", "output"]

MAX_CHARACTERS = 512 * 1024
"""The longest text that guardrails look at, twice the largest prompt; a longer one is a guardrail's failure."""
MAX_EXPLAINED = 16 * 1024
"""Characters of an answer of which it is told where it does not fit its schema."""
REFUSED = 0.5
"""From this score on an answer is a refusal."""
SCORERS: Mapping[str, GroundednessScorer] = {"lexical": LexicalOverlap()}
"""The groundedness scorers that a policy can name."""
_FENCE = re.compile(r"\s{0,100}```[A-Za-z0-9]{0,20}[ \t]{0,20}\r?\n(.*)\r?\n[ \t]{0,20}```\s{0,100}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class GuardrailAction:
    """What a guardrail did and why, without a word of the text. `failed`: it could not look, and did what its `on_failure` says."""

    guardrail: str
    kind: str
    stage: Stage
    action: Action
    reason: str
    score: float | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class InputVerdict:
    """What may go to the backend: the messages, inputs and documents, redacted where a guardrail did. When `blocked`, nothing may, and
    `answer` is what the caller gets instead."""

    messages: tuple[Message, ...]
    inputs: dict[str, str]
    documents: tuple[Document, ...]
    blocked: bool
    answer: str | None
    actions: tuple[GuardrailAction, ...]


@dataclass(frozen=True, slots=True)
class OutputVerdict:
    """What the caller gets: `text`, `tool_calls` and `refusal`, redacted where a guardrail did; when `blocked`, the safe answer
    and neither calls nor a refusal.
    `regenerate` asks for one more answer from the backend in their place, which is then checked with `again=True`."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    refusal: str | None
    blocked: bool
    regenerate: bool
    actions: tuple[GuardrailAction, ...]


@dataclass(frozen=True, slots=True)
class _Find:
    """Why a guardrail acts, and the texts as they are without what it found, where it can take that out."""

    reason: str
    score: float | None = None
    without: Callable[[], list[str]] | None = None
    must_block: bool = False
    """Where it is asked to take out what it found, that is not enough."""


@dataclass(frozen=True, slots=True)
class _Given:
    """What an output is judged by."""

    asked: Sequence[str] = ()
    documents: Sequence[str] = ()
    refusal: str | None = None
    calls_tools: bool = False
    scorers: Mapping[str, GroundednessScorer] = field(default_factory=dict)


def check_input(
    config: Guardrails,
    messages: Sequence[Message] = (),
    inputs: Mapping[str, str] | None = None,
    documents: Sequence[Document] = (),
    *,
    tenant_id: str = "",
    moderator: Moderator | None = None,
) -> InputVerdict:
    """Look at what a caller sent: the messages of a chat, the inputs of a prompt before it is rendered, and documents, which anybody may
    have written. What a request must speak of to be let in, its documents do not say for it. Linear in their texts.
    Guardrails that services judge by are asked through `moderator` on behalf of `tenant_id`."""
    given = dict(inputs or {})
    asked = [*given.values(), *_texts_of(messages)]
    texts = [*asked, *(text for document in documents for text in (document.text, document.source))]
    untrusted = [True] * len(given) + _untrusted(messages) + [True] * (2 * len(documents))
    actions: list[GuardrailAction] = []
    blocked = False
    for guardrail in config.input:
        from_outside = [text for text, outside in zip(texts, untrusted, strict=True) if outside]
        match guardrail:
            case Service():
                ask = _asking(guardrail, moderator, "input", tenant_id)
                look: Callable[[], _Find | None] = partial(_judged, ask, from_outside, texts)
            case Injection():
                look = partial(_look_at_input, guardrail, from_outside, len(messages))
            case AllowList() | Topics():
                look = partial(_look_at_input, guardrail, texts[: len(asked)], len(messages))
            case _:
                look = partial(_look_at_input, guardrail, texts, len(messages))
        texts, action = _acted_on(guardrail, "input", look, texts, guardrail.action)
        if action is not None:
            actions.append(action)
            if action.action == "block":
                blocked = True
                break
    return InputVerdict(
        messages=tuple(messages) if blocked else _with_texts(messages, texts[len(given) : len(asked)]),
        inputs=given if blocked else dict(zip(given, texts, strict=False)),
        documents=tuple(documents) if blocked else _documents_with(documents, texts[len(asked) :]),
        blocked=blocked,
        answer=config.safe_answer if blocked else None,
        actions=tuple(actions),
    )


def check_output(
    config: Guardrails,
    text: str,
    *,
    tool_calls: Sequence[ToolCall] = (),
    refusal: str | None = None,
    asked: Sequence[Message] = (),
    inputs: Mapping[str, str] | None = None,
    documents: Sequence[str] = (),
    again: bool = False,
    scorers: Mapping[str, GroundednessScorer] = SCORERS,
    tenant_id: str = "",
    moderator: Moderator | None = None,
) -> OutputVerdict:
    """Look at a whole answer. `asked` and `inputs` are what the caller sent, before it was redacted; `documents` what retrieval added;
    `refusal` the backend's own word for one. `again` says that this is the second answer, of which none is asked for again."""
    given = _Given(
        asked=[*(inputs or {}).values(), *_texts_of(asked)],
        documents=documents,
        refusal=refusal,
        calls_tools=bool(tool_calls),
        scorers=scorers,
    )
    texts = [text, *(call.function.arguments for call in tool_calls), *([refusal] if refusal is not None else [])]
    actions: list[GuardrailAction] = []
    blocked = regenerate = False
    for guardrail in config.output:
        wanted: Action = guardrail.action
        if wanted == "regenerate" and again:
            wanted = guardrail.then or "block"
        if isinstance(guardrail, StructuredOutput) and guardrail.fences == "unwrap" and (bare := _unfenced(texts[0])) is not None:
            texts = [bare, *texts[1:]]
            actions.append(GuardrailAction(guardrail.label, guardrail.kind, "output", "redact", "took the code fence off"))
        match guardrail:
            case Service():
                ask = _asking(guardrail, moderator, "output", tenant_id)
                look: Callable[[], _Find | None] = partial(_judged, ask, texts, texts)
            case _:
                look = partial(_look_at_output, guardrail, texts, given)
        texts, action = _acted_on(guardrail, "output", look, texts, wanted)
        if action is None:
            continue
        actions.append(action)
        blocked = action.action == "block"
        regenerate = action.action == "regenerate"
        if blocked or regenerate:
            break
    calls = tuple(
        call.model_copy(update={"function": call.function.model_copy(update={"arguments": arguments})})
        for call, arguments in zip(tool_calls, texts[1:], strict=False)
    )
    return OutputVerdict(
        text=config.safe_answer if blocked else texts[0],
        tool_calls=() if blocked else calls,
        refusal=None if blocked or refusal is None else texts[-1],
        blocked=blocked,
        regenerate=regenerate,
        actions=tuple(actions),
    )


def needs_whole_output(config: Guardrails) -> bool:
    """Whether an answer can only be given whole: some guardrail of outputs may withhold or change it. When none may, the pieces of
    a stream can pass and be looked at together when they are through."""
    return any(
        guardrail.action != "flag" or guardrail.fails_closed or (isinstance(guardrail, StructuredOutput) and guardrail.fences == "unwrap")
        for guardrail in config.output
    )


def _acted_on(
    guardrail: InputGuardrail | OutputGuardrail, stage: Stage, look: Callable[[], _Find | None], texts: list[str], wanted: Action
) -> tuple[list[str], GuardrailAction | None]:
    """What the texts become, and what was done. A guardrail that raises whatever error has failed."""
    action = GuardrailAction(guardrail.label, guardrail.kind, stage, wanted, "")
    try:
        if any(len(text) > MAX_CHARACTERS for text in texts) and not isinstance(guardrail, SizeLimit):
            raise ValueError("too long to be looked at")
        find = look()
        if find is None:
            return texts, None
        if wanted == "redact" and find.must_block:
            action = replace(action, action="block")
        elif wanted == "redact" and find.without is not None:
            texts = find.without()
        return texts, replace(action, reason=find.reason[:128], score=None if find.score is None else round(find.score, 3))
    except Exception as error:
        done: Action = "block" if guardrail.fails_closed else "flag"
        return texts, replace(action, action=done, reason=f"failed: {type(error).__name__}"[:128], failed=True)


def _asking(guardrail: Service, moderator: Moderator | None, stage: Stage, tenant_id: str) -> Callable[[Sequence[str]], Judgement | None]:
    """What asks the guardrail's service. Raises: ValueError, when it is called, where nothing here can ask."""

    def ask(texts: Sequence[str]) -> Judgement | None:
        if moderator is None:
            raise ValueError("nothing here asks services")
        return moderator.judge(guardrail, texts, source=stage, tenant_id=tenant_id)

    return ask


def _judged(ask: Callable[[Sequence[str]], Judgement | None], asked_about: Sequence[str], texts: Sequence[str]) -> _Find | None:
    """What a service finds in the texts it is asked about, which is then taken out of all `texts`."""
    said = [text for text in asked_about if text.strip()]
    judgement = ask(said) if said else None
    if judgement is None:
        return None

    def without() -> list[str]:
        readings = [*map(read, texts)]
        spans = [[*_occurrences(reading.text, judgement.found)] for reading in readings]
        return [reading.replaced(_apart(found), lambda _, label: f"<{label}>") for reading, found in zip(readings, spans, strict=True)]

    return _Find(", ".join(judgement.reasons[:4]), score=judgement.score, without=without, must_block=judgement.must_block)


def _occurrences(text: str, found: Sequence[tuple[str, str]]) -> Iterator[Span]:
    for stretch, label in dict.fromkeys(found):
        for match in re.finditer(re.escape(stretch), text):
            yield Span(match.start(), match.end(), label)


def _look_at_input(guardrail: InputRule, texts: list[str], messages: int) -> _Find | None:
    match guardrail:
        case SizeLimit():
            return _too_long(guardrail, texts, messages)
        case PersonalData():
            return _personal_data(guardrail.entities, guardrail.allow, texts)
        case BlockList():
            return _listed(guardrail, texts)
        case AllowList():
            return None if any(_hits(guardrail, text) for text in texts) else _Find("none of the allowed terms")
        case Injection():
            found = max((suspicion(text) for text in texts), key=lambda found: found.score, default=None)
            if found is None or found.score < guardrail.threshold or not found.signals:
                return None
            return _Find(", ".join(found.signals[:4]), score=found.score)
        case Topics():
            return _topics(guardrail, texts)


def _look_at_output(guardrail: OutputRule, texts: list[str], given: _Given) -> _Find | None:
    match guardrail:
        case PersonalDataLeak():
            known = frozenset[tuple[str, str]]()
            scrubber = _scrubber(guardrail.entities, guardrail.allow)
            if any(scrubber.found(read(text).text) for text in texts):
                known = frozenset(
                    (span.entity, canonical(text[span.start : span.end], span.entity))
                    for text in (read(text).text for text in (*given.asked, *given.documents))
                    for span in scrubber.found(text)
                )
            return _personal_data(guardrail.entities, guardrail.allow, texts, known)
        case AnswerBlockList():
            return _listed(guardrail, texts)
        case Refusal():
            score = 1.0 if given.refusal else refusal_score(texts[0])
            return _Find("declines to answer", score=score) if score >= REFUSED else None
        case StructuredOutput():
            return None if given.calls_tools and not texts[0] else _unfit(guardrail, texts[0])
        case Groundedness():
            score = given.scorers[guardrail.scorer].score(texts[0], given.documents)
            if not 0 <= score <= 1:
                raise ValueError("a score lies between 0 and 1")
            return _Find("too little of it stands in the documents", score=score) if score < guardrail.min_score else None


def _too_long(limit: SizeLimit, texts: Sequence[str], messages: int) -> _Find | None:
    if limit.max_characters is not None and (long := sum(map(len, texts))) > limit.max_characters:
        return _Find(f"{long} characters, at most {limit.max_characters}")
    if limit.max_tokens is not None and (long := estimated_tokens(texts)) > limit.max_tokens:
        return _Find(f"about {long} tokens, at most {limit.max_tokens}")
    if limit.max_messages is not None and messages > limit.max_messages:
        return _Find(f"{messages} messages, at most {limit.max_messages}")
    return None


@lru_cache(maxsize=128)
def _scrubber(entities: tuple[PatternEntity, ...], allow: tuple[str, ...]) -> Scrubber:
    actions = {entity: "mask" if entity in entities else "keep" for entity in PATTERN_ENTITIES}
    return Scrubber(PrivacySettings.model_validate({"actions": actions, "allow": allow}), salt=b"")


def _personal_data(
    entities: tuple[PatternEntity, ...], allow: tuple[str, ...], texts: Sequence[str], known: frozenset[tuple[str, str]] = frozenset()
) -> _Find | None:
    scrubber = _scrubber(entities, allow)
    readings = [*map(read, texts)]
    spans = [_unknown(reading.text, scrubber.found(reading.text), known) for reading in readings]
    kinds = Counter(span.entity for found in spans for span in found)
    if not kinds:
        return None
    return _Find(
        ", ".join(f"{entity} x{times}" for entity, times in sorted(kinds.items())),
        without=lambda: [scrubber.replaced(*each) for each in zip(readings, spans, strict=True)],
    )


def _unknown(text: str, spans: list[Span], known: frozenset[tuple[str, str]]) -> list[Span]:
    """The spans that do not lie within known ones."""
    if not known or not spans:
        return spans
    covered = bytearray(len(text))
    for span in spans:
        if (span.entity, canonical(text[span.start : span.end], span.entity)) in known:
            covered[span.start : span.end] = b"\x01" * (span.end - span.start)
    return [span for span in spans if covered.find(0, span.start, span.end) >= 0]


@lru_cache(maxsize=256)
def _terms(terms: tuple[str, ...]) -> Terms:
    return Terms(terms)


def _hits(listed: BlockList | AllowList | AnswerBlockList, text: str) -> list[Hit]:
    """What of a list stands in `text`; patterns count on from the terms."""
    hits = list(_terms(listed.terms).hits(text)) if listed.terms else []
    work = Work()
    for position, pattern in enumerate(listed.patterns, start=len(listed.terms)):
        hits += [Hit(position, start, end) for start, end in work.finds(pattern_of(pattern), text)]
    return hits


def _listed(listed: BlockList | AnswerBlockList, texts: Sequence[str]) -> _Find | None:
    readings = [*map(read, texts)]
    found: list[list[Hit]] = []
    for reading in readings:
        hits = _hits(listed, reading.text)
        if hits and listed.excuses:
            excused = bytearray(len(reading.text))
            for excuse in _terms(listed.excuses).hits(reading.text):
                excused[excuse.start : excuse.end] = b"\x01" * (excuse.end - excuse.start)
            hits = [hit for hit in hits if excused.find(0, hit.start, hit.end) >= 0]
        found.append(hits)
    matched = sorted({hit.term for hits in found for hit in hits})
    if not matched:
        return None
    entries = ", ".join(
        f"term {term + 1}" if term < len(listed.terms) else f"pattern {term - len(listed.terms) + 1}" for term in matched[:8]
    )
    return _Find(
        entries,
        without=lambda: [
            reading.replaced(_apart(Span(hit.start, hit.end, "BLOCKED") for hit in hits), lambda _, label: f"<{label}>")
            for reading, hits in zip(readings, found, strict=True)
        ],
    )


def _apart(spans: Iterable[Span]) -> list[Span]:
    """The runs of overlapping spans, in order, each as its first."""
    runs: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if runs and span.start < runs[-1].end:
            runs[-1] = Span(runs[-1].start, max(runs[-1].end, span.end), runs[-1].entity)
        else:
            runs.append(span)
    return runs


def _topics(topics: Topics, texts: Sequence[str]) -> _Find | None:
    denied = next((topic for topic in topics.denied if _spoken_of(topic, texts)), None)
    if denied is not None:
        return _Find(f"speaks of {denied.name}")
    if topics.allowed and not any(_spoken_of(topic, texts) for topic in topics.allowed):
        return _Find("speaks of none of the allowed topics")
    return None


def _spoken_of(topic: Topic, texts: Sequence[str]) -> bool:
    return len({hit.term for text in texts for hit in _terms(topic.terms).hits(text)}) >= topic.at_least


def _unfit(guardrail: StructuredOutput, text: str) -> _Find | None:
    """Why `text` is not JSON of the schema: where in the schema, never what stands in the text."""
    schema = canonical_json(guardrail.json_schema)
    validator = schema_validator(schema)
    if values_in(text) * looks(schema) > MAX_LOOKS:
        return _Find("too large to be held against the schema")
    try:
        value = json.loads(text, parse_constant=_no_constant)
        return None if validator.is_valid(value) else _Find("does not fit the schema" + _misfit(validator, value, len(text)))
    except (ValueError, RecursionError):  # half a surrogate pair or hundreds of levels parse, and cannot be validated
        return _Find("not JSON")


def _misfit(validator: "jsonschema_rs.Validator", value: object, characters: int) -> str:
    """Where the first misfit is, for answers of ordinary length: an error tells of all that failed below it, which can be quadratic."""
    if characters > MAX_EXPLAINED:
        return ""
    import jsonschema_rs

    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return " at " + "/".join(map(str, error.schema_path))
    return ""


def _unfenced(text: str) -> str | None:
    """The JSON that one code fence around all of `text` holds."""
    fenced = _FENCE.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    if fenced is None:
        return None
    try:
        json.loads(fenced[1])
    except (ValueError, RecursionError):
        return None
    return str(fenced[1])


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _texts_of(messages: Sequence[Message]) -> list[str]:
    """Every text of the messages: contents, and the arguments of calls."""
    return [text for message in messages for text in (message.content, *(call.function.arguments for call in message.tool_calls))]


def _untrusted(messages: Sequence[Message]) -> list[bool]:
    """Of each text of the messages, whether someone else than the application and its model wrote it."""
    return [message.role in ("user", "tool") for message in messages for _ in range(1 + len(message.tool_calls))]


def _documents_with(documents: Sequence[Document], texts: Sequence[str]) -> tuple[Document, ...]:
    """The documents with `texts`, two of each, in place of their own."""
    pairs = zip(documents, texts[::2], texts[1::2], strict=True)
    return tuple(document.model_copy(update={"text": text, "source": source}) for document, text, source in pairs)


def _with_texts(messages: Sequence[Message], texts: Sequence[str]) -> tuple[Message, ...]:
    """The messages with `texts`, in the order of `_texts_of`, in place of their own; those that stay the same are the same objects."""
    left = iter(texts)
    made = []
    for message in messages:
        content = next(left)
        arguments = [next(left) for _ in message.tool_calls]
        same = content == message.content and all(
            call.function.arguments == text for call, text in zip(message.tool_calls, arguments, strict=True)
        )
        if same:
            made.append(message)
            continue
        calls = tuple(
            call.model_copy(update={"function": call.function.model_copy(update={"arguments": text})})
            for call, text in zip(message.tool_calls, arguments, strict=True)
        )
        made.append(message.model_copy(update={"content": content, "tool_calls": calls}))
    return tuple(made)
