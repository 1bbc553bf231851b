"""OpenFeature with the provider of its remote evaluation protocol (OFREP)."""

import exam
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode

api.set_provider(OFREPProvider(exam.URL, headers_factory=lambda: {"Authorization": f"Bearer {exam.KEY}"}))
client = api.get_client()
THREAD = EvaluationContext(targeting_key="thread-7")


def flags() -> None:
    skill = exam.MODEL.removeprefix("rlaas::")
    evaluated = client.get_string_details(skill, "none", THREAD)
    exam.check(evaluated.value == f"{skill}@v1" and evaluated.variant, evaluated)


def unknown_model() -> None:
    evaluated = client.get_string_details("unheard-of", "none", THREAD)
    exam.check(evaluated.value == "none" and evaluated.error_code == ErrorCode.FLAG_NOT_FOUND, evaluated)


exam.sit(globals())
