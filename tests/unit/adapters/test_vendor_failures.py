from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from rlaas.adapters.models.anthropic import find_parameter
from rlaas.adapters.models.vendor_failures import blame_translation, failure, retry_after_s, select_parameters
from rlaas.adapters.models.vendor_words import LONGEST_QUOTE, quote
from rlaas.chat import BackendFailed, Misconfigured, RateLimited
from rlaas.errors import ContextLengthExceeded, InvalidInput, TranslationRefused
from rlaas.inference.unanswered import may_be_taken


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_wrong_is_the_callers(status: int) -> None:
    refused = failure("OpenAI", status, code="invalid_value", param="messages[0].content")
    assert isinstance(refused, InvalidInput)
    assert (refused.param, refused.detail) == ("messages[0].content", "OpenAI refuses messages[0].content (invalid_value)")


@pytest.mark.parametrize(("status", "safe"), [(408, False), (409, False), (429, True)])
def test_a_refusal_that_is_not_the_callers_fault_is_a_failure(status: int, safe: bool) -> None:
    failed = failure("OpenAI", status, retry_after_s=3)
    assert isinstance(failed, BackendFailed)
    assert (failed.safe_to_repeat, failed.retry_after_s) == (safe, 3)


@pytest.mark.parametrize(("status", "safe"), [(500, False), (502, False), (503, True), (504, False), (529, True)])
def test_only_a_server_that_did_no_work_may_be_asked_again(status: int, safe: bool) -> None:
    failed = failure("OpenAI", status)
    assert isinstance(failed, BackendFailed)
    assert failed.safe_to_repeat is safe


def test_the_detail_has_names_only_and_the_quote_the_vendors_words() -> None:
    refused = failure("OpenAI", 400, code="the text was: my secret", param="dear customer", message="'my secret' is\nnot taken")
    assert (refused.param, refused.detail, refused.code) == (None, "OpenAI refuses the request", "invalid_input")
    assert refused.message == "OpenAI refuses the request: 'my secret' is not taken"


@pytest.mark.parametrize(
    "refusal",
    [
        {"status": 401},
        {"status": 402, "message": "Insufficient Balance"},
        {"status": 403},
        {"status": 404, "code": "model_not_found"},
        {"status": 307},
        {"status": 400, "param": "model"},
        {"status": 400, "error_type": "invalid_model", "message": "Invalid model: mistral-giant"},
        {"status": 400, "message": "API key not valid. Please pass a valid API key."},
        {"status": 400, "message": "Your credit balance is too low to access the Anthropic API."},
        {"status": 429, "code": "insufficient_quota"},
        {"status": 429, "code": "project_spend_limit_exceeded", "error_type": "insufficient_quota"},
        {"status": 429, "error_type": "exceeded_current_quota_error"},
    ],
)
def test_what_only_the_tenant_can_mend_is_the_policys_fault(refusal: dict[str, Any]) -> None:
    refused = failure("OpenAI", **refusal)
    assert isinstance(refused, Misconfigured)
    assert (refused.code, refused.safe_to_repeat, refused.nothing_done) == ("backend_misconfigured", False, True)


def test_a_limit_of_rate_says_how_long_to_wait() -> None:
    message = "You exceeded your current quota. Please retry in 32s."  # Google's, a minute's quota
    limited = failure("the model server", 429, error_type="RESOURCE_EXHAUSTED", message=message, retry_after_s=32)
    assert isinstance(limited, RateLimited)
    assert (limited.code, limited.retry_after_s, limited.quote) == ("rate_limit_exceeded", 32, message)


@pytest.mark.parametrize(
    "message",
    [
        "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.",
        "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 509178 tokens.",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        "max_tokens must be at least 1, got -46771. (parameter=max_tokens, value=-46771)",
        "The decoder prompt (length 4097) is longer than the maximum model length of 4096.",
        "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
        "prompt is too long: 208310 tokens > 200000 maximum",
        "input length and `max_tokens` exceed context limit: 199211 + 8192 > 200000",
        "Input is too long for requested model.",
        "Input Tokens Exceeded: Number of input tokens exceeds maximum length.",
        "Too many input tokens. Max input tokens: 128000, request input token count: 130000",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "Prompt contains 136305 tokens and 0 draft tokens, too large for model with 131072 maximum context length",
        "the request exceeds the available context size. try increasing the context size or enable context shift",
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens",
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        "Invalid request: Your request exceeded model token limit: 8192",
        "Range of input length should be [1, 30720]",
        "litellm.ContextWindowExceededError: something about it",
    ],
)
def test_every_vendors_words_for_too_long_are_known(message: str) -> None:
    refused = failure("the model server", 400, message=message)
    assert isinstance(refused, ContextLengthExceeded)
    assert (refused.code, refused.param, refused.quote) == ("context_length_exceeded", "messages", message)
    assert refused.message.startswith("this model's maximum context length is exceeded")


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens",
        "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
        "The maximum tokens you requested exceeds the model limit of 4096.",
        "Invalid 'user': string too long. Expected a string with maximum length 64.",
        "tools.0.name: String should have at most 64 characters",
    ],
)
def test_other_limits_are_not_the_contexts(message: str) -> None:
    assert type(failure("the model server", 400, message=message)) is InvalidInput


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (
            "Incorrect API key provided: sk-proj-abc***wxyz. Find yours at https://platform.openai.com/account/api-keys.",
            "Incorrect API key provided: [key]. Find yours at [URL]",
        ),
        ("User: arn:aws:sts::123456789012:assumed-role/rlaas/x is not authorized", "User: [ARN] is not authorized"),
        ("upstream 10.0.3.7:8000 or vllm.internal:8000 refused", "upstream [address] or [address] refused"),
        ("no route to Models.Example.COM with vendor-key", "no route to [hidden] with [hidden]"),
        (
            "messages.0.content: tool_call_id 'call_0123456789abcdef01234567' has no answer",
            "messages.0.content: tool_call_id 'call_0123456789abcdef01234567' has no answer",
        ),
        ("token " + "a1" * 30, "token [key]"),
        ("half \ud800 a\x00line\r\nbreak", "half a line break"),
    ],
)
def test_a_quote_has_no_keys_and_no_addresses(message: str, shown: str) -> None:
    assert quote(message, private=("models.example.com", "vendor-key", "")) == shown


@given(st.text(max_size=20_000))
def test_a_quote_is_one_line_of_bounded_length(message: str) -> None:
    shown = quote(message)
    assert len(shown) <= LONGEST_QUOTE
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, now=datetime(2026, 3, 1, 12, 0, tzinfo=UTC)) == seconds


def test_what_says_no_more_than_leaving_it_out_is_left_out_and_the_rest_is_refused_by_name() -> None:
    parameters: dict[str, JsonValue] = {"n": 1, "logprobs": False, "seed": None, "stop": [], "temperature": 1.0, "modalities": ["text"]}
    parameters |= {"stream_options": {"include_usage": True}, "prompt_cache_key": "support", "service_tier": "auto"}
    parameters |= {"tools": [], "tool_choice": "none", "parallel_tool_calls": False}
    assert select_parameters("Anthropic", parameters, frozenset({"stop"}), defaults={"temperature": 1}) == {}
    refusals: dict[str, JsonValue] = {"n": 2, "logprobs": True, "seed": 0, "banana": "x"}
    for name, value in refusals.items():
        with pytest.raises(InvalidInput) as refused:
            select_parameters("Anthropic", {name: value}, frozenset({"stop"}))
        assert refused.value.param == name


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("messages.0.content: Field required", "messages"),
        ("`temperature` is deprecated for this model.", "temperature"),
        ("`temperature` and `top_p` cannot both be specified for this model. Please use only one.", "temperature"),
        ("max_tokens: 100000 > 8192, which is the maximum allowed number of output tokens", "max_tokens"),
        ("stop_sequences: each stop sequence must contain non-whitespace", "stop"),
        ("output_config.format.schema: unsupported keyword", "response_format"),
        ("prompt is too long: 208310 tokens > 200000 maximum", "messages"),
        ("tools.0.custom.input_schema: JSON schema is invalid", "tools"),
        ("Something else is wrong", None),
    ],
)
def test_anthropics_complaints_name_their_parameter_first(message: str, param: str | None) -> None:
    assert find_parameter(message) == param


@pytest.mark.parametrize("param", [None, "messages", "messages[2].content", "tools.0.function", "tool_choice"])
def test_a_refusal_of_what_only_the_translation_wrote_is_ours_and_logged_without_the_request(
    param: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    error = blame_translation("Anthropic", failure("Anthropic", 400, code="invalid_request_error", param=param))
    assert isinstance(error, TranslationRefused)
    assert error.param == param
    (record,) = caplog.records
    assert (record.levelname, record.message, record.__dict__["vendor"]) == ("WARNING", "translation refused", "Anthropic")


@pytest.mark.parametrize(
    "message",
    [
        "Could not process image",
        "messages.0.content.1.image.source.base64.data: Image does not match the provided media type image/png",
        "messages.2.content.0.image.source.base64: image cannot be empty",
        "messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: 6083496 bytes > 5242880 bytes",
        "messages.0.content.0.document.source.base64.data: The PDF specified was not valid.",
        "A maximum of 100 PDF pages may be provided.",
        "Failed to sanitize image: Invalid or unsupported image format",
        "The model returned the following errors: The provided image does not match the specified image format.",
        "Unable to download the file. Please verify the URL and try again.",
    ],
)
def test_an_image_or_a_file_that_the_vendor_cannot_read_is_the_callers(message: str, caplog: pytest.LogCaptureFixture) -> None:
    error = failure("Anthropic", 400, error_type="invalid_request_error", param="messages", message=message)
    assert blame_translation("Anthropic", error) is error
    assert isinstance(error, InvalidInput)
    assert not may_be_taken(error, (), ())
    assert caplog.records == []


@pytest.mark.parametrize(
    "message",
    [
        "messages.1.content.0: unexpected `tool_use_id` found in `tool_result` blocks: toolu_image",
        "messages: text content blocks must be non-empty",
        "tools.0.custom.input_schema: JSON schema is invalid",
    ],
)
def test_other_words_about_messages_and_tools_are_ours(message: str) -> None:
    error = failure("Anthropic", 400, error_type="invalid_request_error", param="messages", message=message)
    assert isinstance(blame_translation("Anthropic", error), TranslationRefused)


def test_a_refusal_of_what_the_caller_wrote_so_stays_the_callers(caplog: pytest.LogCaptureFixture) -> None:
    error = failure("Anthropic", 400, code="invalid_request_error", param="max_tokens")
    assert blame_translation("Anthropic", error) is error
    assert caplog.records == []
