"""OpenAI's client, both APIs."""

import json
from typing import Any

import exam
import openai
from pydantic import BaseModel

client = openai.OpenAI(base_url=f"{exam.URL}/v1", api_key=exam.KEY, max_retries=0)
PARAMETERS: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
FUNCTION: Any = {"name": "report_weather", "description": "The weather in a city", "parameters": PARAMETERS, "strict": True}


class Person(BaseModel):
    name: str
    age: int


def ask(question: Any, **parameters: Any) -> Any:
    request: Any = {"model": exam.MODEL, "messages": [{"role": "user", "content": question}], **parameters}
    return client.chat.completions.create(**request)


def chat() -> None:
    exam.check(ask(exam.HELLO).choices[0].message.content == exam.ANSWER, "another answer")


def stream() -> None:
    with client.chat.completions.stream(model=exam.MODEL, messages=[{"role": "user", "content": exam.HELLO}]) as events:
        kinds = [event.type for event in events]
        text = events.get_final_completion().choices[0].message.content
    exam.check(kinds.count("content.delta") > 2 and text == exam.ANSWER, (kinds, text))


def _use_tools(question: str) -> str | None:
    messages: list[Any] = [{"role": "user", "content": question}]
    for _ in range(3):
        tools: Any = [{"type": "function", "function": FUNCTION}]
        message = client.chat.completions.create(model=exam.MODEL, messages=messages, tools=tools).choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message.model_dump())
        for call in message.tool_calls:
            result = exam.report_weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return None


def tools() -> None:
    text = _use_tools(exam.ONE_CITY)
    exam.check(text == exam.ONE_REPORT, text)


def parallel_tools() -> None:
    text = _use_tools(exam.TWO_CITIES)
    exam.check(text == exam.TWO_REPORTS, text)


def structured_output() -> None:
    messages: Any = [{"role": "user", "content": exam.WHO}]
    parsed = client.chat.completions.parse(model=exam.MODEL, messages=messages, response_format=Person).choices[0].message.parsed
    exam.check(parsed == Person(name="Ada Park", age=36), parsed)


def responses() -> None:
    with client.responses.stream(model=exam.MODEL, input=exam.HELLO) as events:
        kinds = [event.type for event in events]
        exam.check(events.get_final_response().output_text == exam.ANSWER, kinds)
    tool: Any = {"type": "function", **FUNCTION}
    called = client.responses.create(model=exam.MODEL, input=exam.TWO_CITIES, tools=[tool])
    results: Any = [
        {"type": "function_call_output", "call_id": item.call_id, "output": exam.report_weather(**json.loads(item.arguments))}
        for item in called.output
        if item.type == "function_call"
    ]
    final = client.responses.create(model=exam.MODEL, input=results, tools=[tool], previous_response_id=called.id)
    exam.check(final.output_text == exam.TWO_REPORTS, final.output_text)
    parsed = client.responses.parse(model=exam.MODEL, input=exam.WHO, text_format=Person).output_parsed
    exam.check(parsed == Person(name="Ada Park", age=36), parsed)


def images() -> None:
    parts = [{"type": "text", "text": exam.WHAT_IS_SEEN}, {"type": "image_url", "image_url": {"url": exam.IMAGE_URL}}]
    exam.see_image(lambda: ask(parts).choices[0].message.content, openai.BadRequestError)


def usage() -> None:
    told = ask(exam.HELLO).usage
    exam.check(told.prompt_tokens > 0 and told.completion_tokens > 0, told)
    *_, last = ask(exam.HELLO, stream=True, stream_options={"include_usage": True})
    exam.check(last.usage and last.usage.total_tokens > 0, last)


def _refused_as(error: type[openai.APIStatusError], code: str, question: str, **parameters: Any) -> None:
    try:
        seen = ask(question, **parameters)
    except error as raised:
        exam.check(raised.code == code, raised.body)
    else:
        exam.check(False, seen)


def unknown_model() -> None:
    _refused_as(openai.NotFoundError, "model_not_found", exam.HELLO, model=exam.UNKNOWN)


def context_overflow() -> None:
    _refused_as(openai.BadRequestError, "context_length_exceeded", exam.TOO_LONG)


def interaction_id() -> str:
    return str(ask(exam.HELLO, extra_body={"rlaas::interaction_id": exam.INTERACTION_ID}).id)


def feedback() -> str:
    return str(ask(exam.HELLO).id)


exam.sit(globals())
