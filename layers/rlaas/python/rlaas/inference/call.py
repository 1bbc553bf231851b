"""What a policy asks of its backend for a request."""

from collections.abc import Mapping

from pydantic import JsonValue

from rlaas.chat import ChatCall, Document, Message
from rlaas.policies.bundle import Policy
from rlaas.policies.render_prompt import offered_tools, render, render_before


def chat_call(
    policy: Policy,
    *,
    inputs: Mapping[str, str] | None,
    messages: tuple[Message, ...] | None,
    documents: tuple[Document, ...],
    parameters: Mapping[str, JsonValue],
    tenant_id: str,
    traceparent: str | None = None,
    hops: int = 0,
) -> ChatCall:
    """The policy's prompt over the request's inputs, or in front of its messages unless these bring a system message of their own.

    Raises: InvalidInput naming what the prompt misses.
    """
    if messages is None:
        asked = render(policy.prompt, inputs or {}, documents)
    elif any(message.role == "system" for message in messages):
        asked = messages
    else:
        asked = render_before(messages, policy.prompt, inputs or {}, documents)
    return ChatCall(messages=asked, parameters=_parameters(policy, parameters), tenant_id=tenant_id, traceparent=traceparent, hops=hops)


def _parameters(policy: Policy, asked: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The request's parameters over the policy's; a request that says how long in OpenAI's newer word has said it."""
    own = {**policy.sampling.parameters(), **offered_tools(policy.prompt)}
    said = {name: value for name, value in asked.items() if value is not None}
    if "max_completion_tokens" in said:
        del own["max_tokens"]
    if "tools" in said:
        own.pop("tool_choice", None)
    return {**own, **said}
