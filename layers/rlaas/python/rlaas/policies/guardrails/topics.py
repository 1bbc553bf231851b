"""The guardrail of the topics of requests."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from rlaas.policies.guardrails.guardrail import Find, GuardrailName, RequestGuardrail, RequestTexts, Term
from rlaas.wire import WireModel


class Topic(WireModel):
    """A topic and its terms: a text is about the topic when at least `at_least` different terms occur in it."""

    model_config = ConfigDict(defer_build=True)

    name: GuardrailName
    terms: tuple[Term, ...] = Field(min_length=1, max_length=500)
    at_least: int = Field(default=1, ge=1, le=20)

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        from rlaas.policies.guardrails.terms import split_words

        if len({tuple(split_words(term)) for term in self.terms if split_words(term)}) < max(self.at_least, 1):
            raise ValueError("has fewer terms than at_least")
        return self

    def occurs_in(self, texts: Sequence[str]) -> bool:
        """Whether enough different terms of the topic occur in `texts`."""
        from rlaas.policies.guardrails.terms import build_term_tree

        return len({hit.term for text in texts for hit in build_term_tree(self.terms).find_hits(text)}) >= self.at_least


class Topics(RequestGuardrail):
    """Acts when a request is about a denied topic, or when there are allowed topics and it is about none of them. It
    counts keywords and does not understand texts."""

    kind: Literal["topics"] = "topics"
    action: Literal["block", "flag"] = "flag"
    allowed: tuple[Topic, ...] = Field(default=(), max_length=20)
    denied: tuple[Topic, ...] = Field(default=(), max_length=20)

    @model_validator(mode="after")
    def _names_topics(self) -> Self:
        if not self.allowed and not self.denied:
            raise ValueError("needs allowed or denied topics")
        return self

    def look_at(self, request: RequestTexts) -> Find | None:
        """The first denied topic of the request, or that it has none of the allowed ones; documents do not count."""
        texts = request.without_documents
        denied_topic = next((topic for topic in self.denied if topic.occurs_in(texts)), None)
        if denied_topic is not None:
            return Find(f"speaks of {denied_topic.name}")
        if self.allowed and not any(topic.occurs_in(texts) for topic in self.allowed):
            return Find("speaks of none of the allowed topics")
        return None
