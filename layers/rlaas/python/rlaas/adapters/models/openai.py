"""Answers from OpenAI, or from any server with its chat API (vLLM, TGI, Ollama)."""

from collections.abc import Generator, Mapping
from dataclasses import replace

from pydantic import JsonValue

from rlaas.adapters.aws.secrets import VendorKeys
from rlaas.adapters.models.history_rules import MISTRAL
from rlaas.adapters.models.openai_answers import is_done, read_completion, read_deltas
from rlaas.adapters.models.openai_chat import chat_body, count_choices, read_refusal
from rlaas.adapters.models.trace_context import context_headers
from rlaas.adapters.models.vendor_http import VendorHttp, VendorRefused
from rlaas.adapters.models.vendor_parts import check_openai_parts
from rlaas.chat import ChatCall, Completion, Delta, Usage
from rlaas.errors import RlaasError
from rlaas.policies.backend import OpenAIBackend, find_cache_marks, find_cache_writes
from rlaas.policies.hosts import find_host, is_openai


class OpenAIServers:
    """`Backend` for `OpenAIBackend`. Every parameter is passed on; the server refuses those that it does not take."""

    def __init__(self, http: VendorHttp, secrets: VendorKeys) -> None:
        self._http = http
        self._secrets = secrets

    def complete(self, backend: OpenAIBackend, call: ChatCall, *, timeout_s: float) -> Completion:
        """The whole answer, within `timeout_s` seconds. Raises: BackendFailed, InvalidInput naming the parameter that
        the server refuses."""
        vendor, url, headers = self._address(backend, call)
        try:
            content = self._http.whole(vendor, url, completions_body(vendor, backend, call, stream=False), headers, timeout_s=timeout_s)
        except VendorRefused as refusal:
            raise _read_refusal(vendor, refusal, url, headers) from None
        completion = read_completion(vendor, content)
        return replace(completion, usage=_count_hours(completion.usage, backend, call))

    def stream(self, backend: OpenAIBackend, call: ChatCall, *, timeout_s: float) -> Generator[Delta, None, None]:
        """The answer piece by piece, `timeout_s` seconds between pieces. Raises: as `complete`."""
        vendor, url, headers = self._address(backend, call)
        body = completions_body(vendor, backend, call, stream=True)
        events = self._http.events(vendor, url, body, headers, is_last=is_done, timeout_s=timeout_s, ends_at=call.ends_at)
        try:
            for delta in read_deltas(vendor, events, choices=count_choices(call.parameters)):
                yield delta if delta.usage is None else replace(delta, usage=_count_hours(delta.usage, backend, call))
                events.restart_timeout()
        except VendorRefused as refusal:
            raise _read_refusal(vendor, refusal, url, headers) from None
        finally:
            events.close()

    def _address(self, backend: OpenAIBackend, call: ChatCall) -> tuple[str, str, Mapping[str, str]]:
        """The server's name for messages, its URL, and the request's headers. Raises: BackendFailed without a key."""
        headers = context_headers(call)
        if backend.secret is not None:
            key = self._secrets.key(call.tenant_id, backend.secret, base_url=backend.base_url, own_host=backend.OWN_HOST)
            headers["authorization"] = f"Bearer {key}"
        base = backend.base_url.rstrip("/")
        return "OpenAI" if _is_openai(backend) else "the model server", f"{base}/chat/completions", headers


def _read_refusal(vendor: str, refusal: VendorRefused, url: str, headers: Mapping[str, str]) -> RlaasError:
    private = (find_host(url) or "", headers.get("authorization", "").removeprefix("Bearer "))
    return read_refusal(vendor, refusal.status, refusal.content, private=private, retry_after_s=refusal.retry_after_s)


def completions_body(vendor: str, backend: OpenAIBackend, call: ChatCall, *, stream: bool) -> dict[str, JsonValue]:
    """The request of OpenAI's chat API as the backend's server takes it. Raises: PartRefused; InvalidInput."""
    check_openai_parts(vendor, call.messages)
    body = chat_body(call, stream=stream, model=backend.model, marked=find_cache_marks(backend) is not None)
    # OpenAI's reasoning models take only the new name of `max_tokens`; some other servers know only the old one.
    if _is_openai(backend) and "max_tokens" in body:
        body.setdefault("max_completion_tokens", body.pop("max_tokens"))
    if find_host(backend.base_url) == MISTRAL:
        _write_for_mistral(body)
    return body


def _write_for_mistral(body: dict[str, JsonValue]) -> None:
    """Rename what Mistral has by another name, and leave out how a stream tells its usage, which it always does. It
    refuses what it does not know (422)."""
    body.pop("stream_options", None)
    for name, own in (("max_completion_tokens", "max_tokens"), ("seed", "random_seed")):
        if name in body:
            body[own] = body.pop(name)


def _count_hours(usage: Usage | None, backend: OpenAIBackend, call: ChatCall) -> Usage | None:
    """The usage with what was written to the cache for an hour, which no server of this API says: all of it, if the
    call asks for an hour anywhere."""
    if usage is None or find_cache_writes(backend, call) != "1h":
        return usage
    return usage.model_copy(update={"cache_write_1h_tokens": usage.cache_write_tokens})


def _is_openai(backend: OpenAIBackend) -> bool:
    return is_openai(find_host(backend.base_url))
