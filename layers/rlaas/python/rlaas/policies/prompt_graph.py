"""A prompt: a graph of templated nodes over declared inputs. Data only; `rlaas.policies.render_prompt` checks and
renders it.

Nodes that speak (`system`, `few_shot`, `user`) become the messages, in the order they stand in. `text` and `retrieval`
nodes become text that templates of other nodes name like an input; `tools` are offered to the model; `output` says what
is done to its answer.
"""

from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from rlaas.wire import Json, WireModel

Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Template = Annotated[str, Field(max_length=64 * 1024)]
"""A sandboxed Jinja2 template over inputs and the `text` and `retrieval` nodes."""


class PromptInput(WireModel):
    """An input that requests bring."""

    required: bool = True
    description: Annotated[str, Field(max_length=500)] = ""


class TextNode(WireModel):
    """Text for other nodes' templates."""

    kind: Literal["text"]
    name: Name
    template: Template


class SystemNode(WireModel):
    """A system message; nothing where its text is empty."""

    kind: Literal["system"]
    name: Name
    template: Template


class UserNode(WireModel):
    """A user message; a chat's own messages stand in its place."""

    kind: Literal["user"]
    name: Name
    template: Template


class Example(WireModel):
    """A question and the answer wanted."""

    user: Annotated[str, Field(max_length=32 * 1024)]
    assistant: Annotated[str, Field(max_length=32 * 1024)]


class FewShotNode(WireModel):
    """Examples, as turns of the conversation before the request's own."""

    kind: Literal["few_shot"]
    name: Name
    examples: tuple[Example, ...] = Field(min_length=1, max_length=50)


class RetrievalNode(WireModel):
    """The slot for the documents that come with a request: the template once for each, best first, joined by blank
    lines.

    The template speaks of `document.text`, `document.source` and `number` (from 1).
    """

    kind: Literal["retrieval"]
    name: Name
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
    """The tools offered, unless the request brings its own."""

    kind: Literal["tools"]
    name: Name
    tools: tuple[Tool, ...] = Field(min_length=1, max_length=128)
    tool_choice: Literal["auto", "none", "required"] = "auto"


class OutputNode(WireModel):
    """What is done to the answer: cut before the first of `cut_at`, then stripped of blanks at both ends."""

    kind: Literal["output"]
    name: Name
    cut_at: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(default=(), max_length=16)
    strip: bool = True


Node = Annotated[
    TextNode | SystemNode | UserNode | FewShotNode | RetrievalNode | ToolsNode | OutputNode,
    Field(discriminator="kind"),
]


class Prompt(WireModel):
    """The graph. Without `inputs`, whatever templates speak of that is no node is an input."""

    inputs: dict[Name, PromptInput] | None = None
    nodes: tuple[Node, ...] = Field(min_length=1, max_length=40)

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        names = Counter([*(self.inputs or ()), *(node.name for node in self.nodes)])
        twice = next((name for name, count in names.items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"{twice!r} names two things; inputs and nodes have names of their own")
        kinds = Counter(node.kind for node in self.nodes)
        if not kinds["user"]:
            raise ValueError("a prompt has a user node")
        for kind in ("tools", "output"):
            if kinds[kind] > 1:
                raise ValueError(f"a prompt has at most one {kind} node")
        return self

    @property
    def tools(self) -> ToolsNode | None:
        """The tools offered."""
        return next((node for node in self.nodes if isinstance(node, ToolsNode)), None)

    @property
    def output(self) -> OutputNode | None:
        """What is done to the answer."""
        return next((node for node in self.nodes if isinstance(node, OutputNode)), None)


class ShortPrompt(WireModel):
    """The short form of most prompts: a user template, and a system template in front of it."""

    system: Template = ""
    user: Template

    def graph(self) -> Prompt:
        """The same as a graph, its nodes called `system` and `user`."""
        system = (SystemNode(kind="system", name="system", template=self.system),) if self.system else ()
        return Prompt(nodes=(*system, UserNode(kind="user", name="user", template=self.user)))


AnyPrompt = Annotated[
    Annotated[Prompt, Tag("graph")] | Annotated[ShortPrompt, Tag("short")],
    Discriminator(lambda given: "graph" if isinstance(given, Prompt) or (isinstance(given, dict) and "nodes" in given) else "short"),
]
"""A prompt as requests bring it."""


def graph_of(prompt: Prompt | ShortPrompt) -> Prompt:
    """The graph of either form."""
    return prompt.graph() if isinstance(prompt, ShortPrompt) else prompt
