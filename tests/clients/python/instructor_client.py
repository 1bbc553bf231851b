"""Instructor."""

from typing import Any

import exam
import instructor
import openai
from instructor.core.exceptions import InstructorRetryException
from pydantic import BaseModel

plain = openai.OpenAI(base_url=f"{exam.URL}/v1", api_key=exam.KEY, max_retries=0)
MODES = (instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA, instructor.Mode.MD_JSON)


class Person(BaseModel):
    name: str
    age: int


def ask(question: Any, mode: instructor.Mode = instructor.Mode.TOOLS, **parameters: Any) -> Any:
    client = instructor.from_openai(plain, mode=mode)
    request: Any = {"model": exam.MODEL, "messages": [{"role": "user", "content": question}], "response_model": Person, "max_retries": 1}
    return client.chat.completions.create(**{**request, **parameters})


def structured_output() -> None:
    for mode in MODES[:3]:
        person = ask(exam.WHO, mode)
        exam.check(person.model_dump() == {"name": "Ada Park", "age": 36}, (mode, person))


def stream() -> None:
    client = instructor.from_openai(plain)
    messages: Any = [{"role": "user", "content": exam.WHO}]
    *_, last = client.chat.completions.create_partial(model=exam.MODEL, messages=messages, response_model=Person)
    exam.check((last.name, last.age) == ("Ada Park", 36), last)


def responses() -> None:
    client = instructor.from_openai(plain, mode=instructor.Mode.RESPONSES_TOOLS)
    person: Any = client.responses.create(model=exam.MODEL, input=exam.WHO, response_model=Person)
    exam.check(person.model_dump() == {"name": "Ada Park", "age": 36}, person)


def usage() -> None:
    client = instructor.from_openai(plain)
    messages: Any = [{"role": "user", "content": exam.WHO}]
    _, completion = client.chat.completions.create_with_completion(model=exam.MODEL, messages=messages, response_model=Person)
    exam.check(completion.usage.total_tokens > 0, completion.usage)


def unknown_model() -> None:
    exam.expect_refusal(InstructorRetryException, lambda: ask(exam.WHO, model=exam.UNKNOWN), "404")


def context_overflow() -> None:
    exam.expect_refusal(InstructorRetryException, lambda: ask(exam.TOO_LONG), "context_length_exceeded")


def interaction_id() -> str:
    person = ask(exam.WHO, extra_body={"rlaas::interaction_id": exam.INTERACTION_ID})
    return str(person._raw_response.id)


def feedback() -> str:
    return str(ask(exam.WHO)._raw_response.id)


exam.sit(globals())
