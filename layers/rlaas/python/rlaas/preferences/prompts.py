"""The prompt of an output, which is what its model got, or else what its interaction asked; and whether two prompts are
the same."""

import json
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from rlaas.chat import Message
from rlaas.ids import encode_canonical_json
from rlaas.preferences.words import normalize_spacing
from rlaas.telemetry.events import InteractionCreated, OutputProduced


def find_prompt(output: OutputProduced, interaction: InteractionCreated | None) -> tuple[Message, ...]:
    """The output's own messages; without them, the interaction's messages, or else its inputs as one user message.
    Empty when all of them are blank."""
    messages = output.messages or (interaction and (interaction.messages or format_inputs(interaction.inputs or {}))) or ()
    return messages if any(message.content.strip() or message.tool_calls or message.parts for message in messages) else ()


def format_inputs(inputs: Mapping[str, str]) -> tuple[Message, ...]:
    """The inputs as one user message: the text of a single input, or `name: text` for each of several, in the order of
    their names, with blank lines between. Blank inputs are left out."""
    texts = {name: text for name, text in sorted(inputs.items()) if text.strip()}
    paragraphs = list(texts.values()) if len(inputs) == 1 else [f"{name}: {text}" for name, text in texts.items()]
    return (Message(role="user", content="\n\n".join(paragraphs)),) if paragraphs else ()


def find_tools(interaction: InteractionCreated | None) -> str | None:
    """The tools in the request, as canonical JSON; `None` without any."""
    tools = interaction.parameters.get("tools") if interaction else None
    return encode_canonical_json(tools) if tools else None


def make_comparison_key(prompt: Sequence[Message], tools: str | None) -> list[JsonValue]:
    """A key that is equal for prompts that ask the same. Spacing and the ids of tool calls do not matter; the arguments
    of tool calls do."""
    numbers: dict[str, int] = {}
    parts: list[JsonValue] = [tools] if tools else []
    for message in prompt:
        calls: list[JsonValue] = []
        for call in message.tool_calls:
            numbers[call.id] = len(numbers)
            calls.append([call.function.name, _normalize_arguments(call.function.arguments)])
        answers = [numbers.get(message.tool_call_id, -1)] if message.tool_call_id is not None else []
        parts.append([message.role, normalize_spacing(message.content), *answers, *calls])
    return parts


def _normalize_arguments(text: str) -> str:
    """The arguments as canonical JSON; text that is no JSON stays as it is."""
    try:
        return encode_canonical_json(json.loads(text))
    except (ValueError, RecursionError):
        return text
