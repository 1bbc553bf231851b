"""The guardrail against requests that are too long."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rlaas.policies.guardrails.guardrail import Find, RequestGuardrail, RequestTexts


class SizeLimit(RequestGuardrail):
    """Acts when a request is longer than one of the limits. Tokens are estimated as for budgets: about the most that
    any tokenizer makes of the text. English text has about two thirds as many."""

    kind: Literal["size"] = "size"
    action: Literal["block", "flag"] = "block"
    max_characters: int | None = Field(default=None, ge=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_messages: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.max_characters is None and self.max_tokens is None and self.max_messages is None:
            raise ValueError("needs max_characters, max_tokens or max_messages")
        return self

    def look_at(self, request: RequestTexts) -> Find | None:
        """The first limit that the request exceeds."""
        from rlaas.metering.budgets import estimate_tokens

        if self.max_characters is not None and (characters := sum(map(len, request.texts))) > self.max_characters:
            return Find(f"{characters} characters, at most {self.max_characters}")
        if self.max_tokens is not None and (tokens := estimate_tokens(request.texts)) > self.max_tokens:
            return Find(f"about {tokens} tokens, at most {self.max_tokens}")
        if self.max_messages is not None and request.messages > self.max_messages:
            return Find(f"{request.messages} messages, at most {self.max_messages}")
        return None
