"""Anthropic's client."""

from typing import Any

import anthropic
import exam
from pydantic import BaseModel

client = anthropic.Anthropic(base_url=exam.URL, api_key=exam.KEY, max_retries=0)
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"name": "report_weather", "description": "The weather in a city", "input_schema": SCHEMA}


class Person(BaseModel):
    name: str
    age: int


def ask(question: Any, **parameters: Any) -> Any:
    request: Any = {"model": exam.MODEL, "max_tokens": 200, "messages": [{"role": "user", "content": question}]}
    return client.messages.create(**{**request, **parameters})


def chat() -> None:
    text = ask(exam.HELLO).content[0].text
    exam.check(text == exam.ANSWER, text)


def stream() -> None:
    with client.messages.stream(model=exam.MODEL, max_tokens=200, messages=[{"role": "user", "content": exam.HELLO}]) as events:
        pieces = list(events.text_stream)
    exam.check(len(pieces) > 2 and "".join(pieces) == exam.ANSWER, pieces)


def _use_tools(question: str, *, streamed: bool) -> str | None:
    messages: list[Any] = [{"role": "user", "content": question}]
    for _ in range(3):
        if streamed:
            with client.messages.stream(model=exam.MODEL, max_tokens=200, messages=messages, tools=[TOOL]) as events:
                message: Any = events.get_final_message()
        else:
            message = ask("", messages=messages, tools=[TOOL])
        if message.stop_reason != "tool_use":
            return str(message.content[0].text)
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": exam.report_weather(**block.input)}
            for block in message.content
            if block.type == "tool_use"
        ]
        messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}]
    return None


def tools() -> None:
    text = _use_tools(exam.ONE_CITY, streamed=False)
    exam.check(text == exam.ONE_REPORT, text)


def parallel_tools() -> None:
    text = _use_tools(exam.TWO_CITIES, streamed=True)
    exam.check(text == exam.TWO_REPORTS, text)


def structured_output() -> None:
    messages: Any = [{"role": "user", "content": exam.WHO}]
    person = client.messages.parse(model=exam.MODEL, max_tokens=200, messages=messages, output_format=Person).parsed_output
    exam.check(person == Person(name="Ada Park", age=36), person)


def images() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": exam.IMAGE}
    parts = [{"type": "text", "text": exam.WHAT_IS_SEEN}, {"type": "image", "source": source}]
    exam.see_image(lambda: str(ask(parts).content[0].text), anthropic.BadRequestError)


def usage() -> None:
    told = ask(exam.HELLO).usage
    exam.check(told.input_tokens > 0 and told.output_tokens > 0, told)
    counted = client.messages.count_tokens(model=exam.MODEL, messages=[{"role": "user", "content": exam.HELLO}])
    exam.check(counted.input_tokens > 0, counted)


def unknown_model() -> None:
    exam.expect_refusal(anthropic.NotFoundError, lambda: ask(exam.HELLO, model=exam.UNKNOWN), "not_found_error")


def context_overflow() -> None:
    exam.expect_refusal(anthropic.BadRequestError, lambda: ask(exam.TOO_LONG), "context")


def interaction_id() -> str:
    return str(ask(exam.HELLO, extra_body={"rlaas::interaction_id": exam.INTERACTION_ID}).id)


def feedback() -> str:
    return str(ask(exam.HELLO).id)


exam.sit(globals())
