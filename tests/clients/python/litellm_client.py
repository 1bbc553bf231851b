"""LiteLLM."""

import json
from typing import Any

import exam
import litellm
from pydantic import BaseModel

PLACE: Any = {"api_base": f"{exam.URL}/v1", "api_key": exam.KEY, "max_retries": 0}
MODEL = f"openai/{exam.MODEL}"
PARAMETERS: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION: Any = {"name": "report_weather", "description": "The weather in a city", "parameters": PARAMETERS}


class Person(BaseModel):
    name: str
    age: int


def ask(question: Any, **parameters: Any) -> Any:
    return litellm.completion(**PLACE, **{"model": MODEL, "messages": [{"role": "user", "content": question}], **parameters})


def chat() -> None:
    text = ask(exam.HELLO).choices[0].message.content
    exam.check(text == exam.ANSWER, text)


def stream() -> None:
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(exam.HELLO, stream=True)]
    exam.check(len(pieces) > 2 and "".join(pieces) == exam.ANSWER, pieces)


def _use_tools(question: str, *, streamed: bool) -> str | None:
    messages: list[Any] = [{"role": "user", "content": question}]
    for _ in range(3):
        answer = ask("", messages=messages, tools=[{"type": "function", "function": FUNCTION}], stream=streamed)
        message = (litellm.stream_chunk_builder(list(answer)) if streamed else answer).choices[0].message
        if not message.tool_calls:
            return message.content
        messages.append(message.model_dump())
        for call in message.tool_calls:
            result = exam.report_weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return None


def tools() -> None:
    text = _use_tools(exam.ONE_CITY, streamed=False)
    exam.check(text == exam.ONE_REPORT, text)


def parallel_tools() -> None:
    text = _use_tools(exam.TWO_CITIES, streamed=True)
    exam.check(text == exam.TWO_REPORTS, text)


def structured_output() -> None:
    text = ask(exam.WHO, response_format=Person).choices[0].message.content
    exam.check(Person.model_validate_json(text) == Person(name="Ada Park", age=36), text)


def responses() -> None:
    response = litellm.responses(model=MODEL, input=exam.HELLO, **PLACE)
    exam.check(response.output[0].content[0].text == exam.ANSWER, response)
    kinds = [event.type for event in litellm.responses(model=MODEL, input=exam.HELLO, stream=True, **PLACE)]
    exam.check(kinds[-1] == "response.completed" and kinds.count("response.output_text.delta") > 2, kinds)


def images() -> None:
    parts = [{"type": "text", "text": exam.WHAT_IS_SEEN}, {"type": "image_url", "image_url": {"url": exam.IMAGE_URL}}]
    exam.see_image(lambda: ask(parts).choices[0].message.content, litellm.BadRequestError)


def usage() -> None:
    told = ask(exam.HELLO).usage
    exam.check(told.prompt_tokens > 0 and told.completion_tokens > 0, told)
    chunks = list(ask(exam.HELLO, stream=True, stream_options={"include_usage": True}))
    exam.check(chunks[-1].usage.total_tokens == told.total_tokens, chunks[-1])


def unknown_model() -> None:
    exam.expect_refusal(litellm.NotFoundError, lambda: ask(exam.HELLO, model=f"openai/{exam.UNKNOWN}"))


def context_overflow() -> None:
    exam.expect_refusal(litellm.ContextWindowExceededError, lambda: ask(exam.TOO_LONG))


def interaction_id() -> str:
    return str(ask(exam.HELLO, extra_body={"rlaas::interaction_id": exam.INTERACTION_ID}).id)


def feedback() -> str:
    return str(ask(exam.HELLO).id)


exam.sit(globals())
