import pytest

from rlaas.errors import InvalidInput
from rlaas.inference.prompt import inputs_of, render
from rlaas.routing.policy import Prompt


def test_inputs_fill_the_templates_as_text_and_never_as_templates() -> None:
    messages = render(Prompt(system="For {{ who }}", user="<b>{{ email }}</b>"), {"who": "{{ 7 * 7 }}", "email": "a & b <c>"})
    assert [(message.role, message.content) for message in messages] == [("system", "For {{ 7 * 7 }}"), ("user", "<b>a & b <c></b>")]


def test_optional_inputs_may_be_missing() -> None:
    assert render(Prompt(user="{{ name | default('you') }}"), {})[0].content == "you"


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ email.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% for i in range(100000000) %}x{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ email.nothing }}",
        "{% include 'other' %}",
    ],
)
def test_templates_reach_nothing_and_exhaust_nothing(template: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        render(Prompt(user=template), {"email": "hello"})
    assert refused.value.param == "prompt.user"
    assert "hello" not in refused.value.detail


def test_a_prompt_tells_its_inputs_and_a_malformed_one_is_refused_by_part() -> None:
    assert inputs_of(Prompt(system="{{ a }}", user="{% for x in b %}{{ x }}{% endfor %}")) == {"a", "b"}
    with pytest.raises(InvalidInput) as refused:
        inputs_of(Prompt(system="{{ a", user=""))
    assert refused.value.param == "prompt.system"


def test_a_prompt_too_large_is_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        render(Prompt(user="{{ a }}{{ a }}{{ a }}"), {"a": "x" * 100_000})
    assert refused.value.param == "inputs"
