"""What a tenant's requests used."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import get_args

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field, JsonValue

from rlaas.api.admin.call import AdminCall, FirstDay, LastDay, check_days
from rlaas.api.admin.operations import operation
from rlaas.errors import InvalidInput
from rlaas.metering.prices import to_usd
from rlaas.telemetry.usage import Group, Tally, group_tallies
from rlaas.wire import WireModel

router = APIRouter(prefix="/v1/admin/usage")
_GROUPS: Mapping[str, Group] = {name: name for name in get_args(Group)}


def _make_groups_optional(schema: dict[str, JsonValue]) -> None:
    schema["required"] = [name for name in UsageSum.model_fields if name not in _GROUPS]


class UsageSum(WireModel):
    """Requests, tokens (`cached_tokens` and `cache_write_tokens` are some of `input_tokens`) and US dollars of one
    group; only the fields that usage is grouped by are there."""

    model_config = ConfigDict(json_schema_extra=_make_groups_optional)

    day: str | None = None
    skill: str | None = None
    policy: str | None = None
    key: str | None = None
    requests: int = Field(ge=0)
    input_tokens: int = Field(ge=0)
    cached_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    cache_write_tokens: int = Field(ge=0)
    cost_usd: float = Field(ge=0)


class UsageAnswer(WireModel):
    """A sum for each group, in the order of the groups."""

    data: tuple[UsageSum, ...]


@router.get("", **operation(ok=UsageAnswer))
def get_usage(call: AdminCall, first: FirstDay, last: LastDay, group_by: str = "") -> JSONResponse:
    """Requests, tokens and cost of the days (UTC) `from` to `to`, both included, group_tallies by any of day, skill,
    policy and key, separated by commas."""
    groups = _parse_groups(group_by)
    check_days(first, last)
    sums = group_tallies(call.services.usage.iterate_between(call.tenant_id, first, last), groups)
    return JSONResponse({"data": [_build_sum(names, tally) for names, tally in sums]})


def _parse_groups(text: str) -> list[Group]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := next((name for name in names if name not in _GROUPS), None):
        raise InvalidInput(f"usage is group_tallies by any of {', '.join(_GROUPS)}, not by {unknown!r}", param="group_by")
    return [_GROUPS[name] for name in dict.fromkeys(names)]


def _build_sum(names: Mapping[Group, str | None], tally: Tally) -> dict[str, JsonValue]:
    counts = {name: value for name, value in asdict(tally).items() if name != "cost_nano_usd"}
    return {**{str(group): name for group, name in names.items()}, **counts, "cost_usd": to_usd(tally.cost_nano_usd)}
