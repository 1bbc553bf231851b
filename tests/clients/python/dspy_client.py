"""DSPy."""

from typing import Any

import dspy
import exam
from dspy.utils.exceptions import ContextWindowExceededError, LMInvalidRequestError, LMUnsupportedModelError
from pydantic import BaseModel


class ToolCaller(dspy.LM):
    """DSPy sends tools as tools only to models that its catalogue says call them."""

    supports_function_calling = True


def make_lm(model: str = exam.MODEL, make: type[dspy.LM] = dspy.LM, **settings: Any) -> dspy.LM:
    return make(f"openai/{model}", api_base=f"{exam.URL}/v1", api_key=exam.KEY, cache=False, num_retries=0, **settings)


class Person(BaseModel):
    name: str
    age: int


class Who(dspy.Signature):
    """Find the person."""

    text: str = dspy.InputField()
    person: Person = dspy.OutputField()


class Look(dspy.Signature):
    """Say what is seen."""

    image: dspy.Image = dspy.InputField()
    seen: str = dspy.OutputField()


def ask(question: str, lm: dspy.LM | None = None) -> str:
    with dspy.context(lm=lm or make_lm()):
        return str(dspy.Predict("question -> answer")(question=question).answer)


def chat() -> None:
    text = ask(exam.HELLO)
    exam.check(text == exam.ANSWER, text)


def stream() -> None:
    listener = dspy.streaming.StreamListener(signature_field_name="answer")
    program = dspy.streamify(dspy.Predict("question -> answer"), stream_listeners=[listener], async_streaming=False)
    with dspy.context(lm=make_lm()):
        pieces = [item.chunk for item in program(question=exam.HELLO) if isinstance(item, dspy.streaming.StreamResponse)]
    exam.check(len(pieces) > 2 and "".join(pieces).strip() == exam.ANSWER, pieces)


def _call_tools(question: str) -> Any:
    signature = dspy.Signature("question: str, tools: list[dspy.Tool] -> outputs: dspy.ToolCalls")
    adapter = dspy.ChatAdapter(use_native_function_calling=True)
    with dspy.context(lm=make_lm(make=ToolCaller), adapter=adapter):
        return dspy.Predict(signature)(question=question, tools=[dspy.Tool(exam.report_weather)]).outputs.tool_calls


def tools() -> None:
    called = _call_tools(exam.ONE_CITY)
    exam.check([(call.name, call.args) for call in called] == [("report_weather", {"city": "Oslo"})], called)


def parallel_tools() -> None:
    called = _call_tools(exam.TWO_CITIES)
    exam.check([call.args["city"] for call in called] == ["Oslo", "Rome"], called)


def structured_output() -> None:
    with dspy.context(lm=make_lm()):
        person = dspy.Predict(Who)(text=exam.WHO).person
    exam.check(person == Person(name="Ada Park", age=36), person)


def responses() -> None:
    text = ask(exam.HELLO, make_lm(model_type="responses"))
    exam.check(text == exam.ANSWER, text)


def images() -> None:
    def look() -> str:
        with dspy.context(lm=make_lm()):
            return str(dspy.Predict(Look)(image=dspy.Image(exam.IMAGE_URL)).seen)

    exam.see_image(look, LMInvalidRequestError)


def usage() -> None:
    with dspy.context(lm=make_lm(), track_usage=True):
        told = dspy.Predict("question -> answer")(question=exam.HELLO).get_lm_usage()
    exam.check(all(usage["total_tokens"] > 0 for usage in told.values()) and told, told)


def unknown_model() -> None:
    exam.expect_refusal(LMUnsupportedModelError, lambda: ask(exam.HELLO, make_lm(exam.UNKNOWN)))


def context_overflow() -> None:
    exam.expect_refusal(ContextWindowExceededError, lambda: ask(exam.TOO_LONG))


def interaction_id() -> str:
    lm = make_lm(extra_body={"rlaas::interaction_id": exam.INTERACTION_ID})
    ask(exam.HELLO, lm)
    return str(lm.history[-1]["response"].id)


def feedback() -> str:
    lm = make_lm()
    ask(exam.HELLO, lm)
    return str(lm.history[-1]["response"].id)


exam.sit(globals())
