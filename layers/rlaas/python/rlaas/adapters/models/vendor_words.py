"""What vendors say when they refuse a request: what their words and codes mean, and the part of them that a caller may
read."""

import re
from collections.abc import Iterable

LONGEST_QUOTE = 1000
"""In characters."""
_LONGEST_READ = 8000
"""As much of a message is looked at."""
_TOO_LONG_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error"})
_TOO_LONG = re.compile(
    r"maximum context (?:length|limit)"  # OpenAI, vLLM, DeepSeek, Mistral
    r"|contextwindowexceeded"  # LiteLLM
    r"|exceed\w*\b.{0,40}\bcontext (?:window|limit|length|size)"  # OpenAI, Anthropic, llama.cpp
    r"|longer than the (?:maximum model|model's context) length"  # vLLM, SGLang
    r"|max_tokens must be at least 1, got -"  # vLLM, of what the prompt leaves
    r"|\b(?:prompt|input) is too long"  # Anthropic, Bedrock
    r"|too many (?:input )?tokens"  # Bedrock, Cohere
    r"|input tokens? (?:count )?.{0,30}exceed"  # OpenAI, Gemini, Nova
    r"|`inputs` tokens \+ `max_new_tokens` must be"  # TGI
    r"|maximum (?:prompt|input) length is"  # xAI
    r"|exceeded model token limit"  # Moonshot
    r"|prompt exceeds max length"  # Zhipu
    r"|range of input length should be"  # Qwen
    r"|request too large for model",  # Groq
    re.IGNORECASE,
)
_SPENT_CODES = frozenset(
    {
        "insufficient_quota",
        "billing_error",
        "billing_hard_limit_reached",
        "billing_not_active",
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "exceeded_current_quota_error",
        "insufficient_balance",
    }
)
_SPENT = re.compile(r"credit balance|usage limit|spend limit|insufficient balance", re.IGNORECASE)
_POLICY_CODES = frozenset(
    {
        "model_not_found",
        "model_decommissioned",
        "invalid_model",
        "invalid_api_key",
        "authentication_error",
    }
)
_POLICY = re.compile(r"not a valid model|invalid model:|api key not valid|(?:invalid|incorrect) api key", re.IGNORECASE)
_UNREADABLE_PART = re.compile(
    r"could not process (?:the )?(?:image|pdf|document|file)"  # Anthropic
    r"|\b(?:image|document)\.source\b"  # Anthropic and Claude on Bedrock, by the path
    r"|\bimage (?:cannot be|was specified|exceeds|dimensions?|format|does not match)"  # Anthropic, Bedrock
    r"|\bsanitize image|\b(?:provided|specified|invalid|unsupported|corrupted) (?:image|pdf|document)\b"  # Bedrock
    r"|\bpdf (?:specified|pages|cannot be|is password)"  # Anthropic
    r"|\binvalid base64|base64 (?:data|string|encoding)|\bunable to (?:download|fetch) (?:the )?(?:file|image|url)",
    re.IGNORECASE,
)
_PRIVATE = re.compile(
    r"(?P<URL>https?://[^\s\"'<>()\[\]]+)"
    r"|(?P<ARN>\barn:aws[\w-]*:[^\s\"',]+)"
    r"|(?P<key>\b(?:sk|rk|pk|gsk|xai|hf|rlk|rlp|fw|pplx|r8)[-_][\w*-]{4,}|\b(?:AIza|AKIA|ASIA)[\w-]{10,}"
    r"|\bBearer\s+\S+|\b(?=[A-Za-z_-]*\d)[\w-]{40,})"
    r"|(?P<address>\b(?:\d{1,3}\.){3}\d{1,3}\b(?::\d+)?|\blocalhost(?::\d+)?|\b[\w.-]+\.(?:internal|local|amazonaws\.com)\b(?::\d+)?)",
    re.IGNORECASE,
)


def is_too_long(codes: Iterable[str], message: str) -> bool:
    """Whether a refused request (400, 413, 422) is longer than the model reads."""
    return not _TOO_LONG_CODES.isdisjoint(codes) or _TOO_LONG.search(message[:_LONGEST_READ]) is not None


def is_spent(codes: Iterable[str], message: str) -> bool:
    """Whether the account has nothing left to spend."""
    return not _SPENT_CODES.isdisjoint(codes) or _SPENT.search(message[:_LONGEST_READ]) is not None


def blames_policy(codes: Iterable[str], message: str) -> bool:
    """Whether a refused request (400, 413, 422) names a model or a key that the vendor does not know."""
    return not _POLICY_CODES.isdisjoint(codes) or _POLICY.search(message[:_LONGEST_READ]) is not None


def is_about_part(message: str) -> bool:
    """Whether a refused request has an image or a file that the vendor cannot read: it goes there as it came."""
    return _UNREADABLE_PART.search(message[:_LONGEST_READ]) is not None


def quote(message: str, *, private: Iterable[str] = ()) -> str:
    """The message as the caller may read it: in one line of at most `LONGEST_QUOTE` characters, without the texts
    `private`, and without addresses and keys of any kind."""
    text = message[:_LONGEST_READ]
    for secret in sorted(filter(None, private), key=len, reverse=True):
        text = re.sub(re.escape(secret), "[hidden]", text, flags=re.IGNORECASE)
    text = _PRIVATE.sub(lambda match: f"[{match.lastgroup}]", text)
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= LONGEST_QUOTE else f"{line[: LONGEST_QUOTE - 1]}…"
