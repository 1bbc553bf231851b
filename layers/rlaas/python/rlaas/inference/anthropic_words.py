"""Anthropic's words and OpenAI's for the same thing, for requests and answers in both directions."""

from collections.abc import Mapping

FINISH_REASONS: Mapping[str, str] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""OpenAI's `finish_reason` for Anthropic's `stop_reason`."""

STOP_REASONS: Mapping[str, str] = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
"""Anthropic's `stop_reason` for OpenAI's `finish_reason`."""

SERVICE_TIERS: Mapping[str, str] = {"standard": "default", "priority": "priority"}
"""OpenAI's `service_tier` for Anthropic's, where both have it."""

TOOL_CHOICES: Mapping[str, str] = {"auto": "auto", "any": "required", "none": "none"}
"""OpenAI's `tool_choice` for the `type` of Anthropic's, where it names no tool."""

PARAMETERS: Mapping[str, str] = {
    "stop_sequences": "stop",
    "output_config": "response_format",
    "system": "messages",
    "metadata": "user",
    **{name: name for name in ("messages", "max_tokens", "temperature", "top_p", "top_k", "tools", "tool_choice", "model")},
}
"""OpenAI's names of the fields of Anthropic's request."""
