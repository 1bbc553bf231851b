"""What a request of the Responses API refers to: an earlier response, or items of earlier ones, from the event store.

Messages come back as they were stored, with personal data masked as the tenant's settings say. Two facts that events
have no field for are in the interaction's metadata under `MARK`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rlaas.chat import Message
from rlaas.errors import InvalidInput, NotFound, PreviousResponseNotFound
from rlaas.ids import find_interaction_id, is_external_id
from rlaas.inference.response_items import FunctionCall, InputItem, InputMessage, ItemReference, ReasoningItem, ReasoningText, parse_item_id
from rlaas.inference.sent_parts import add_thoughts
from rlaas.telemetry.events import InteractionCreated, OutputProduced
from rlaas.telemetry.store import EventStore, StoredEvent

MARK = "rlaas::responses"
"""In an interaction's metadata: whether its first message are `instructions`, and `store` where that is false."""


@dataclass(frozen=True, slots=True)
class EarlierResponse:
    """A conversation so far, and whose it is."""

    messages: tuple[Message, ...]
    thread_id: str
    user_id: str | None


@dataclass(frozen=True, slots=True)
class _Turn:
    """An output and the request that it answered."""

    interaction: InteractionCreated
    output: OutputProduced

    @property
    def may_be_named(self) -> bool:
        """Whether the request did not say `store: false`."""
        mark = self.interaction.metadata.get(MARK)
        return not isinstance(mark, dict) or mark.get("store") is not False

    def messages(self) -> tuple[Message, ...]:
        """The conversation without the instructions. Raises: InvalidInput for a request of `/v1/infer` with inputs and
        no messages."""
        if self.interaction.messages is None:
            raise InvalidInput(
                "this response answered inputs, not messages: send its prompt and its answer as input", param="previous_response_id"
            )
        mark = self.interaction.metadata.get(MARK)
        begins_after = 1 if isinstance(mark, dict) and mark.get("instructions") is True else 0
        output = self.output
        answer = add_thoughts(Message(role="assistant", content=output.text, tool_calls=output.tool_calls), output.reasoning_content)
        return (*self.interaction.messages[begins_after:], *((answer,) if output.text or output.tool_calls else ()))

    def is_cut(self) -> bool:
        """Whether the request or the answer was longer than an event holds."""
        return "messages" in self.interaction.cut_fields or not {"text", "tool_calls"}.isdisjoint(self.output.cut_fields)


def find_earlier(response_id: str, tenant_id: str, store: EventStore) -> EarlierResponse:
    """The conversation that ends with the response.

    Its thread is the one that it had, else its interaction, by which its arm was chosen.

    Raises: PreviousResponseNotFound; InvalidInput for one that cannot be continued, because it was not stored whole.
    """
    turn = _read_turns([response_id], tenant_id, store).get(response_id)
    if turn is None:
        raise PreviousResponseNotFound(
            "this tenant has no such response: it may be older than events are kept, or made with store: false",
            param="previous_response_id",
        )
    if turn.is_cut():
        raise InvalidInput("this response was too large to be stored whole: send the conversation as input", param="previous_response_id")
    messages = turn.messages()
    if any(message.parts for message in messages):
        raise InvalidInput("this conversation had images or files, which are not stored: send it as input", param="previous_response_id")
    return EarlierResponse(
        messages=messages,
        thread_id=turn.output.thread_id or turn.output.interaction_id,
        user_id=turn.output.user_id,
    )


def find_items(items: Sequence[InputItem], tenant_id: str, store: EventStore) -> tuple[InputItem, ...]:
    """The items, each reference replaced by the item that it names. All text of an output is one item, which is put in
    once.

    Raises: NotFound.
    """
    places = {index: parse_item_id(item.id) for index, item in enumerate(items) if isinstance(item, ItemReference)}
    if not places:
        return tuple(items)
    turns = _read_turns({place[0] for place in places.values() if place is not None}, tenant_id, store)
    whole: dict[object, InputItem] = {}
    for index, item in enumerate(items):
        if isinstance(item, ItemReference):
            place = places[index]
            turn = turns.get(place[0]) if place is not None else None
            referred = _build_item(turn.output, place[1]) if turn is not None and place is not None and not turn.is_cut() else None
            if referred is None:
                raise NotFound("there is no such item: send it whole", param=f"input.{index}.id")
            whole.setdefault(place, referred)
        else:
            whole[index] = item
    return tuple(whole.values())


def _build_item(output: OutputProduced, item: int | Literal["msg", "rs"]) -> InputMessage | FunctionCall | ReasoningItem | None:
    if item == "msg":
        return InputMessage(role="assistant", content=output.text)
    if item == "rs":
        return ReasoningItem(type="reasoning", content=(ReasoningText(type="reasoning_text", text=output.reasoning_content or ""),))
    if item >= len(output.tool_calls):
        return None
    tool_call = output.tool_calls[item]
    return FunctionCall(type="function_call", call_id=tool_call.id, name=tool_call.function.name, arguments=tool_call.function.arguments)


def _read_turns(output_ids: Iterable[str], tenant_id: str, store: EventStore) -> dict[str, _Turn]:
    """The outputs with these ids and the requests that they answered, by id; absent ones are left out."""
    ids = [output_id for output_id in output_ids if is_external_id(output_id)]
    events = store.get_many(tenant_id, [*ids, *filter(None, map(find_interaction_id, ids))])
    outputs = {one: output for one in ids if isinstance(output := _event(events, one), OutputProduced)}
    if missing := {output.interaction_id for output in outputs.values()} - events.keys():
        events |= store.get_many(tenant_id, missing)
    turns: dict[str, _Turn] = {}
    for output_id, output in outputs.items():
        interaction = _event(events, output.interaction_id)
        if isinstance(interaction, InteractionCreated) and (turn := _Turn(interaction, output)).may_be_named:
            turns[output_id] = turn
    return turns


def _event(events: dict[str, StoredEvent], event_id: str) -> object:
    return events[event_id].event() if event_id in events else None
