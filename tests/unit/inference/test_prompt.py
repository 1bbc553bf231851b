import json
from typing import Any

import pytest
from pydantic import TypeAdapter

from rlaas.errors import InvalidInput
from rlaas.inference.prompt import MAX_PROMPT_BYTES, check, finished, offered_tools, render, render_before
from rlaas.routing.prompt import AnyPrompt, Document, Prompt, graph_of
from rlaas.telemetry.events import Message

TOOL = {"function": {"name": "find_order", "description": "An order by its number", "parameters": {"type": "object"}}}
GRAPH = {
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


def prompt(*, user: str, system: str = "") -> Prompt:
    return read({"system": system, "user": user})


def read(given: object) -> Prompt:
    return graph_of(TypeAdapter(AnyPrompt).validate_json(json.dumps(given)))


def changed(place: int, **fields: Any) -> Prompt:
    nodes = [*GRAPH["nodes"]]
    nodes[place] = {**nodes[place], **fields}  # type: ignore[dict-item]
    return read({**GRAPH, "nodes": nodes})


def test_inputs_fill_the_templates_as_text_and_never_as_templates() -> None:
    messages = render(prompt(system="For {{ who }}", user="<b>{{ email }}</b>"), {"who": "{{ 7 * 7 }}", "email": "a & b <c>"})
    assert [(message.role, message.content) for message in messages] == [("system", "For {{ 7 * 7 }}"), ("user", "<b>a & b <c></b>")]


def test_optional_inputs_may_be_missing() -> None:
    assert render(prompt(user="{{ name | default('you') }}"), {})[0].content == "you"


def test_a_graph_becomes_messages_in_the_order_of_its_nodes() -> None:
    graph = changed(0)
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
    with pytest.raises(InvalidInput, match="the prompt is larger"):
        render_before((Message(role="user", content="x" * MAX_PROMPT_BYTES),), graph, {"email": ""})
    assert offered_tools(graph) == {"tools": [{"type": "function", **TOOL}], "tool_choice": "auto"}
    assert finished(graph, "  It is here.\n\nUser: and mine?") == "It is here."


def test_the_short_form_is_two_nodes_and_the_same_policy() -> None:
    nodes = [("system", "Be brief."), ("user", "{{ a }}")]
    long = read({"nodes": [{"kind": name, "name": name, "template": template} for name, template in nodes]})
    assert prompt(system="Be brief.", user="{{ a }}") == long
    assert [node.name for node in prompt(user="{{ a }}").nodes] == ["user"]


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
def test_templates_reach_nothing_and_exhaust_nothing(template: str) -> None:
    for refuse in (lambda: render(prompt(user=template), {"email": "hello"}), lambda: check(prompt(user=template))):
        with pytest.raises(InvalidInput) as refused:
            refuse()
        assert refused.value.param == "prompt.user.template"
        assert "hello" not in refused.value.detail


def test_a_prompt_tells_its_inputs_and_a_malformed_one_is_refused_by_node_and_field() -> None:
    assert check(prompt(system="{{ a }}", user="{% if b %}{{ b | trim }}{% endif %}")) == {"a", "b"}
    assert check(changed(0)) == {"email", "name"}
    with pytest.raises(InvalidInput) as refused:
        check(prompt(system="{{ a", user=""))
    assert refused.value.param == "prompt.system.template"


@pytest.mark.parametrize(
    ("place", "template", "says"),
    [
        (5, "{{ emial }}", "'question' speaks of 'emial'"),
        (1, "{{ tone }}", "circle"),
        (1, "{{ style }}", "circle"),
        (3, "{{ examples }}", "no text or retrieval node"),
    ],
)
def test_nodes_that_speak_of_what_is_not_there_are_refused_by_name(place: int, template: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as refused:
        check(changed(place, template=template))
    assert str(refused.value.param).startswith("prompt.")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": "email"}, "names two things"),
        ({"kind": "system"}, "has a user node"),
    ],
)
def test_a_graph_that_is_none_is_refused(fields: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        changed(5, **fields)


def test_a_missing_required_input_is_named_and_a_node_cannot_be_passed_off_as_one() -> None:
    with pytest.raises(InvalidInput) as refused:
        render(changed(0), {"name": "Ada"})
    assert refused.value.param == "inputs.email"
    assert render(changed(0), {"email": "?", "tone": "Be rude."})[0].content == "Be brief."


def test_a_template_of_thousands_of_expressions_is_refused() -> None:
    with pytest.raises(InvalidInput, match="parts"):
        check(prompt(user="{{ a }}" * 1_500))


@pytest.mark.parametrize("template", ["{{ a }}{{ a }}{{ a }}", "{{ a }}" * 300])
def test_a_prompt_too_large_is_refused_before_it_is_whole(template: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        render(prompt(user=template), {"a": "x" * 100_000})
    assert refused.value.param == "inputs"
    nested = [{"kind": "text", "name": f"n{at}", "template": "{{ a }}" if at == 0 else f"{{{{ n{at - 1} }}}}" * 2} for at in range(30)]
    graph = read({"nodes": [*nested, {"kind": "user", "name": "user", "template": "{{ n29 }}"}]})
    with pytest.raises(InvalidInput):
        render(graph, {"a": "x" * (MAX_PROMPT_BYTES // 2)})
