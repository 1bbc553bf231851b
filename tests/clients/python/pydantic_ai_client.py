"""Pydantic AI."""

import asyncio
from typing import Any

import exam
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.exceptions import ModelContextWindowExceededError, ModelHTTPError, ModelNotFoundError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=f"{exam.URL}/v1", api_key=exam.KEY)
agent = Agent(OpenAIChatModel(exam.MODEL, provider=provider))


class Person(BaseModel):
    name: str
    age: int


def chat() -> None:
    text = agent.run_sync(exam.HELLO).output
    exam.check(text == exam.ANSWER, text)


async def _stream(streaming: Agent[None, str]) -> list[str]:
    async with streaming.run_stream(exam.HELLO) as run:
        return [piece async for piece in run.stream_text(delta=True, debounce_by=None)]


def stream() -> None:
    pieces = asyncio.run(_stream(agent))
    exam.check(len(pieces) > 2 and "".join(pieces) == exam.ANSWER, pieces)


def _use_tools(question: str, model: Any) -> str:
    with_tools = Agent(model)
    with_tools.tool_plain(exam.report_weather)
    return with_tools.run_sync(question).output


def tools() -> None:
    text = _use_tools(exam.ONE_CITY, agent.model)
    exam.check(text == exam.ONE_REPORT, text)


def parallel_tools() -> None:
    text = _use_tools(exam.TWO_CITIES, agent.model)
    exam.check(text == exam.TWO_REPORTS, text)


def structured_output() -> None:
    for form in (ToolOutput(Person), NativeOutput(Person), PromptedOutput(Person)):
        person = Agent(agent.model, output_type=form).run_sync(exam.WHO).output
        exam.check(person == Person(name="Ada Park", age=36), (form, person))


def responses() -> None:
    model = OpenAIResponsesModel(exam.MODEL, provider=provider)
    text = _use_tools(exam.TWO_CITIES, model)
    exam.check(text == exam.TWO_REPORTS, text)
    pieces = asyncio.run(_stream(Agent(model)))
    exam.check("".join(pieces) == exam.ANSWER, pieces)
    person = Agent(model, output_type=NativeOutput(Person)).run_sync(exam.WHO).output
    exam.check(person == Person(name="Ada Park", age=36), person)


def images() -> None:
    image = BinaryContent(exam.PNG, media_type="image/png")
    exam.see_image(lambda: agent.run_sync([exam.WHAT_IS_SEEN, image]).output, ModelHTTPError)


def usage() -> None:
    told = agent.run_sync(exam.HELLO).usage
    exam.check(told.input_tokens > 0 and told.output_tokens > 0, told)


def unknown_model() -> None:
    unknown = Agent(OpenAIChatModel(exam.UNKNOWN, provider=provider))
    exam.expect_refusal(ModelNotFoundError, lambda: unknown.run_sync(exam.HELLO))


def context_overflow() -> None:
    exam.expect_refusal(ModelContextWindowExceededError, lambda: agent.run_sync(exam.TOO_LONG))


def interaction_id() -> str:
    settings: Any = {"extra_body": {"rlaas::interaction_id": exam.INTERACTION_ID}}
    return str(agent.run_sync(exam.HELLO, model_settings=settings).response.provider_response_id)


def feedback() -> str:
    return str(agent.run_sync(exam.HELLO).response.provider_response_id)


exam.sit(globals())
