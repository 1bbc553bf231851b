from datetime import UTC, datetime

import pytest

from rlaas.adapters.models.anthropic import find_parameter
from rlaas.adapters.models.vendor_failures import failure, retry_after_s, select_parameters
from rlaas.chat import BackendFailed
from rlaas.errors import InvalidInput


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_that_is_wrong_is_the_callers(status: int) -> None:
    refused = failure("OpenAI", status, code="invalid_value", param="messages[0].content")
    assert isinstance(refused, InvalidInput)
    assert (refused.param, refused.detail) == ("messages[0].content", "OpenAI refuses messages[0].content (invalid_value)")


@pytest.mark.parametrize(("status", "safe"), [(401, False), (403, False), (404, False), (408, False), (409, False), (429, True)])
def test_a_refusal_that_is_not_the_callers_fault_is_a_failure(status: int, safe: bool) -> None:
    failed = failure("OpenAI", status, retry_after_s=3)
    assert isinstance(failed, BackendFailed)
    assert (failed.safe_to_repeat, failed.retry_after_s) == (safe, 3)


@pytest.mark.parametrize(("status", "safe"), [(500, False), (502, False), (503, True), (504, False), (529, True)])
def test_only_a_server_that_did_no_work_may_be_asked_again(status: int, safe: bool) -> None:
    failed = failure("OpenAI", status)
    assert isinstance(failed, BackendFailed)
    assert failed.safe_to_repeat is safe


def test_what_a_vendor_says_is_passed_on_only_as_names() -> None:
    refused = failure("OpenAI", 400, code="the text was: my secret", param="dear customer")
    assert (refused.param, refused.detail) == (None, "OpenAI refuses the request")


def test_a_model_that_a_vendor_does_not_know_is_the_policys_fault() -> None:
    assert isinstance(failure("OpenAI", 400, param="model"), BackendFailed)


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
    parameters = {"n": 1, "logprobs": False, "seed": None, "stop": [], "temperature": 1.0, "stream_options": {"include_usage": True}}
    assert select_parameters("Anthropic", parameters, frozenset({"stop"}), defaults={"temperature": 1}) == {}
    for name, value in {"n": 2, "logprobs": True, "seed": 0, "banana": "x"}.items():
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
