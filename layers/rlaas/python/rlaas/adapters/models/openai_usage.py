"""The token counts that servers of OpenAI's chat API report, under OpenAI's names, their own or Anthropic's."""

from typing import Annotated

from pydantic import BaseModel

from rlaas.adapters.models.vendor_failures import make_usage
from rlaas.adapters.models.vendor_json import CountOrNone, OrNone
from rlaas.chat import Usage


class _Details(BaseModel):
    cached_tokens: CountOrNone = None
    cache_write_tokens: CountOrNone = None
    reasoning_tokens: CountOrNone = None


class ReportedUsage(BaseModel):
    """A server's `usage`, any field of which may be missing, null or wrong."""

    prompt_tokens: Annotated[int | None, OrNone] = None
    completion_tokens: Annotated[int | None, OrNone] = None
    total_tokens: CountOrNone = None
    prompt_tokens_details: Annotated[_Details | None, OrNone] = None
    completion_tokens_details: Annotated[_Details | None, OrNone] = None
    cached_tokens: CountOrNone = None
    """Moonshot's and Together's."""
    prompt_cache_hit_tokens: CountOrNone = None
    """DeepSeek's."""
    reasoning_tokens: CountOrNone = None
    input_tokens: Annotated[int | None, OrNone] = None
    output_tokens: Annotated[int | None, OrNone] = None
    input_tokens_details: Annotated[_Details | None, OrNone] = None
    output_tokens_details: Annotated[_Details | None, OrNone] = None
    cache_read_input_tokens: CountOrNone = None
    cache_creation_input_tokens: CountOrNone = None

    def plain(self) -> Usage | None:
        """The usage, with all input and all output tokens; None where one of the two counts is missing, or both are 0,
        or they are impossible."""
        prompt = self.input_tokens if self.prompt_tokens is None else self.prompt_tokens
        answer = self.output_tokens if self.completion_tokens is None else self.completion_tokens
        if prompt is None or answer is None or prompt == answer == 0:
            return None
        cached, thought = self._count_cached(), self._count_thoughts()
        unexplained = (self.total_tokens or 0) - prompt - answer
        writes = self._count_written()
        cache = cached + writes
        if cache > prompt or (0 < unexplained == cache):  # like Anthropic's counts, which leave cached tokens out
            prompt, unexplained = prompt + cache, 0
        # xAI counts thoughts apart from the answer, and Gemini counts them in the total only.
        if thought > answer or (0 < unexplained == thought):
            answer += thought
        elif unexplained > 0:
            answer, thought = answer + unexplained, thought or unexplained
        return make_usage(
            input_tokens=prompt,
            output_tokens=answer,
            cached_tokens=cached,
            cache_write_tokens=min(writes, max(0, prompt - cached)),
            reasoning_tokens=thought,
        )

    def _count_written(self) -> int:
        details = (self.prompt_tokens_details, self.input_tokens_details)
        return max(self.cache_creation_input_tokens or 0, *(one.cache_write_tokens or 0 for one in details if one is not None), 0)

    def _count_cached(self) -> int:
        details = (self.prompt_tokens_details, self.input_tokens_details)
        counts = (self.cached_tokens, self.prompt_cache_hit_tokens, self.cache_read_input_tokens)
        return max(count or 0 for count in (*counts, *(one.cached_tokens for one in details if one is not None)))

    def _count_thoughts(self) -> int:
        details = (self.completion_tokens_details, self.output_tokens_details)
        return max(count or 0 for count in (self.reasoning_tokens, *(one.reasoning_tokens for one in details if one is not None)))
