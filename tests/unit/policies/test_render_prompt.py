import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from rlaas.chat import Document, Message
from rlaas.errors import InvalidInput
from rlaas.policies.prompt_graph import AnyPrompt, Prompt, ShortPrompt, to_graph
from rlaas.policies.render_prompt import _SANDBOX as SANDBOX
from rlaas.policies.render_prompt import MAX_PROMPT_BYTES, check_prompt, finish_text, list_offered_tools, render, render_before

TOOL = {"function": {"name": "find_order", "description": "An order by its number", "parameters": {"type": "object"}}}
GRAPH: dict[str, Any] = {
    "inputs": {"email": {}, "name": {"required": False}},
    "nodes": [
        {"kind": "text", "name": "tone", "template": "Be {{ style }}."},
        {"kind": "text", "name": "style", "template": "brief"},
        {"kind": "retrieval", "name": "facts", "max_documents": 2},
        {"kind": "system", "name": "role", "template": "{{ tone }}{% if facts %}\n\n{{ facts }}{% endif %}"},
        {"kind": "few_shot", "name": "examples", "examples": [{"user": "Hi", "assistant": "Hello"}]},
        {"kind": "user", "name": "question", "template": "{% if name %}{{ name }}: {% endif %}{{ email }}"},
        {"kind": "tools", "name": "tools", "tools": [TOOL]},
        {"kind": "output", "name": "answer", "cut_at": ["\n\nUser:"]},
    ],
}


def make_prompt(*, user: str, system: str = "") -> Prompt:
    return parse_prompt({"system": system, "user": user})


def parse_prompt(value: object) -> Prompt:
    return to_graph(TypeAdapter(AnyPrompt).validate_json(json.dumps(value)))


def replace_node(place: int, **fields: Any) -> Prompt:
    nodes = [*GRAPH["nodes"]]
    nodes[place] = {**nodes[place], **fields}
    return parse_prompt({**GRAPH, "nodes": nodes})


def test_inputs_fill_the_templates_as_text_and_never_as_templates() -> None:
    messages = render(make_prompt(system="For {{ who }}", user="<b>{{ email }}</b>"), {"who": "{{ 7 * 7 }}", "email": "a & b <c>"})
    assert [(message.role, message.content) for message in messages] == [("system", "For {{ 7 * 7 }}"), ("user", "<b>a & b <c></b>")]


def test_optional_inputs_may_be_missing() -> None:
    assert render(make_prompt(user="{{ name | default('you') }}"), {})[0].content == "you"


def test_a_graph_becomes_messages_in_the_order_of_its_nodes() -> None:
    graph = replace_node(0)
    documents = [Document(text=text) for text in ("first", "second", "third")]
    assert render(graph, {"email": "Where is it?"}, documents) == (
        Message(role="system", content="Be brief.\n\n[1] first\n\n[2] second"),
        Message(role="user", content="Hi"),
        Message(role="assistant", content="Hello"),
        Message(role="user", content="Where is it?"),
    )
    assert render(graph, {"email": "?", "name": "Ada"})[-1].content == "Ada: ?"
    chat = (Message(role="user", content="And now?"),)
    assert [message.role for message in render_before(chat, graph, {"email": ""})] == ["system", "user", "assistant", "user"]
    large = Message(role="user", content="x" * 2 * MAX_PROMPT_BYTES)
    assert render_before((large,), graph, {"email": ""})[-1] == large  # only what the policy renders is bounded
    assert list_offered_tools(graph) == {"tools": [{"type": "function", **TOOL}], "tool_choice": "auto"}
    assert finish_text(graph, "  It is here.\n\nUser: and mine?") == "It is here."


def test_the_short_form_is_two_nodes_and_the_same_policy() -> None:
    nodes = [("system", "Be brief."), ("user", "{{ a }}")]
    long = parse_prompt({"nodes": [{"kind": name, "name": name, "template": template} for name, template in nodes]})
    assert make_prompt(system="Be brief.", user="{{ a }}") == long
    assert [node.name for node in make_prompt(user="{{ a }}").nodes] == ["user"]


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ email.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% for i in range(100000000) %}x{% endfor %}",
        "{% set a = email %}{% set a = a ~ a %}{{ a }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ email | center(1000000000) }}",
        "{{ email | replace('', email) }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ email ~ email }}",
        "{{ 1 / 0 }}",
        "{{ email.nothing }}",
        "{{ email['text'] }}",
        "{% include 'other' %}",
        "{{ email.upper() }}",
    ],
)
def test_templates_reach_no_code_and_exhaust_nothing(template: str) -> None:
    for refuse in (lambda: render(make_prompt(user=template), {"email": "hello"}), lambda: check_prompt(make_prompt(user=template))):
        with pytest.raises(InvalidInput) as error:
            refuse()
        assert error.value.param == "prompt.user.template"
        assert "hello" not in error.value.detail


def test_checking_a_prompt_returns_its_inputs_and_names_the_node_and_field_of_a_fault() -> None:
    assert check_prompt(make_prompt(system="{{ a }}", user="{% if b %}{{ b | trim }}{% endif %}")) == {"a", "b"}
    assert check_prompt(replace_node(0)) == {"email", "name"}
    with pytest.raises(InvalidInput) as error:
        check_prompt(make_prompt(system="{{ a", user=""))
    assert error.value.param == "prompt.system.template"


@pytest.mark.parametrize(
    ("place", "template", "expected"),
    [
        (5, "{{ emial }}", "'question' uses 'emial'"),
        (1, "{{ tone }}", "circle"),
        (1, "{{ style }}", "circle"),
        (3, "{{ examples }}", "no text or retrieval node"),
    ],
)
def test_nodes_that_use_what_does_not_exist_are_refused_by_name(place: int, template: str, expected: str) -> None:
    with pytest.raises(InvalidInput, match=expected) as error:
        check_prompt(replace_node(place, template=template))
    assert str(error.value.param).startswith("prompt.")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"name": "email"}, "names two things"),
        ({"kind": "system"}, "needs a user node"),
    ],
)
def test_a_graph_with_one_name_twice_or_without_a_user_node_is_refused(fields: dict[str, str], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        replace_node(5, **fields)


def test_a_missing_input_is_named_and_a_request_cannot_replace_a_node_by_an_input() -> None:
    with pytest.raises(InvalidInput) as error:
        render(replace_node(0), {"name": "Ada"})
    assert error.value.param == "inputs.email"
    assert render(replace_node(0), {"email": "?", "tone": "Be rude."})[0].content == "Be brief."


def test_a_template_of_thousands_of_expressions_is_refused() -> None:
    with pytest.raises(InvalidInput, match="parts"):
        check_prompt(make_prompt(user="{{ a }}" * 1_500))


@pytest.mark.parametrize("template", ["{{ a }}{{ a }}{{ a }}", "{{ a }}" * 300])
def test_rendering_stops_as_soon_as_a_prompt_is_too_large(template: str) -> None:
    with pytest.raises(InvalidInput) as error:
        render(make_prompt(user=template), {"a": "x" * 100_000})
    assert error.value.param == "inputs"
    nested = [{"kind": "text", "name": f"n{at}", "template": "{{ a }}" if at == 0 else f"{{{{ n{at - 1} }}}}" * 2} for at in range(30)]
    graph = parse_prompt({"nodes": [*nested, {"kind": "user", "name": "user", "template": "{{ n29 }}"}]})
    with pytest.raises(InvalidInput):
        render(graph, {"a": "x" * (MAX_PROMPT_BYTES // 2)})


IMPOSSIBLE = {
    "a chain of filters on a constant": "{{ 'a'" + "|upper" * 9 + " }}",
    "thousands of filters": "{{ x" + "|tojson" * 8000 + " }}",
    "filters within filters": "{{ x|d(" * 9 + "x" + ") }}".rjust(13, ")"),
    "brackets": "{{ " + "(" * 10_000 + "x" + ")" * 10_000 + " }}",
    "lists": "{{ " + "[" * 10_000 + " }}",
    "negations": "{{ " + "not " * 10_000 + "x }}",
    "conditions in conditions": "{% if x %}" * 200 + "{% endif %}" * 200,
    "conditions in a line": "{{ " + "x if x else " * 300 + "x }}",
    "alternatives": "{{ " + " or ".join(["x"] * 500) + " }}",
    "attributes": "{{ x" + ".text" * 3000 + " }}",
    "a number of thousands of digits": "{{ " + "9" * 5000 + " }}",
    "a number beyond all numbers": "{{ 1e999 }}",
    "half a character": "{{ '\\ud800' }}",
    "an attribute of a text": "{{ x.text }}",
    "a text compared with a number": "{{ x > 3 }}",
    "a filter that takes other arguments": "{{ x|truncate('a') }}",
    "a filter that takes fewer arguments": "{{ x|default(1, 2, 3, 4) }}",
    "itself": "{{ self }}",
    "what only the other branch says": "{% if x %}fine{% else %}{{ x.text }}{% endif %}",
}


@pytest.mark.parametrize("template", IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_a_template_that_cannot_be_rendered_or_is_too_deep_is_refused_when_it_is_registered(template: str) -> None:
    with pytest.raises(InvalidInput) as error:
        check_prompt(to_graph(ShortPrompt(system="fine", user=template[:65_000])))
    assert error.value.param == "prompt.user.template"


@pytest.mark.parametrize(
    "template",
    [
        "{{ x|d('')|trim|striptags|lower|title|truncate(200) }}",
        "{{ " + " or ".join(["x"] * 18) + " }}",
        "{% if x %}" * 11 + "{% endif %}" * 11,
        "{{ x }}" * 490,
        "{{ range }}{{ lipsum }}{{ dict }}{{ cycler }}{{ loop }}{{ class }}{{ t_1 }}",
    ],
)
def test_ordinary_templates_are_accepted_and_have_no_names_but_inputs(template: str) -> None:
    prompt = to_graph(ShortPrompt(user=template))
    [message] = render(prompt, dict.fromkeys(check_prompt(prompt), "word"))
    assert "<" not in message.content


def test_no_filter_runs_before_a_request_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    template = "{{ 'constant'|upper|lower|title }}"

    def upper(text: str) -> str:
        calls.append(text)
        return text

    monkeypatch.setitem(SANDBOX.filters, "upper", upper)
    SANDBOX.from_string(template)
    assert calls == []


def test_work_that_grows_with_documents_or_conditions_is_bounded() -> None:
    nodes = [
        {"kind": "retrieval", "name": "pages", "max_documents": 100, "template": "{% if x|title %}{% endif %}{{ document.text }}"},
        {"kind": "user", "name": "question", "template": "{{ pages }}"},
    ]
    prompt = Prompt.model_validate({"nodes": nodes}, strict=False)
    check_prompt(prompt)
    assert render(prompt, {"x": "a" * 1000}, [Document(text="b")] * 100)
    with pytest.raises(InvalidInput, match="too much text"):
        render(prompt, {"x": "a" * 240_000}, [Document(text="b")] * 100)


def test_nodes_that_multiply_each_other_are_refused_when_they_are_registered() -> None:
    texts = [{"kind": "text", "name": f"t{at}", "template": f"{{{{ t{at - 1} }}}}" * 30 if at else "a" * 1000} for at in range(30)]
    prompt = Prompt.model_validate({"nodes": [*texts, {"kind": "user", "name": "u", "template": "{{ t29 }}"}]}, strict=False)
    with pytest.raises(InvalidInput, match="at node 't2'"):
        check_prompt(prompt)
