"""What each vendor demands of a chat's history, by its published API reference and by its errors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import JsonValue

from rlaas.policies.backend import AnthropicBackend, BackendSpec, BedrockBackend, OpenAIBackend, SageMakerBackend
from rlaas.policies.hosts import find_host, is_openai

MISTRAL = "api.mistral.ai"
GROQ = "api.groq.com"
CEREBRAS = "api.cerebras.ai"
DEEPSEEK = "api.deepseek.com"
GOOGLE = "generativelanguage.googleapis.com"
_MOONSHOT = (".moonshot.ai", ".moonshot.cn")


@dataclass(frozen=True, slots=True)
class NameRule:
    """A vendor takes the names that fit `pattern`; a name made in place of another has at most `longest` characters.

    The expression is compiled when a name is first held against it: most processes ask few of the vendors.
    """

    pattern: str
    longest: int

    def takes(self, name: str) -> bool:
        """Whether the vendor takes the name."""
        return re.fullmatch(self.pattern, name, re.DOTALL) is not None


@dataclass(frozen=True, slots=True)
class HistoryRules:
    """What a vendor demands of a history; the defaults demand nothing."""

    call_ids: NameRule | None = None
    """Which ids tool calls may have. A vendor with such a rule wants one result for each call, right after it."""
    tool_names: NameRule | None = None
    takes_turns: bool = False
    """Whether texts must not be blank, and the first message must be the user's."""
    ends_with_assistant: bool = True
    """Whether the last message may be the assistant's, which the model then continues."""
    calls_without_tools: Literal["keep", "declare", "write_out"] = "keep"
    """How a request that offers no tools shows earlier calls and results: as they are, with their tools declared, or
    written out as texts."""
    object_arguments: bool = False
    """Whether the arguments of calls have to be JSON objects."""
    extra_fields: bool = True
    """Whether messages may have the fields of other vendors (`reasoning_content`, `extra_content`)."""
    takes_thoughts: bool = True
    """Whether messages may have `reasoning_content`, where they may have other vendors' fields."""
    speaker_names: NameRule | None = None
    """The names of speakers that messages may have; None: they may have none."""
    takes_allowed_tools: bool = False
    """Whether `tool_choice` may name the tools that may be called (`allowed_tools`)."""
    unsigned: Mapping[str, JsonValue] | None = None
    """The `extra_content` of calls that have none because another vendor's model made them."""
    unthought: str | None = None
    """The `reasoning_content` of an assistant who called tools and has none, for the same reason."""
    speaks_after_results: bool = False
    """Whether the assistant has to say something between a tool's result and the user's next text."""


_CLAUDE_ID = NameRule(r"[a-zA-Z0-9_-]{1,256}", 64)
_OPENAI_NAME = NameRule(r"[a-zA-Z0-9_-]{1,64}", 64)
_SPEAKER = NameRule(r"[^\s<|\\/>]{1,64}", 64)
"""OpenAI's rule for the name of a speaker."""
_OPENAI = HistoryRules(
    call_ids=NameRule(r".{1,40}", 40),
    tool_names=_OPENAI_NAME,
    extra_fields=False,
    speaker_names=_SPEAKER,
    takes_allowed_tools=True,
)
_ANY_ID = NameRule(r".{1,256}", 64)
_MISTRAL = HistoryRules(
    call_ids=NameRule(r"[a-zA-Z0-9]{9}", 9),
    tool_names=_OPENAI_NAME,
    takes_turns=True,
    ends_with_assistant=False,
    object_arguments=True,
    extra_fields=False,
    speaks_after_results=True,
)
"""Its open library `mistral-common`, by which its API and vLLM check what its models are asked, has these rules."""
_GROQ = HistoryRules(object_arguments=True, extra_fields=False)
_OLDER_GEMINI = HistoryRules(call_ids=_ANY_ID, takes_turns=True, ends_with_assistant=False, object_arguments=True, takes_thoughts=False)
"""Google refuses fields that it does not know; Gemini's thoughts come back by their signature in `extra_content`."""
_GEMINI = replace(_OLDER_GEMINI, unsigned={"google": {"thought_signature": "skip_thought_signature_validator"}})
"""Gemini refuses calls without a signature since its third generation, but for this one: see its guide to thought
signatures, on histories of other models."""
_THINKER = HistoryRules(call_ids=_ANY_ID, object_arguments=True, unthought=" ", speaker_names=_SPEAKER)
"""DeepSeek's and Moonshot's models, while they think, refuse an assistant who called tools without having thought; for
Moonshot no thought is one that is empty."""
_ANY_SERVER = HistoryRules(object_arguments=True, speaker_names=_SPEAKER)
_OF_MISTRAL = re.compile(r"(mis|minis|magis|devs|codes|mix|pix)tral", re.IGNORECASE)
_CONTINUED = r"claude-(instant|v?[23]\b|(opus|sonnet|haiku)-4(-[015])?(-\d{8}|-latest)?(-v\d|@|$))|amazon\.nova-(micro|lite|pro|premier)-v1"
"""The models that continue a last message of the assistant. Claude refuses it since 4.6, and so do other vendors'
models on Bedrock."""
_BEDROCK_ID = NameRule(r"[a-zA-Z0-9_.:-]{1,64}", 64)
_CLAUDE_ID_ON_BEDROCK = NameRule(r"[a-zA-Z0-9_-]{1,64}", 64)
_HIDES_THE_MODEL = r"anthropic\.|application-inference-profile/|prompt-router/|provisioned-model/"


def find_rules(backend: BackendSpec, *, base_model: str = "") -> HistoryRules:
    """What the backend's vendor demands; at the stage's own endpoint, what the family of `base_model` does."""
    match backend:
        case AnthropicBackend():
            return HistoryRules(
                call_ids=_CLAUDE_ID,
                tool_names=NameRule(r"[a-zA-Z0-9_-]{1,128}", 64),
                takes_turns=True,
                ends_with_assistant=_continues(backend.model),
                calls_without_tools="declare",
            )
        case BedrockBackend():
            # The service takes more ids than Claude does, and some of its other models work better with their own.
            ids = _CLAUDE_ID_ON_BEDROCK if re.search(_HIDES_THE_MODEL, backend.model) else _BEDROCK_ID
            continues = _continues(backend.model)
            return HistoryRules(ids, _OPENAI_NAME, takes_turns=True, ends_with_assistant=continues, calls_without_tools="write_out")
        case OpenAIBackend():
            return _rules_at(find_host(backend.base_url) or "", backend.model)
        case SageMakerBackend():
            return _rules_at("", base_model)


def _rules_at(host: str, model: str) -> HistoryRules:
    if host == GOOGLE:
        return _GEMINI if re.search(r"gemini-([3-9]|\d\d)", model) else _OLDER_GEMINI
    if is_openai(host):
        return _OPENAI
    if host == MISTRAL or _OF_MISTRAL.search(model):
        return _MISTRAL
    if host == DEEPSEEK or host.endswith(_MOONSHOT):
        return _THINKER
    return _GROQ if host in (GROQ, CEREBRAS) else _ANY_SERVER


def _continues(model: str) -> bool:
    return re.search(_CONTINUED, model) is not None
