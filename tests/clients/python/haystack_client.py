"""Haystack."""

from typing import Any

import exam
import openai
from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage, ImageContent, StreamingChunk
from haystack.tools import create_tool_from_function
from haystack.utils import Secret
from pydantic import BaseModel

PLACE: Any = {"api_base_url": f"{exam.URL}/v1", "api_key": Secret.from_token(exam.KEY), "max_retries": 0}


class Person(BaseModel):
    name: str
    age: int


def make_generator(model: str = exam.MODEL, *, generator: Any = OpenAIChatGenerator, **settings: Any) -> Any:
    return generator(model=model, **PLACE, **settings)


def ask(question: Any, generator: Any = None) -> ChatMessage:
    reply: ChatMessage = (generator or make_generator()).run([ChatMessage.from_user(question)])["replies"][0]
    return reply


def chat() -> None:
    text = ask(exam.HELLO).text
    exam.check(text == exam.ANSWER, text)


def _stream(generator: Any) -> list[str]:
    pieces: list[StreamingChunk] = []
    ask(exam.HELLO, make_generator(generator=generator, streaming_callback=pieces.append))
    return [piece.content for piece in pieces]


def stream() -> None:
    pieces = _stream(OpenAIChatGenerator)
    exam.check(len(pieces) > 2 and "".join(pieces) == exam.ANSWER, pieces)


def _run_agent(question: str, generator: Any = OpenAIChatGenerator, **settings: Any) -> str | None:
    tool = create_tool_from_function(exam.report_weather)
    agent = Agent(chat_generator=make_generator(generator=generator), tools=[tool], **settings)
    return agent.run(messages=[ChatMessage.from_user(question)])["messages"][-1].text


def tools() -> None:
    text = _run_agent(exam.ONE_CITY)
    exam.check(text == exam.ONE_REPORT, text)


def parallel_tools() -> None:
    text = _run_agent(exam.TWO_CITIES, streaming_callback=lambda chunk: None)
    exam.check(text == exam.TWO_REPORTS, text)


def structured_output() -> None:
    text = ask(exam.WHO, make_generator(generation_kwargs={"response_format": Person})).text
    exam.check(Person.model_validate_json(text or "") == Person(name="Ada Park", age=36), text)


def responses() -> None:
    text = _run_agent(exam.TWO_CITIES, OpenAIResponsesChatGenerator)
    exam.check(text == exam.TWO_REPORTS, text)
    pieces = _stream(OpenAIResponsesChatGenerator)
    exam.check("".join(pieces) == exam.ANSWER, pieces)


def images() -> None:
    image = ImageContent(base64_image=exam.IMAGE, mime_type="image/png")
    asked = ChatMessage.from_user(content_parts=[exam.WHAT_IS_SEEN, image])
    exam.see_image(lambda: make_generator().run([asked])["replies"][0].text, openai.BadRequestError)


def usage() -> None:
    told = ask(exam.HELLO).meta["usage"]
    exam.check(told["prompt_tokens"] > 0 and told["completion_tokens"] > 0, told)


def unknown_model() -> None:
    exam.expect_refusal(openai.NotFoundError, lambda: ask(exam.HELLO, make_generator(exam.UNKNOWN)))


def context_overflow() -> None:
    exam.expect_refusal(openai.BadRequestError, lambda: ask(exam.TOO_LONG), "maximum context length")


def interaction_id() -> None:
    ask(exam.HELLO, make_generator(generation_kwargs={"extra_body": {"rlaas::interaction_id": exam.INTERACTION_ID}}))


def feedback() -> str:
    return str(ask(exam.HELLO, make_generator(generator=OpenAIResponsesChatGenerator)).meta["id"])


exam.sit(globals())
