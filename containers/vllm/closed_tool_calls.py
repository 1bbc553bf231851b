"""vLLM's Hermes tool parser with calls that have a name and arguments and nothing else.

Where a request says `tool_choice: "required"`, vLLM constrains the answer by a schema whose calls may have further
properties of any type and any length. A small model writes them until its tokens run out, and then there is no call.

`vllm serve --tool-parser-plugin` imports this file; its parser is `--tool-call-parser hermes_closed`.
"""

from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest
from vllm.tool_parsers.abstract_tool_parser import ToolParserManager
from vllm.tool_parsers.hermes_tool_parser import Hermes2ProToolParser


@ToolParserManager.register_module("hermes_closed")
class ClosedHermesToolParser(Hermes2ProToolParser):
    """Calls as `<tool_call>` JSON; required ones without further properties."""

    def adjust_request(self, request: ChatCompletionRequest | ResponsesRequest) -> ChatCompletionRequest | ResponsesRequest:
        """The request with the schema of required calls closed."""
        request = super().adjust_request(request)
        if isinstance(request, ChatCompletionRequest) and request.tool_choice == "required" and request.structured_outputs:
            for call in request.structured_outputs.json["items"]["anyOf"]:
                call.update(type="object", additionalProperties=False)
        return request
