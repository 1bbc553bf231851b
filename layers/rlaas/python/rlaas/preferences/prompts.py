"""The prompt of an output: what its model saw, else what its interaction asked; and when two prompts are the same."""

import json
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from rlaas.chat import Message
from rlaas.ids import canonical_json
from rlaas.preferences.words import evenly_spaced
from rlaas.telemetry.events import InteractionCreated, OutputProduced


def prompt_of(output: OutputProduced, interaction: InteractionCreated | None) -> tuple[Message, ...]:
    """The output's own messages; where it was logged without, the interaction's messages, else its inputs as one user
    message. Empty where none of them says anything."""
    asked = output.messages or (interaction and (interaction.messages or inputs_message(interaction.inputs or {}))) or ()
    return asked if any(message.content.strip() or message.tool_calls for message in asked) else ()


def inputs_message(inputs: Mapping[str, str]) -> tuple[Message, ...]:
    """A lone input's text, several as `name: text` in the order of their names, a blank line between; blank ones are
    left out."""
    given = {name: text for name, text in sorted(inputs.items()) if text.strip()}
    lines = list(given.values()) if len(inputs) == 1 else [f"{name}: {text}" for name, text in given.items()]
    return (Message(role="user", content="\n\n".join(lines)),) if lines else ()


def tools_of(interaction: InteractionCreated | None) -> str | None:
    """The tools that the request offered the model, as canonical JSON; `None` without any."""
    tools = interaction.parameters.get("tools") if interaction else None
    return canonical_json(tools) if tools else None


def sameness(prompt: Sequence[Message], tools: str | None) -> list[JsonValue]:
    """Equal for prompts that ask the same: spacing aside, and whatever ids their tool calls drew; other arguments,
    another question."""
    places: dict[str, int] = {}
    said: list[JsonValue] = [tools] if tools else []
    for message in prompt:
        calls: list[JsonValue] = []
        for call in message.tool_calls:
            places[call.id] = len(places)
            calls.append([call.function.name, _arguments(call.function.arguments)])
        answers = [places.get(message.tool_call_id, -1)] if message.tool_call_id is not None else []
        said.append([message.role, evenly_spaced(message.content), *answers, *calls])
    return said


def _arguments(text: str) -> str:
    """The arguments' JSON, whatever the order of its keys and its spacing; a text that is no JSON as it is."""
    try:
        return canonical_json(json.loads(text))
    except (ValueError, RecursionError):
        return text
