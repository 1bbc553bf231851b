"""The examples of docs/guardrails.md, in their order."""

import re
from pathlib import Path

from rlaas.chat import Message
from rlaas.policies.guardrails.checks import check_input, check_output, needs_whole_output
from rlaas.policies.guardrails.settings import Guardrails

GUIDE = Path(__file__).parents[3] / "docs" / "guardrails.md"
_FENCE = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_guides_examples_do_what_they_show() -> None:
    known: dict[str, object] = {
        "check_input": check_input,
        "check_output": check_output,
        "needs_whole_output": needs_whole_output,
        "Message": Message,
    }
    ran = []
    for language, what, text in _FENCE.findall(GUIDE.read_text(encoding="utf-8")):
        if what == "guardrails":
            known["guardrails"] = Guardrails.model_validate_json(text)
        elif language == "python":
            exec(text, known)
        ran.append(language)
    assert (ran.count("json"), ran.count("python"), ran.count("sql")) == (6, 7, 1)
