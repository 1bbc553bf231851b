"""LangChain and LangGraph."""

from typing import Any

import exam
from langchain.agents import create_agent
from langchain_core.exceptions import ContextOverflowError, ModelInvalidRequestError, ModelNotFoundError
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


def make_model(**settings: Any) -> ChatOpenAI:
    place: Any = {"model": exam.MODEL, "base_url": f"{exam.URL}/v1", "api_key": exam.KEY, "max_retries": 0}
    return ChatOpenAI(**{**place, **settings})


model = make_model()


class Person(BaseModel):
    name: str
    age: int


@tool
def report_weather(city: str) -> str:
    """The weather in a city."""
    return exam.report_weather(city)


def chat() -> None:
    text = model.invoke(exam.HELLO).content
    exam.check(text == exam.ANSWER, text)


def stream() -> None:
    pieces = [str(chunk.content) for chunk in model.stream(exam.HELLO)]
    exam.check(len(pieces) > 2 and "".join(pieces) == exam.ANSWER, pieces)


def _run_agent(question: str, **settings: Any) -> str:
    agent = create_agent(make_model(**settings), tools=[report_weather])
    return str(agent.invoke({"messages": [HumanMessage(question)]})["messages"][-1].text)


def tools() -> None:
    text = _run_agent(exam.ONE_CITY)
    exam.check(text == exam.ONE_REPORT, text)


def parallel_tools() -> None:
    text = _run_agent(exam.TWO_CITIES, streaming=True)
    exam.check(text == exam.TWO_REPORTS, text)


def structured_output() -> None:
    for method in ("json_schema", "function_calling"):
        person = model.with_structured_output(Person, method=method).invoke(exam.WHO)
        exam.check(person == Person(name="Ada Park", age=36), person)


def responses() -> None:
    text = _run_agent(exam.TWO_CITIES, use_responses_api=True)
    exam.check(text == exam.TWO_REPORTS, text)
    pieces = [chunk.text for chunk in make_model(use_responses_api=True).stream(exam.HELLO)]
    exam.check("".join(pieces) == exam.ANSWER, pieces)


def images() -> None:
    parts: Any = [{"type": "text", "text": exam.WHAT_IS_SEEN}, {"type": "image", "base64": exam.IMAGE, "mime_type": "image/png"}]
    exam.see_image(lambda: str(model.invoke([HumanMessage(parts)]).content), ModelInvalidRequestError)


def usage() -> None:
    told = model.invoke(exam.HELLO).usage_metadata
    exam.check(told and told["input_tokens"] > 0 and told["output_tokens"] > 0, told)
    usages = [chunk.usage_metadata for chunk in make_model(stream_usage=True).stream(exam.HELLO) if chunk.usage_metadata]
    exam.check(usages == [told], usages)


def unknown_model() -> None:
    exam.expect_refusal(ModelNotFoundError, lambda: make_model(model=exam.UNKNOWN).invoke(exam.HELLO))


def context_overflow() -> None:
    exam.expect_refusal(ContextOverflowError, lambda: model.invoke(exam.TOO_LONG))


def interaction_id() -> str:
    named = make_model(extra_body={"rlaas::interaction_id": exam.INTERACTION_ID})
    return str(named.invoke(exam.HELLO).response_metadata["id"])


def feedback() -> str:
    return str(model.invoke(exam.HELLO).response_metadata["id"])


exam.sit(globals())
