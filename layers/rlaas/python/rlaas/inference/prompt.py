"""Prompts: sandboxed templates over a request's inputs. No code of the process can be reached, no missing input passes unseen."""

from collections.abc import Mapping
from functools import lru_cache

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, UndefinedError, meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rlaas.errors import InvalidInput
from rlaas.routing.policy import Prompt
from rlaas.telemetry.events import Message

MAX_PROMPT_BYTES = 256 * 1024
"""The largest rendered prompt, in bytes of UTF-8."""


class _Sandbox(ImmutableSandboxedEnvironment):
    """Strings cannot be multiplied: `{{ "a" * 10**9 }}` would eat the memory of every tenant's process."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: object, operator: str, left: object, right: object) -> object:
        raise SecurityError(f"templates cannot use {operator!r}")


_SANDBOX = _Sandbox(undefined=StrictUndefined, autoescape=False)


def render(prompt: Prompt, inputs: Mapping[str, str]) -> tuple[Message, ...]:
    """The system message (when there is one) and the user message. Raises: InvalidInput naming the missing input."""
    user = Message(role="user", content=_render("user", prompt.user, inputs))
    return _bounded((*render_system(prompt, inputs), user))


def render_system(prompt: Prompt, inputs: Mapping[str, str]) -> tuple[Message, ...]:
    """The system message, when the prompt has one. Raises: InvalidInput naming the missing input."""
    if not prompt.system:
        return ()
    return _bounded((Message(role="system", content=_render("system", prompt.system, inputs)),))


def inputs_of(prompt: Prompt) -> frozenset[str]:
    """The inputs a prompt speaks of. Raises: InvalidInput naming the part whose template is malformed."""
    return _variables("system", prompt.system) | _variables("user", prompt.user)


def _render(part: str, source: str, inputs: Mapping[str, str]) -> str:
    try:
        return _template(source).render(inputs)
    except UndefinedError as error:
        missing = sorted(_variables(part, source) - inputs.keys())
        param = f"inputs.{missing[0]}" if missing else f"prompt.{part}"
        raise InvalidInput(f"the policy's prompt needs {', '.join(missing) or error.message}", param=param) from None
    except (TemplateError, ArithmeticError, TypeError, ValueError) as error:
        raise InvalidInput(f"the policy's prompt cannot be rendered: {type(error).__name__}", param=f"prompt.{part}") from None


def _variables(part: str, source: str) -> frozenset[str]:
    try:
        return frozenset(meta.find_undeclared_variables(_SANDBOX.parse(source)))
    except TemplateSyntaxError as error:
        raise InvalidInput(f"line {error.lineno}: {error.message}", param=f"prompt.{part}") from None


@lru_cache(maxsize=512)
def _template(source: str) -> Template:
    return _SANDBOX.from_string(source)


def _bounded(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    if sum(len(message.content.encode()) for message in messages) > MAX_PROMPT_BYTES:
        raise InvalidInput(f"the rendered prompt is larger than {MAX_PROMPT_BYTES} bytes", param="inputs")
    return messages
