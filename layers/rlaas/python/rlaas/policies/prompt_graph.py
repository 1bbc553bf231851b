"""A prompt: a graph of templated nodes over declared inputs. Data only; `rlaas.policies.render_prompt` checks and
renders it.

`system`, `few_shot` and `user` nodes become the messages, in their order. `text` and `retrieval` nodes become texts
that templates of other nodes use by name, like inputs. `tools` are offered to the model, and `output` says how the
answer is changed.
"""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from rlaas.wire import Json, WireModel

NodeName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Template = Annotated[str, Field(max_length=64 * 1024)]
"""A sandboxed Jinja2 template, which may use inputs and the `text` and `retrieval` nodes by their names."""


class PromptInput(WireModel):
    """An input that each request may or must have."""

    required: bool = True
    description: Annotated[str, Field(max_length=500)] = ""


class TextNode(WireModel):
    """Text for other nodes' templates."""

    kind: Literal["text"]
    name: NodeName
    template: Template


class SystemNode(WireModel):
    """A system message; no message when its text is empty."""

    kind: Literal["system"]
    name: NodeName
    template: Template


class UserNode(WireModel):
    """A user message; a request with messages of its own has those in its place."""

    kind: Literal["user"]
    name: NodeName
    template: Template


class Example(WireModel):
    """A user's message and the answer to it that the model should imitate."""

    user: Annotated[str, Field(max_length=32 * 1024)]
    assistant: Annotated[str, Field(max_length=32 * 1024)]


class FewShotNode(WireModel):
    """Examples, as turns of the conversation before the request's own."""

    kind: Literal["few_shot"]
    name: NodeName
    examples: tuple[Example, ...] = Field(min_length=1, max_length=50)


class RetrievalNode(WireModel):
    """The place of a request's documents: the template is rendered for each, best first, and joined by blank lines.

    The template may use `document.text`, `document.source` and `number` (from 1).
    """

    kind: Literal["retrieval"]
    name: NodeName
    template: Template = "[{{ number }}] {{ document.text }}"
    max_documents: int = Field(default=5, ge=1, le=100)


class Function(WireModel):
    """A function the model may call; `parameters` is a JSON Schema."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: Annotated[str, Field(max_length=4096)] = ""
    parameters: dict[str, Json] = Field(default_factory=dict)
    strict: bool | None = None


class Tool(WireModel):
    """A tool as OpenAI has it."""

    type: Literal["function"] = "function"
    function: Function


class ToolsNode(WireModel):
    """The tools that the model is offered, unless the request has tools of its own."""

    kind: Literal["tools"]
    name: NodeName
    tools: tuple[Tool, ...] = Field(min_length=1, max_length=128)
    tool_choice: Literal["auto", "none", "required"] = "auto"


class OutputNode(WireModel):
    """How the answer is changed: cut before the first of `cut_at`, then stripped of blanks at both ends."""

    kind: Literal["output"]
    name: NodeName
    cut_at: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), max_length=16)
    strip: bool = True


Node = Annotated[
    TextNode | SystemNode | UserNode | FewShotNode | RetrievalNode | ToolsNode | OutputNode,
    Field(discriminator="kind"),
]


class Prompt(WireModel):
    """The graph. Without `inputs`, each name in a template that is not a node's is an input."""

    inputs: dict[NodeName, PromptInput] | None = None
    nodes: tuple[Node, ...] = Field(min_length=1, max_length=40)

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        names = Counter([*(self.inputs or ()), *(node.name for node in self.nodes)])
        duplicate = next((name for name, count in names.items() if count > 1), None)
        if duplicate is not None:
            raise ValueError(f"{duplicate!r} names two things; each input and node needs a name of its own")
        kinds = Counter(node.kind for node in self.nodes)
        if not kinds["user"]:
            raise ValueError("a prompt needs a user node")
        for kind in ("tools", "output"):
            if kinds[kind] > 1:
                raise ValueError(f"a prompt has at most one {kind} node")
        return self

    @property
    def tools(self) -> ToolsNode | None:
        """The node of the tools; None without one."""
        return next((node for node in self.nodes if isinstance(node, ToolsNode)), None)

    @property
    def output(self) -> OutputNode | None:
        """The node that changes the answer; None without one."""
        return next((node for node in self.nodes if isinstance(node, OutputNode)), None)


class ShortPrompt(WireModel):
    """The short form of most prompts: a user template, and a system template in front of it."""

    system: Template = ""
    user: Template

    def graph(self) -> Prompt:
        """The same prompt as a graph, with nodes named `system` and `user`."""
        system = (SystemNode(kind="system", name="system", template=self.system),) if self.system else ()
        return Prompt(nodes=(*system, UserNode(kind="user", name="user", template=self.user)))


AnyPrompt = Annotated[
    Annotated[Prompt, Tag("graph")] | Annotated[ShortPrompt, Tag("short")],
    Discriminator(lambda value: "graph" if isinstance(value, Prompt) or (isinstance(value, dict) and "nodes" in value) else "short"),
]
"""A prompt in a request: a graph, or its short form."""


def to_graph(prompt: Prompt | ShortPrompt) -> Prompt:
    """The graph of either form."""
    return prompt.graph() if isinstance(prompt, ShortPrompt) else prompt
