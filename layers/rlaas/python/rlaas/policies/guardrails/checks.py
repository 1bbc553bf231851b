"""A policy's guardrails at work: what comes in before the backend sees it, what goes out before the caller does.

Each guardrail looks in the policy's order and sees what those before it left; a block ends the round. Whatever one does
is a `GuardrailAction`, of which the session makes events. No action carries a text of the request or the answer.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from rlaas.chat import Document, Message, ToolCall
from rlaas.policies.guardrails.groundedness import SCORERS, GroundednessScorer
from rlaas.policies.guardrails.guardrail import MAX_CHARACTERS, Action, AnswerTexts, Find, Guardrail, RequestTexts, Stage
from rlaas.policies.guardrails.moderation import Judgement, Moderator, Service
from rlaas.policies.guardrails.settings import Guardrails
from rlaas.policies.guardrails.size import SizeLimit
from rlaas.policies.guardrails.structured_output import StructuredOutput


@dataclass(frozen=True, slots=True)
class GuardrailAction:
    """What a guardrail did and why, without a word of the text. `failed`: it could not look, and did what its
    `on_failure` says."""

    guardrail: str
    kind: str
    stage: Stage
    action: Action
    reason: str
    score: float | None = None
    failed: bool = False


@dataclass(frozen=True, slots=True)
class InputVerdict:
    """What may go to the backend: the messages, inputs and documents, redacted where a guardrail did. When `blocked`,
    nothing may, and `answer` is what the caller gets instead."""

    messages: tuple[Message, ...]
    inputs: dict[str, str]
    documents: tuple[Document, ...]
    blocked: bool
    answer: str | None
    actions: tuple[GuardrailAction, ...]


@dataclass(frozen=True, slots=True)
class OutputVerdict:
    """What the caller gets: `text`, `tool_calls` and `refusal`, redacted where a guardrail did; when `blocked`, the
    safe answer and neither calls nor a refusal. `regenerate` asks for one more answer from the backend in their place,
    which is then checked with `again=True`."""

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
    """Look at what a caller sent: the messages of a chat, the inputs of a prompt before it is rendered, and documents,
    which anybody may have written. What a request must speak of to be let in, its documents do not say for it. Linear
    in their texts. Guardrails that services judge by are asked through `moderator` on behalf of `tenant_id`."""
    input_texts = dict(inputs or {})
    without_documents = len(input_texts) + sum(1 + len(message.tool_calls) for message in messages)
    texts = [*input_texts.values(), *_texts_of(messages), *(text for document in documents for text in (document.text, document.source))]
    untrusted = [True] * len(input_texts) + _untrusted(messages) + [True] * (2 * len(documents))
    judge = partial(_judge, moderator, "input", tenant_id)
    actions: list[GuardrailAction] = []
    blocked = False
    for guardrail in config.input:
        request = RequestTexts(
            texts=texts,
            without_documents=texts[:without_documents],
            untrusted=[text for text, from_outside in zip(texts, untrusted, strict=True) if from_outside],
            messages=len(messages),
            judge=judge,
        )
        texts, action = _act(guardrail, "input", partial(guardrail.look_at, request), texts, guardrail.action)
        if action is not None:
            actions.append(action)
            if action.action == "block":
                blocked = True
                break
    return InputVerdict(
        messages=tuple(messages) if blocked else _with_texts(messages, texts[len(input_texts) : without_documents]),
        inputs=input_texts if blocked else dict(zip(input_texts, texts, strict=False)),
        documents=tuple(documents) if blocked else _documents_with(documents, texts[without_documents:]),
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
    """Look at a whole answer. `asked` and `inputs` are what the caller sent, before it was redacted; `documents` what
    retrieval added; `refusal` the backend's own word for one. `again` says that this is the second answer, of which
    none is asked for again."""
    answer = AnswerTexts(
        texts=[text, *(call.function.arguments for call in tool_calls), *([refusal] if refusal is not None else [])],
        refusal=refusal,
        calls_tools=bool(tool_calls),
        request=[*(inputs or {}).values(), *_texts_of(asked)],
        documents=documents,
        scorers=scorers,
        judge=partial(_judge, moderator, "output", tenant_id),
    )
    actions: list[GuardrailAction] = []
    blocked = regenerate = False
    for guardrail in config.output:
        wanted: Action = guardrail.action
        if wanted == "regenerate" and again:
            wanted = guardrail.then or "block"
        if isinstance(guardrail, StructuredOutput) and (unwrapped := guardrail.unwrap(answer.texts[0])) is not None:
            answer = answer._replace(texts=[unwrapped, *answer.texts[1:]])
            actions.append(GuardrailAction(guardrail.label, guardrail.kind, "output", "redact", "took the code fence off"))
        texts, action = _act(guardrail, "output", partial(guardrail.look_at, answer), answer.texts, wanted)
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
    """Whether an answer can only be given whole: some guardrail of outputs may withhold or change it. When none may,
    the pieces of a stream can pass and be looked at together when they are through."""
    return any(
        guardrail.action != "flag" or guardrail.fails_closed or (isinstance(guardrail, StructuredOutput) and guardrail.fences == "unwrap")
        for guardrail in config.output
    )


def _act(
    guardrail: Guardrail, stage: Stage, look: Callable[[], Find | None], texts: list[str], wanted: Action
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
        instead: Action = "block" if guardrail.fails_closed else "flag"
        return texts, replace(action, action=instead, reason=f"failed: {type(error).__name__}"[:128], failed=True)


def _judge(moderator: Moderator | None, stage: Stage, tenant_id: str, service: Service, texts: Sequence[str]) -> Judgement | None:
    if moderator is None:
        raise ValueError("nothing here asks services")
    return moderator.judge(service, texts, source=stage, tenant_id=tenant_id)


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
    """The messages with `texts`, in the order of `_texts_of`, in place of their own; those that stay the same are the
    same objects."""
    remaining = iter(texts)
    restored = []
    for message in messages:
        content = next(remaining)
        arguments = [next(remaining) for _ in message.tool_calls]
        same = content == message.content and all(
            call.function.arguments == text for call, text in zip(message.tool_calls, arguments, strict=True)
        )
        if same:
            restored.append(message)
            continue
        calls = tuple(
            call.model_copy(update={"function": call.function.model_copy(update={"arguments": text})})
            for call, text in zip(message.tool_calls, arguments, strict=True)
        )
        restored.append(message.model_copy(update={"content": content, "tool_calls": calls}))
    return tuple(restored)
