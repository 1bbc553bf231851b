"""The errors that all rooms raise. The class names never change: state machines and clients match on them."""

from collections.abc import Sequence
from typing import ClassVar


class RlaasError(Exception):
    """A refusal or failure, with a stable code, whether trying again can help, and the field that is wrong.

    `detail` is shown to the caller and may be logged and stored, so it never holds payload text, keys or stack traces.
    `quote` is what another service said, in its own words: it may repeat the caller's request, so it is shown to the
    caller and neither logged nor stored. `param` is a dotted path into the request, such as `inputs.customer_email`.
    `retry_after_s` is HTTP's Retry-After: the seconds after which trying again may help.
    """

    code: str = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(
        self, detail: str, *, param: str | None = None, code: str | None = None, quote: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.param = param
        self.quote = quote
        self.retry_after_s = retry_after_s
        self.code = code or type(self).code

    @property
    def message(self) -> str:
        """What the caller reads."""
        return f"{self.detail}: {self.quote}" if self.quote else self.detail


class InvalidInput(RlaasError):
    """The request is malformed or breaks a rule; sending it again changes nothing."""

    code = "invalid_input"


class PayloadTooLarge(InvalidInput):
    """The request's body is larger than the service accepts."""

    code = "payload_too_large"


class ContextLengthExceeded(InvalidInput):
    """The request is longer than the model reads; a shorter one is answered."""

    code = "context_length_exceeded"


class UnsupportedEncoding(InvalidInput):
    """The request's body is packed in a way that the service does not unpack."""

    code = "unsupported_encoding"


class TranslationRefused(InvalidInput):
    """A vendor refuses a request that RLaaS wrote in its format, and names nothing that the caller wrote so. Another
    backend may answer."""


class PartRefused(InvalidInput):
    """A backend does not take an image, a sound or a file of the request. Another may."""


class Unauthorized(RlaasError):
    """The request has no valid key."""

    code = "unauthorized"


class Forbidden(RlaasError):
    """The key is valid but does not have the scope."""

    code = "forbidden"


class NotFound(RlaasError):
    """The named thing does not exist for this tenant."""

    code = "not_found"


class ModelNotFound(NotFound):
    """The model that a request names is no skill of this tenant."""

    code = "model_not_found"


class ThreadUnsupported(InvalidInput):
    """An Anthropic client wants its conversation kept here; sent whole, it is answered."""

    code = "thread_unsupported_request"


class MethodNotAllowed(NotFound):
    """The path has no such method; `methods` are those that it has."""

    code = "method_not_allowed"

    def __init__(self, methods: Sequence[str]) -> None:
        super().__init__(f"this path takes {' and '.join(methods)}")
        self.methods = tuple(methods)


class PreviousResponseNotFound(NotFound):
    """The response that a request goes on from does not exist for this tenant."""

    code = "previous_response_not_found"


class Conflict(RlaasError):
    """The id belongs to another payload, or the record changed since it was read."""

    code = "conflict"


class QuotaExceeded(RlaasError):
    """A rate limit or a budget is used up. Without `retry_after_s` waiting does not help."""

    code = "quota_exceeded"
    retryable = True


class DependencyUnavailable(RlaasError):
    """Something RLaaS needs (model endpoint, AWS service) failed or took too long."""

    code = "dependency_unavailable"
    retryable = True
