"""OpenAI's Agents SDK, which asks by the Responses API unless it is told otherwise."""

import asyncio
from typing import Any

import exam
import openai
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
from pydantic import BaseModel

client = openai.AsyncOpenAI(base_url=f"{exam.URL}/v1", api_key=exam.KEY, max_retries=0)
loop = asyncio.new_event_loop()  # one for all features: connections are kept in it
by_chat = OpenAIChatCompletionsModel(exam.MODEL, client)
by_responses = OpenAIResponsesModel(exam.MODEL, client)


class Person(BaseModel):
    name: str
    age: int


def run(question: Any, model: Any = by_chat, **settings: Any) -> Any:
    return loop.run_until_complete(Runner.run(Agent(name="desk", model=model, **settings), question))


async def _pieces(model: Any, **settings: Any) -> list[str]:
    streamed = Runner.run_streamed(Agent(name="desk", model=model, **settings), exam.HELLO)
    events = [event async for event in streamed.stream_events() if event.type == "raw_response_event"]
    return [event.data.delta for event in events if event.data.type == "response.output_text.delta"]


def chat() -> None:
    text = run(exam.HELLO).final_output
    exam.check(text == exam.ANSWER, text)


def stream() -> None:
    pieces = loop.run_until_complete(_pieces(by_chat))
    exam.check(len(pieces) > 2 and "".join(pieces) == exam.ANSWER, pieces)


def tools() -> None:
    text = run(exam.ONE_CITY, tools=[function_tool(exam.report_weather)]).final_output
    exam.check(text == exam.ONE_REPORT, text)


def parallel_tools() -> None:
    text = run(exam.TWO_CITIES, tools=[function_tool(exam.report_weather)]).final_output
    exam.check(text == exam.TWO_REPORTS, text)


def structured_output() -> None:
    person = run(exam.WHO, output_type=Person).final_output
    exam.check(person == Person(name="Ada Park", age=36), person)


def responses() -> None:
    answered = run(exam.TWO_CITIES, by_responses, tools=[function_tool(exam.report_weather)])
    exam.check(answered.final_output == exam.TWO_REPORTS, answered.final_output)
    pieces = loop.run_until_complete(_pieces(by_responses))
    exam.check(len(pieces) > 2 and "".join(pieces) == exam.ANSWER, pieces)
    person = run(exam.WHO, by_responses, output_type=Person).final_output
    exam.check(person == Person(name="Ada Park", age=36), person)
    agent = Agent(name="desk", model=by_responses)
    further = loop.run_until_complete(Runner.run(agent, "And now?", previous_response_id=answered.last_response_id))
    exam.check(further.final_output == "As I said, your refund is on its way.", further.final_output)


def images() -> None:
    parts = [{"type": "input_text", "text": exam.WHAT_IS_SEEN}, {"type": "input_image", "image_url": exam.IMAGE_URL, "detail": "auto"}]
    exam.see_image(lambda: str(run([{"role": "user", "content": parts}]).final_output), openai.BadRequestError)


def usage() -> None:
    for model in (by_chat, by_responses):
        told = run(exam.HELLO, model).context_wrapper.usage
        exam.check(told.input_tokens > 0 and told.output_tokens > 0, told)


def unknown_model() -> None:
    for model in (OpenAIChatCompletionsModel(exam.UNKNOWN, client), OpenAIResponsesModel(exam.UNKNOWN, client)):
        exam.expect_refusal(openai.NotFoundError, lambda model=model: run(exam.HELLO, model))


def context_overflow() -> None:
    for model in (by_chat, by_responses):
        try:
            seen = run(exam.TOO_LONG, model)
        except openai.BadRequestError as error:
            exam.check(error.code == "context_length_exceeded", error.body)
        else:
            exam.check(False, seen)


def interaction_id() -> str:
    settings = ModelSettings(extra_body={"rlaas::interaction_id": exam.INTERACTION_ID})
    return str(run(exam.HELLO, by_responses, model_settings=settings).last_response_id)


def feedback() -> str:
    return str(run(exam.HELLO, by_responses).last_response_id)


exam.sit(globals())
