"""The examples of docs/guardrails.md, in their order."""

import re
from pathlib import Path

from rlaas.chat import Message
from rlaas.policies.guardrails.checks import check_input, check_output, needs_whole_output
from rlaas.policies.guardrails.guardrail_list import Guardrails

GUIDE = Path(__file__).parents[3] / "docs" / "guardrails.md"
_FENCE = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_guides_examples_do_what_they_show() -> None:
    names: dict[str, object] = {
        "check_input": check_input,
        "check_output": check_output,
        "needs_whole_output": needs_whole_output,
        "Message": Message,
    }
    languages = []
    for language, name, text in _FENCE.findall(GUIDE.read_text(encoding="utf-8")):
        if name == "guardrails":
            names["guardrails"] = Guardrails.model_validate_json(text)
        elif language == "python":
            exec(text, names)
        languages.append(language)
    assert (languages.count("json"), languages.count("python"), languages.count("sql")) == (6, 7, 1)
