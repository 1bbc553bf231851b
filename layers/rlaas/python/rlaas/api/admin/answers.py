"""What the admin API answers: the JSON of a model as it was stored, and with it what the request did."""

from collections.abc import Iterable
from typing import Generic, TypeVar

from fastapi.responses import JSONResponse
from pydantic import BaseModel, JsonValue

from rlaas.api.admin.call import ApiCall
from rlaas.tenancy.registry import PutResult, Record
from rlaas.wire import WireModel

Item = TypeVar("Item", bound=BaseModel)


class ListPage(WireModel, Generic[Item]):
    """Some of a list, and the cursor that continues it."""

    data: tuple[Item, ...]
    next_cursor: str | None


def answer(status: int, model: BaseModel, **more: JsonValue) -> JSONResponse:
    """The fields of `model`, and `more` behind them."""
    return JSONResponse({**to_json(model), **more}, status_code=status)


def answer_put(result: PutResult[Record], *, status: int = 200) -> JSONResponse:
    """What was put, and whether it stood there before; `status` is that of something new."""
    return answer(200 if result.replay else status, result.record, idempotent_replay=result.replay)


def answer_version(result: PutResult[Record]) -> JSONResponse:
    """The same for a record that is replaced at a version; the answer holds the version."""
    return answer(200, result.record, version=result.version, idempotent_replay=result.replay)


def answer_page(items: Iterable[dict[str, JsonValue]], cursor: str | None) -> JSONResponse:
    """A page of a list."""
    return JSONResponse({"data": [*items], "next_cursor": cursor})


def answer_list(
    call: ApiCall, model: type[Record], prefix: str, limit: int, cursor: str | None, *, newest_first: bool = True
) -> JSONResponse:
    """A page of the tenant's records whose sort key begins with `prefix`. Raises: InvalidInput on a bad cursor."""
    page = call.services.records.list(model, call.tenant_id, prefix, limit=limit, cursor=cursor, newest_first=newest_first)
    return answer_page((to_json(stored.record) for stored in page.items), page.cursor)


def to_json(model: BaseModel) -> dict[str, JsonValue]:
    """The JSON of `model`."""
    return model.model_dump(mode="json")
