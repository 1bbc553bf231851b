"""Prompts checked and rendered: sandboxed templates over a request's inputs. No code can be reached, no missing input
passes unseen."""

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
"""The largest prompt, in bytes of UTF-8: with its answer it is stored in one item, which DynamoDB ends at 400 KB."""

_MOST_PARTS = 1000
"""Texts, names, conditions and filters of one template."""
_DEEPEST = 24
"""How deep the parts of a template stand in one another."""
_MOST_CHAINED = 8
"""Filters that one value passes: each may make it several times as long."""
_MOST_WORK = 16 * MAX_PROMPT_BYTES
"""What filters and comparisons may look at in one rendering, in characters of the values that their templates speak of:
the slowest filter takes 0.4 us a character."""
_OF_A_DOCUMENT = frozenset({"document", "number"})
_Templated = TextNode | SystemNode | UserNode | RetrievalNode


_LANGUAGE: tuple[type[nodes.Node], ...] = (
    *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If, nodes.CondExpr),
    *(nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Filter, nodes.Test, nodes.Getattr),
)
_FILTERS = frozenset({"capitalize", "d", "default", "length", "lower", "striptags", "title", "tojson", "trim", "truncate", "upper"})
_TESTS = frozenset({"defined", "undefined", "eq", "ne", "in"})


class _Unfolded(CodeGenerator):
    """Nothing that a template says is evaluated when it is compiled: that takes time per filter, and doubles with each
    in a chain."""

    def _output_child_to_const(self, node: nodes.Expr, frame: Frame, finalize: CodeGenerator._FinalizeInfo) -> str:
        if not isinstance(node, nodes.TemplateData):
            raise nodes.Impossible
        return super()._output_child_to_const(node, frame, finalize)


class _Sandbox(ImmutableSandboxedEnvironment):
    code_generator_class = _Unfolded


_SANDBOX = _Sandbox(undefined=StrictUndefined, autoescape=False, optimized=False)
_SANDBOX.globals.clear()
"""Templates know text, values, conditions, and filters whose answer is at most a constant times what they are given. No
loop, call, assignment, arithmetic or joining: whatever a template says, rendering it is linear in its inputs, so that
no tenant can stall or fill a process that serves others."""


def check(prompt: Prompt) -> frozenset[str]:
    """The inputs that `prompt` speaks of.

    Raises: InvalidInput naming node and field when a template is malformed or too deep, speaks of what is neither input
    nor node, or of itself by way of others, or cannot be rendered.
    """
    parts = {node.name for node in prompt.nodes if isinstance(node, TextNode | RetrievalNode)}
    spoken: set[str] = set()
    needs: dict[str, set[str]] = {}
    for node in prompt.nodes:
        if not isinstance(node, _Templated):
            continue
        names = _needed(node)
        other = sorted(names & ({node.name for node in prompt.nodes} - parts))
        if other:
            raise InvalidInput(f"node {node.name!r} speaks of {other[0]!r}, which is no text or retrieval node", param=_field(node))
        unknown = sorted(names - parts - prompt.inputs.keys()) if prompt.inputs is not None else []
        if unknown:
            known = ", ".join(sorted({*parts, *(prompt.inputs or ())})) or "nothing"
            raise InvalidInput(f"node {node.name!r} speaks of {unknown[0]!r}, and declared is {known}", param=_field(node))
        needs[node.name] = {*names & parts}
        spoken |= names - parts
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        circle = error.args[1]
        raise InvalidInput(f"nodes speak of each other in a circle: {' <- '.join(circle)}", param=f"prompt.{circle[0]}.template") from None
    _try_out(prompt, spoken)
    return frozenset(spoken)


def _try_out(prompt: Prompt, spoken: Set[str]) -> None:
    """Render `prompt` once with a word for each input and once with nothing, since what compiles may not render.
    Raises: InvalidInput."""
    for text in ("word", ""):
        document = Document(text=text, source=text)
        [
            *_Rendering(prompt, dict.fromkeys(spoken | (prompt.inputs or {}).keys(), text), [document]).messages(
                SystemNode, FewShotNode, UserNode
            )
        ]


def render(prompt: Prompt, inputs: Mapping[str, str], documents: Sequence[Document] = ()) -> tuple[Message, ...]:
    """The messages that speak to the model. Raises: InvalidInput naming the missing input or the node that cannot be
    rendered."""
    return _bounded(tuple(_Rendering(prompt, inputs, documents).messages(SystemNode, FewShotNode, UserNode)))


def render_before(
    chat: tuple[Message, ...], prompt: Prompt, inputs: Mapping[str, str], documents: Sequence[Document] = ()
) -> tuple[Message, ...]:
    """The prompt but for its user nodes, and a chat's own messages after it. Raises: as `render`."""
    return _bounded((*_Rendering(prompt, inputs, documents).messages(SystemNode, FewShotNode), *chat))


def offered_tools(prompt: Prompt) -> dict[str, JsonValue]:
    """OpenAI's parameters for the prompt's tools; empty without any."""
    if prompt.tools is None:
        return {}
    tools: list[JsonValue] = [tool.model_dump(mode="json", exclude_none=True) for tool in prompt.tools.tools]
    return {"tools": tools, "tool_choice": prompt.tools.tool_choice}


def finished(prompt: Prompt, text: str) -> str:
    """The answer `text` as the prompt's output node wants it."""
    node = prompt.output
    if node is None:
        return text
    cuts = [place for mark in node.cut_at if (place := text.find(mark)) >= 0]
    text = text[: min(cuts)] if cuts else text
    return text.strip() if node.strip else text


class _Rendering:
    """One request's values, each node's text made when it is first spoken of."""

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
                text = self._text(node)
                if text or isinstance(node, UserNode):
                    yield Message(role="system" if isinstance(node, SystemNode) else "user", content=text)

    def _text(self, node: _Templated) -> str:
        for name in _needed(node) & self._parts.keys():
            if name not in self._values:
                self._values[name] = self._text(self._parts[name])
        if not isinstance(node, RetrievalNode):
            return self._filled(node, self._values)
        numbered = enumerate(self._documents[: node.max_documents], 1)
        return "\n\n".join(self._filled(node, {**self._values, "document": one, "number": number}) for number, one in numbered)

    def _filled(self, node: _Templated, values: Mapping[str, object]) -> str:
        source = _source(node)
        self._work += source.weight * sum(_length(values.get(name)) for name in source.names)
        if self._work > _MOST_WORK:
            raise InvalidInput(f"node {node.name!r} would have filters and comparisons look at too much text", param=_field(node))
        try:
            pieces, size = [], 0
            for piece in source.template.generate(values):
                size += len(piece)
                if size > MAX_PROMPT_BYTES:
                    raise _too_large(node)
                pieces.append(piece)
            return "".join(pieces)
        except UndefinedError as error:
            missing = sorted(_needed(node) - values.keys())
            raise InvalidInput(
                f"the policy's prompt needs {', '.join(missing) or error.message}",
                param=f"inputs.{missing[0]}" if missing else _field(node),
            ) from None
        except (TemplateError, ArithmeticError, TypeError, ValueError, AttributeError, LookupError, NameError, RecursionError) as error:
            raise InvalidInput(f"node {node.name!r} cannot be rendered: {type(error).__name__}", param=_field(node)) from None


def _field(node: _Templated) -> str:
    return f"prompt.{node.name}.template"


def _needed(node: _Templated) -> frozenset[str]:
    """The inputs and nodes that the node's template speaks of."""
    names = _source(node).names
    return names - _OF_A_DOCUMENT if isinstance(node, RetrievalNode) else names


@dataclass(frozen=True, slots=True)
class _Source:
    """A template, the names it speaks of, and how many filters and comparisons it has."""

    template: Template
    names: frozenset[str]
    weight: int


def _source(node: _Templated) -> _Source:
    try:
        return _compiled(node.template)
    except TemplateSyntaxError as error:
        raise InvalidInput(f"node {node.name!r}, line {error.lineno}: {error.message}", param=_field(node)) from None


@lru_cache(maxsize=2048)
def _compiled(source: str) -> _Source:
    """Raises: TemplateSyntaxError."""
    try:
        tree = _SANDBOX.parse(source)
        parts = [*_parts(tree)]
        for node in parts:
            _check(node)
        template = _SANDBOX.from_string(tree)
    except (RecursionError, MemoryError, SyntaxError, UnicodeError, ValueError):
        raise TemplateSyntaxError("the template nests too deep, or has a number or character that cannot be", 1) from None
    names = frozenset(node.name for node in parts if isinstance(node, nodes.Name))
    return _Source(template, names, sum(isinstance(node, nodes.Filter | nodes.Compare | nodes.Test) for node in parts))


def _parts(tree: nodes.Template) -> Iterator[nodes.Node]:
    """The parts of a template that is neither too large nor too deep. Raises: TemplateSyntaxError."""
    left: list[tuple[nodes.Node, int, int]] = [(tree, 1, 0)]
    for found in range(1, _MOST_PARTS + 2):
        if not left:
            return
        if found > _MOST_PARTS:
            raise TemplateSyntaxError(f"there are more than {_MOST_PARTS} parts", 1)
        node, depth, chained = left.pop()
        chained += isinstance(node, nodes.Filter)
        if depth > _DEEPEST:
            raise TemplateSyntaxError(f"parts stand in one another more than {_DEEPEST} deep", node.lineno)
        if chained > _MOST_CHAINED:
            raise TemplateSyntaxError(f"a value passes at most {_MOST_CHAINED} filters", node.lineno)
        left += ((child, depth + 1, chained) for child in node.iter_child_nodes())
        yield node


def _check(node: nodes.Node) -> None:
    """Whether `node` keeps to the language. Raises: TemplateSyntaxError."""
    if not isinstance(node, _LANGUAGE):
        raise TemplateSyntaxError(f"templates know no {type(node).__name__.lower()}", node.lineno)
    if isinstance(node, nodes.Name) and node.name == "self":
        raise TemplateSyntaxError("templates know no self", node.lineno)
    if isinstance(node, nodes.Const):
        json.dumps(node.value, allow_nan=False, ensure_ascii=False).encode()
    if isinstance(node, nodes.Filter | nodes.Test):
        known = _FILTERS if isinstance(node, nodes.Filter) else _TESTS
        if node.name not in known:
            raise TemplateSyntaxError(f"{node.name!r} is none of {', '.join(sorted(known))}", node.lineno)
    if isinstance(node, nodes.Getattr) and not (isinstance(node.node, nodes.Name) and node.attr in ("text", "source")):
        raise TemplateSyntaxError("only a document's text and source can be asked for", node.lineno)


def _length(value: object) -> int:
    return len(value) if isinstance(value, str) else len(value.text) + len(value.source) if isinstance(value, Document) else 0


def _bounded(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if sum(len(message.content.encode()) for message in messages) > MAX_PROMPT_BYTES:
        raise _too_large()
    return messages


def _too_large(node: _Templated | None = None) -> InvalidInput:
    named = f" by node {node.name!r}" if node is not None else ""
    return InvalidInput(f"the prompt is larger than {MAX_PROMPT_BYTES} bytes{named}", param="inputs")
