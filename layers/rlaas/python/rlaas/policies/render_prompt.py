"""Checks and renders prompts: sandboxed templates over a request's inputs. Templates reach no code, and a missing input
is an error."""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import JsonValue

from rlaas.chat import Document, Message
from rlaas.errors import InvalidInput
from rlaas.policies.prompt_graph import FewShotNode, Prompt, RetrievalNode, SystemNode, TextNode, UserNode

MAX_PROMPT_BYTES = 256 * 1024
"""The most that a policy's prompt renders to, in bytes of UTF-8: it is stored with its answer in one DynamoDB item,
which has at most 400 KB."""

_MOST_PARTS = 1000
"""The most texts, names, conditions and filters in one template."""
_DEEPEST = 24
"""How deep the parts of a template may nest."""
_MOST_FILTERS = 8
"""The most filters on one value: each may make it several times as long."""
_MOST_WORK = 16 * MAX_PROMPT_BYTES
"""How much filters and comparisons may look at in one rendering, in characters of the values in their templates; the
slowest filter takes 0.4 us a character."""
_OF_A_DOCUMENT = frozenset({"document", "number"})
_Templated = TextNode | SystemNode | UserNode | RetrievalNode


_LANGUAGE: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.CondExpr),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Filter, nodes.Test, nodes.Getattr),
)
_FILTERS = frozenset({"capitalize", "d", "default", "length", "lower", "striptags", "title", "tojson", "trim", "truncate", "upper"})
_TESTS = frozenset({"defined", "undefined", "eq", "ne", "in"})


class _RuntimeGenerator(CodeGenerator):
    """Evaluates nothing while it compiles a template: evaluating takes time for each filter, and the result may double
    with each filter in a chain."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)


class _Sandbox(ImmutableSandboxedEnvironment):
    code_generator_class = _RuntimeGenerator


_SANDBOX = _Sandbox(undefined=StrictUndefined, autoescape=False, optimized=False)
_SANDBOX.globals.clear()
"""Templates may have text, values, conditions, and filters whose result is at most a constant times as long as their
input; no loops, calls, assignments, arithmetic or concatenation. So rendering any template takes time and memory linear
in its inputs, and no tenant can stall or fill a process that serves others."""


def check_prompt(prompt: Prompt) -> frozenset[str]:
    """The names of the inputs that the templates of `prompt` use.

    Raises: InvalidInput naming the node and its field when a template is malformed or too deep, uses what is neither an
    input nor a node, uses itself by way of others, or cannot be rendered.
    """
    parts = {node.name for node in prompt.nodes if isinstance(node, TextNode | RetrievalNode)}
    inputs: set[str] = set()
    needs: dict[str, set[str]] = {}
    for node in prompt.nodes:
        if not isinstance(node, _Templated):
            continue
        names = _find_names(node)
        others = sorted(names & ({node.name for node in prompt.nodes} - parts))
        if others:
            raise InvalidInput(f"node {node.name!r} uses {others[0]!r}, which is no text or retrieval node", param=_name_field(node))
        undeclared = sorted(names - parts - prompt.inputs.keys()) if prompt.inputs is not None else []
        if undeclared:
            declared = ", ".join(sorted({*parts, *(prompt.inputs or ())})) or "nothing"
            raise InvalidInput(f"node {node.name!r} uses {undeclared[0]!r}; it may use {declared}", param=_name_field(node))
        needs[node.name] = {*names & parts}
        inputs |= names - parts
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = error.args[1]
        raise InvalidInput(f"nodes use each other in a circle: {' <- '.join(circle)}", param=f"prompt.{circle[0]}.template") from None
    _try_out(prompt, inputs)
    return frozenset(inputs)


def _try_out(prompt: Prompt, inputs: Set[str]) -> None:
    """Render `prompt` once with a word for each input and once with empty inputs: a template may compile and still fail
    to render. Raises: InvalidInput."""
    for text in ("word", ""):
        values = dict.fromkeys(inputs | (prompt.inputs or {}).keys(), text)
        list(_Renderer(prompt, values, [Document(text=text, source=text)]).messages(SystemNode, FewShotNode, UserNode))


def render(prompt: Prompt, inputs: Mapping[str, str], documents: Sequence[Document] = ()) -> tuple[Message, ...]:
    """The messages to the model. Raises: InvalidInput naming the missing input, or the node that cannot be rendered."""
    return _check_size(tuple(_Renderer(prompt, inputs, documents).messages(SystemNode, FewShotNode, UserNode)))


def render_before(
    chat: tuple[Message, ...], prompt: Prompt, inputs: Mapping[str, str], documents: Sequence[Document] = ()
) -> tuple[Message, ...]:
    """The prompt without its user nodes, and then the messages of `chat`. Raises: InvalidInput, as `render` does."""
    return (*_check_size(tuple(_Renderer(prompt, inputs, documents).messages(SystemNode, FewShotNode))), *chat)


def list_offered_tools(prompt: Prompt) -> dict[str, JsonValue]:
    """OpenAI's parameters `tools` and `tool_choice` for the prompt's tools; empty without any."""
    if prompt.tools is None:
        return {}
    tools: list[JsonValue] = [tool.model_dump(mode="json", exclude_none=True) for tool in prompt.tools.tools]
    return {"tools": tools, "tool_choice": prompt.tools.tool_choice}


def finish_text(prompt: Prompt, text: str) -> str:
    """The answer `text`, changed as the prompt's output node says."""
    node = prompt.output
    if node is None:
        return text
    cuts = [place for mark in node.cut_at if (place := text.find(mark)) >= 0]
    text = text[: min(cuts)] if cuts else text
    return text.strip() if node.strip else text


class _Renderer:
    """Renders a prompt for one request; the text of a node is rendered when a template first uses it."""

    def __init__(self, prompt: Prompt, inputs: Mapping[str, str], documents: Sequence[Document]) -> None:
        missing = sorted(name for name, spec in (prompt.inputs or {}).items() if spec.required and name not in inputs)
        if missing:
            raise InvalidInput(f"the policy's prompt needs {', '.join(missing)}", param=f"inputs.{missing[0]}")
        self._prompt = prompt
        self._documents = documents
        self._values: dict[str, str] = dict(inputs)
        self._values.update((name, "") for name in (prompt.inputs or {}) if name not in inputs)
        self._work = 0
        self._parts = {node.name: node for node in prompt.nodes if isinstance(node, TextNode | RetrievalNode)}
        for name in self._parts:
            self._values.pop(name, None)  # a node cannot be passed off as an input

    def messages(self, *kinds: type[SystemNode | FewShotNode | UserNode]) -> Iterator[Message]:
        """The messages of the nodes of these kinds, in order."""
        for node in self._prompt.nodes:
            if not isinstance(node, kinds):
                continue
            if isinstance(node, FewShotNode):
                for example in node.examples:
                    yield Message(role="user", content=example.user)
                    yield Message(role="assistant", content=example.assistant)
            else:
                text = self._render(node)
                if text or isinstance(node, UserNode):
                    yield Message(role="system" if isinstance(node, SystemNode) else "user", content=text)

    def _render(self, node: _Templated) -> str:
        for name in _find_names(node) & self._parts.keys():
            if name not in self._values:
                self._values[name] = self._render(self._parts[name])
        if not isinstance(node, RetrievalNode):
            return self._fill(node, self._values)
        documents = enumerate(self._documents[: node.max_documents], 1)
        return "\n\n".join(self._fill(node, {**self._values, "document": document, "number": number}) for number, document in documents)

    def _fill(self, node: _Templated, values: Mapping[str, object]) -> str:
        source = _load_source(node)
        self._work += source.weight * sum(_count_characters(values.get(name)) for name in source.names)
        if self._work > _MOST_WORK:
            raise InvalidInput(f"node {node.name!r} has filters and comparisons that look at too much text", param=_name_field(node))
        try:
            pieces, size = [], 0
            for piece in source.template.generate(values):
                size += len(piece)
                if size > MAX_PROMPT_BYTES:
                    raise _build_size_error(node)
                pieces.append(piece)
            return "".join(pieces)
        except UndefinedError as error:
            missing = sorted(_find_names(node) - values.keys())
            raise InvalidInput(
                f"the policy's prompt needs {', '.join(missing) or error.message}",
                param=f"inputs.{missing[0]}" if missing else _name_field(node),
            ) from None
        except (TemplateError, ArithmeticError, TypeError, ValueError, AttributeError, LookupError, NameError, RecursionError) as error:
            raise InvalidInput(f"node {node.name!r} cannot be rendered: {type(error).__name__}", param=_name_field(node)) from None


def _name_field(node: _Templated) -> str:
    return f"prompt.{node.name}.template"


def _find_names(node: _Templated) -> frozenset[str]:
    """The names of the inputs and nodes that the node's template uses."""
    names = _load_source(node).names
    return names - _OF_A_DOCUMENT if isinstance(node, RetrievalNode) else names


@dataclass(frozen=True, slots=True)
class _Source:
    """A template, the names that it uses, and how many filters and comparisons it has."""

    template: Template
    names: frozenset[str]
    weight: int


def _load_source(node: _Templated) -> _Source:
    try:
        return _compile(node.template)
    except TemplateSyntaxError as error:
        raise InvalidInput(f"node {node.name!r}, line {error.lineno}: {error.message}", param=_name_field(node)) from None


@lru_cache(maxsize=2048)
def _compile(source: str) -> _Source:
    """Raises: TemplateSyntaxError."""
    try:
        tree = _SANDBOX.parse(source)
        parts = [*_list_parts(tree)]
        for node in parts:
            _check_node(node)
        template = _SANDBOX.from_string(tree)
    except (RecursionError, MemoryError, SyntaxError, UnicodeError, ValueError):
        raise TemplateSyntaxError("the template nests too deep, or has an impossible number or character", 1) from None
    names = frozenset(node.name for node in parts if isinstance(node, nodes.Name))
    return _Source(template, names, sum(isinstance(node, nodes.Filter | nodes.Compare | nodes.Test) for node in parts))


def _list_parts(tree: nodes.Template) -> Iterator[nodes.Node]:
    """The parts of a template. Raises: TemplateSyntaxError when it has too many parts or filters, or nests too deep."""
    stack: list[tuple[nodes.Node, int, int]] = [(tree, 1, 0)]
    for number in range(1, _MOST_PARTS + 2):
        if not stack:
            return
        if number > _MOST_PARTS:
            raise TemplateSyntaxError(f"the template has more than {_MOST_PARTS} parts", 1)
        node, depth, filters = stack.pop()
        filters += isinstance(node, nodes.Filter)
        if depth > _DEEPEST:
            raise TemplateSyntaxError(f"the template nests more than {_DEEPEST} deep", node.lineno)
        if filters > _MOST_FILTERS:
            raise TemplateSyntaxError(f"a value has more than {_MOST_FILTERS} filters", node.lineno)
        stack += ((child, depth + 1, filters) for child in node.iter_child_nodes())
        yield node


def _check_node(node: nodes.Node) -> None:
    """Refuse what templates may not have. Raises: TemplateSyntaxError."""
    if not isinstance(node, _LANGUAGE):
        raise TemplateSyntaxError(f"templates may have no {type(node).__name__.lower()}", node.lineno)
    if isinstance(node, nodes.Name) and node.name == "self":
        raise TemplateSyntaxError("templates may not use self", node.lineno)
    if isinstance(node, nodes.Const):
        json.dumps(node.value, allow_nan=False, ensure_ascii=False).encode()
    if isinstance(node, nodes.Filter | nodes.Test):
        allowed = _FILTERS if isinstance(node, nodes.Filter) else _TESTS
        if node.name not in allowed:
            raise TemplateSyntaxError(f"{node.name!r} is none of {', '.join(sorted(allowed))}", node.lineno)
    if isinstance(node, nodes.Getattr) and not (isinstance(node.node, nodes.Name) and node.attr in ("text", "source")):
        raise TemplateSyntaxError("the only attributes are a document's text and source", node.lineno)


def _count_characters(value: object) -> int:
    return len(value) if isinstance(value, str) else len(value.text) + len(value.source) if isinstance(value, Document) else 0


def _check_size(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if sum(len(message.content.encode()) for message in messages) > MAX_PROMPT_BYTES:
        raise _build_size_error()
    return messages


def _build_size_error(node: _Templated | None = None) -> InvalidInput:
    place = f" at node {node.name!r}" if node is not None else ""
    return InvalidInput(f"the prompt is larger than {MAX_PROMPT_BYTES} bytes{place}", param="inputs")
