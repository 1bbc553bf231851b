"""Applies a policy's guardrails: to a request before the backend sees it, and to an answer before the caller does.

Guardrails look one after another, in the policy's order, at the texts as the ones before left them; after a block, no
more do. Each `GuardrailAction` becomes an event. No action contains a text of the request or the answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from rlaas.chat import Document, Message, ToolCall
from rlaas.policies.guardrails.groundedness import SCORERS, GroundednessScorer
from rlaas.policies.guardrails.guardrail import MAX_CHARACTERS, Action, AnswerTexts, Find, Guardrail, GuardrailStage, RequestTexts
from rlaas.policies.guardrails.guardrail_list import Guardrails
from rlaas.policies.guardrails.moderation import Judgement, Moderator, Service
from rlaas.policies.guardrails.size import SizeLimit
from rlaas.policies.guardrails.structured_output import StructuredOutput


@dataclass(frozen=True, slots=True)
class GuardrailAction:
    """What a guardrail did and why, without any of the text. `failed`: it could not check the text, and did what its
    `on_failure` says."""

    guardrail: str
    kind: str
    stage: GuardrailStage
    action: Action
    reason: str
    score: float | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class InputVerdict:
    """The messages, inputs and documents that go to the backend, redacted by the guardrails. When `blocked`, nothing
    goes there, and `answer` is what the caller gets instead."""

    messages: tuple[Message, ...]
    inputs: dict[str, str]
    documents: tuple[Document, ...]
    blocked: bool
    answer: str | None
    actions: tuple[GuardrailAction, ...]


@dataclass(frozen=True, slots=True)
class OutputVerdict:
    """What the caller gets: `text`, `tool_calls` and `refusal`, redacted by the guardrails; when `blocked`, the safe
    answer without calls or a refusal. `regenerate`: the backend has to be asked for a second answer instead, which is
    then checked with `again=True`."""

    text: str
    tool_calls: tuple[ToolCall, ...]
    refusal: str | None
    blocked: bool
    regenerate: bool
    actions: tuple[GuardrailAction, ...]


def check_input(
    config: Guardrails,
    messages: Sequence[Message] = (),
    inputs: Mapping[str, str] | None = None,
    documents: Sequence[Document] = (),
    *,
    tenant_id: str = "",
    moderator: Moderator | None = None,
) -> InputVerdict:
    """Check what a caller sent: the messages of a chat, the inputs of a prompt before it is rendered, and documents,
    which anybody may have written. Images, sounds and files are not looked at. Topics and terms that a request must
    have do not count in its documents. Services are asked through `moderator` on behalf of `tenant_id`. Apart from
    services, takes time linear in the texts."""
    input_texts = dict(inputs or {})
    without_documents = len(input_texts) + len(_list_texts(messages))
    texts = [*input_texts.values(), *_list_texts(messages), *(text for document in documents for text in (document.text, document.source))]
    untrusted_flags = [True] * len(input_texts) + _list_untrusted(messages) + [True] * (2 * len(documents))
    judge = partial(_judge, moderator, "input", tenant_id)
    actions: list[GuardrailAction] = []
    blocked = False
    for guardrail in config.input:
        request = RequestTexts(
            texts=texts,
            without_documents=texts[:without_documents],
            untrusted=[text for text, from_outside in zip(texts, untrusted_flags, strict=True) if from_outside],
            messages=len(messages),
            judge=judge,
        )
        texts, action = _apply(guardrail, "input", partial(guardrail.look_at, request), texts, guardrail.action)
        if action is not None:
            actions.append(action)
            if action.action == "block":
                blocked = True
                break
    return InputVerdict(
        messages=tuple(messages) if blocked else _replace_texts(messages, texts[len(input_texts) : without_documents]),
        inputs=input_texts if blocked else dict(zip(input_texts, texts, strict=False)),
        documents=tuple(documents) if blocked else _replace_documents(documents, texts[without_documents:]),
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
    messages: Sequence[Message] = (),
    inputs: Mapping[str, str] | None = None,
    documents: Sequence[str] = (),
    again: bool = False,
    scorers: Mapping[str, GroundednessScorer] = SCORERS,
    tenant_id: str = "",
    moderator: Moderator | None = None,
) -> OutputVerdict:
    """Check a whole answer. `messages` and `inputs` are what the caller sent, before it was redacted; `documents` are
    what retrieval added; `refusal` is the text of a refusal that the backend itself reports. `again` says that this is
    the second answer, after which there is no third."""
    answer = AnswerTexts(
        texts=[text, *(call.function.arguments for call in tool_calls), *([refusal] if refusal is not None else [])],
        refusal=refusal,
        calls_tools=bool(tool_calls),
        request=[*(inputs or {}).values(), *_list_texts(messages)],
        documents=documents,
        scorers=scorers,
        judge=partial(_judge, moderator, "output", tenant_id),
    )
    actions: list[GuardrailAction] = []
    blocked = regenerate = False
    for guardrail in config.output:
        planned_action: Action = guardrail.action
        if planned_action == "regenerate" and again:
            planned_action = guardrail.then or "block"
        if isinstance(guardrail, StructuredOutput) and (inner := guardrail.unwrap(answer.texts[0])) is not None:
            answer = answer._replace(texts=[inner, *answer.texts[1:]])
            actions.append(GuardrailAction(guardrail.label, guardrail.kind, "output", "redact", "took the code fence off"))
        texts, action = _apply(guardrail, "output", partial(guardrail.look_at, answer), answer.texts, planned_action)
        if action is None:
            continue
        answer = answer._replace(texts=texts)
        actions.append(action)
        blocked = action.action == "block"
        regenerate = action.action == "regenerate"
        if blocked or regenerate:
            break
    calls = tuple(
        call.model_copy(update={"function": call.function.model_copy(update={"arguments": arguments})})
        for call, arguments in zip(tool_calls, answer.texts[1:], strict=False)
    )
    return OutputVerdict(
        text=config.safe_answer if blocked else answer.texts[0],
        tool_calls=() if blocked else calls,
        refusal=None if blocked or refusal is None else answer.texts[-1],
        blocked=blocked,
        regenerate=regenerate,
        actions=tuple(actions),
    )


def needs_whole_output(config: Guardrails) -> bool:
    """Whether an answer must be checked before the caller gets any of it, because a guardrail may block or change it.
    If none may, a stream's pieces can pass at once, and are checked together at the end."""
    return any(
        guardrail.action != "flag" or guardrail.fails_closed or (isinstance(guardrail, StructuredOutput) and guardrail.fences == "unwrap")
        for guardrail in config.output
    )


def _apply(
    guardrail: Guardrail, stage: GuardrailStage, look: Callable[[], Find | None], texts: list[str], planned_action: Action
) -> tuple[list[str], GuardrailAction | None]:
    """The texts after the guardrail, and what it did. A guardrail that raises any error has failed."""
    action = GuardrailAction(guardrail.label, guardrail.kind, stage, planned_action, "")
    try:
        if any(len(text) > MAX_CHARACTERS for text in texts) and not isinstance(guardrail, SizeLimit):
            raise ValueError("the text is too long to check")
        find = look()
        if find is None:
            return texts, None
        if planned_action == "redact" and find.must_block:
            action = replace(action, action="block")
        elif planned_action == "redact" and find.without is not None:
            texts = find.without()
        return texts, replace(action, reason=find.reason[:128], score=None if find.score is None else round(find.score, 3))
    except Exception as error:
        instead: Action = "block" if guardrail.fails_closed else "flag"
        return texts, replace(action, action=instead, reason=f"failed: {type(error).__name__}"[:128], failed=True)


def _judge(moderator: Moderator | None, stage: GuardrailStage, tenant_id: str, service: Service, texts: Sequence[str]) -> Judgement | None:
    if moderator is None:
        raise ValueError("there is no moderator to ask services with")
    return moderator.judge(service, texts, source=stage, tenant_id=tenant_id)


def _list_texts(messages: Sequence[Message]) -> list[str]:
    """Every text of the messages: their contents, who says them, what the assistant thought, and the arguments of
    their tool calls."""
    return [text for message in messages for text in _read_texts(message)]


def _read_texts(message: Message) -> tuple[str, ...]:
    thoughts = () if message.reasoning_content is None else (message.reasoning_content,)
    names = () if message.name is None else (message.name,)
    return (message.content, *names, *thoughts, *(call.function.arguments for call in message.tool_calls))


def _list_untrusted(messages: Sequence[Message]) -> list[bool]:
    """For each text of the messages, whether somebody other than the application and its model wrote it."""
    return [message.role in ("user", "tool") for message in messages for _ in _read_texts(message)]


def _replace_documents(documents: Sequence[Document], texts: Sequence[str]) -> tuple[Document, ...]:
    """The documents with `texts`, two of each, in place of their own."""
    pairs = zip(documents, texts[::2], texts[1::2], strict=True)
    return tuple(document.model_copy(update={"text": text, "source": source}) for document, text, source in pairs)


def _replace_texts(messages: Sequence[Message], texts: Sequence[str]) -> tuple[Message, ...]:
    """The messages with `texts`, in the order of `_list_texts`, in place of their own; unchanged messages stay the same
    objects. Where a text changes, the images in it go before it, since their places are not known any more, and its
    last cache mark goes to the end."""
    rest = iter(texts)
    result = []
    for message in messages:
        old = _read_texts(message)
        content, *arguments = [next(rest) for _ in old]
        if (content, *arguments) == old:
            result.append(message)
            continue
        name = message.name if message.name is None or arguments.pop(0) == message.name else None
        thoughts = arguments.pop(0) if message.reasoning_content is not None else None
        calls = tuple(
            call.model_copy(update={"function": call.function.model_copy(update={"arguments": text})})
            for call, text in zip(message.tool_calls, arguments, strict=True)
        )
        parts = tuple(part.model_copy(update={"at": 0}) for part in message.parts)
        marks = tuple(mark.model_copy(update={"at": None}) for mark in message.cache_marks[-1:])
        changes = {"content": content, "name": name, "reasoning_content": thoughts, "tool_calls": calls, "parts": parts}
        result.append(message.model_copy(update={**changes, "cache_marks": marks}))
    return tuple(result)
