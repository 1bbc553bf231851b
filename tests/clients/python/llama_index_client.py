"""LlamaIndex."""

import asyncio
from typing import Any

import exam
import openai
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

PLACE: Any = {"api_base": f"{exam.URL}/v1", "api_key": exam.KEY, "max_retries": 0, "context_window": 10_000}


def make_llm(model: str = exam.MODEL, **settings: Any) -> OpenAILike:
    return OpenAILike(model=model, is_chat_model=True, is_function_calling_model=True, **PLACE, **settings)


llm = make_llm()


class Person(BaseModel):
    """A person."""

    name: str
    age: int


def ask(question: Any, asked: OpenAILike = llm) -> Any:
    return asked.chat([ChatMessage(role="user", content=question)])


def chat() -> None:
    text = ask(exam.HELLO).message.content
    exam.check(text == exam.ANSWER, text)


def stream() -> None:
    pieces = [piece.delta for piece in llm.stream_chat([ChatMessage(role="user", content=exam.HELLO)])]
    exam.check(len(pieces) > 2 and "".join(filter(None, pieces)) == exam.ANSWER, pieces)


async def _run_agent(question: str, model: Any) -> str:
    agent = FunctionAgent(tools=[FunctionTool.from_defaults(exam.report_weather)], llm=model)
    return str(await agent.run(user_msg=question))


def tools() -> None:
    text = asyncio.run(_run_agent(exam.ONE_CITY, make_llm()))
    exam.check(text == exam.ONE_REPORT, text)


def parallel_tools() -> None:
    text = asyncio.run(_run_agent(exam.TWO_CITIES, make_llm()))
    exam.check(text == exam.TWO_REPORTS, text)


def structured_output() -> None:
    for model in (llm, make_llm(should_use_structured_outputs=True)):
        person = model.structured_predict(Person, PromptTemplate("{text}"), text=exam.WHO)
        exam.check(person == Person(name="Ada Park", age=36), person)


def responses() -> None:
    model = OpenAIResponses(model=exam.MODEL, **PLACE)
    text = model.chat([ChatMessage(role="user", content=exam.HELLO)]).message.content
    exam.check(text == exam.ANSWER, text)
    report = asyncio.run(_run_agent(exam.TWO_CITIES, OpenAIResponses(model=exam.MODEL, **PLACE)))
    exam.check(report == exam.TWO_REPORTS, report)


def images() -> None:
    blocks: Any = [TextBlock(text=exam.WHAT_IS_SEEN), ImageBlock(image=exam.IMAGE.encode(), image_mimetype="image/png")]
    exam.see_image(lambda: ask(blocks).message.content, openai.BadRequestError)


def usage() -> None:
    told = ask(exam.HELLO).raw.usage
    exam.check(told.prompt_tokens > 0 and told.completion_tokens > 0, told)


def unknown_model() -> None:
    exam.expect_refusal(openai.NotFoundError, lambda: ask(exam.HELLO, make_llm(exam.UNKNOWN)))


def context_overflow() -> None:
    exam.expect_refusal(openai.BadRequestError, lambda: ask(exam.TOO_LONG), "maximum context length")


def interaction_id() -> str:
    named = make_llm(additional_kwargs={"extra_body": {"rlaas::interaction_id": exam.INTERACTION_ID}})
    return str(ask(exam.HELLO, named).raw.id)


def feedback() -> str:
    return str(ask(exam.HELLO).raw.id)


exam.sit(globals())
