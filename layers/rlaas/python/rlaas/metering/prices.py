"""What models cost a tenant: prices per million tokens, in numbered versions that never change, and the exact cost of
one answer."""

from typing import Annotated, cast

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, field_validator

from rlaas.chat import Usage
from rlaas.errors import Conflict
from rlaas.prompt_cache import CacheTtl
from rlaas.tenancy.registry import Change, PutResult, Registry
from rlaas.wire import WireModel

NANO = 1_000_000_000
"""Money is counted in billionths of a US dollar (nano-USD), as whole numbers, so that sums are exact."""

UsdPerMillion = Annotated[float, Field(ge=0, le=1_000_000)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""What a vendor, or the stage's endpoint, calls a model."""


def _is_none(value: object) -> bool:
    return value is None


def _may_lack_writes(schema: dict[str, JsonValue]) -> None:
    """Say of the JSON schema that the prices of writes are left out where nobody set them: a policy's digest covers its
    price, and stays what it was before there were such prices."""
    schema["required"] = ["input", "output", *(["cached_input"] if "cached_input" in cast(list[str], schema["required"]) else [])]


class Price(WireModel):
    """US dollars per million tokens of the prompt and of the answer.

    What the backend read from its cache costs `cached_input` (left out: as much as any other token). What it wrote
    there costs `cache_write` (left out: 1.25 times `input`), and for an hour `cache_write_1h` (left out: twice
    `input`), as vendors charge who charge for it at all.
    """

    model_config = ConfigDict(json_schema_extra=_may_lack_writes)

    input: UsdPerMillion
    output: UsdPerMillion
    cached_input: UsdPerMillion | None = None
    cache_write: UsdPerMillion | None = Field(default=None, exclude_if=_is_none)
    cache_write_1h: UsdPerMillion | None = Field(default=None, exclude_if=_is_none)

    @field_validator("*", mode="after")
    @classmethod
    def _six_decimals(cls, value: float | None) -> float | None:
        if value is not None and abs(value * NANO / 1000 - round(value * NANO / 1000)) > 1e-3:
            raise ValueError("prices have at most 6 decimals")
        return value


class PriceTable(WireModel):
    """Version `version` of a tenant's prices by model, as backends name it. A model that is not in it costs nothing."""

    version: int = Field(default=0, ge=0)
    prices: dict[ModelName, Price] = Field(default_factory=dict, max_length=500)

    def compute_cost(self, model: str, usage: Usage) -> int:
        """What an answer of `model` costs, in nano-USD; 0 for a model without a price."""
        price = self.prices.get(model)
        return 0 if price is None else compute_cost(price, usage)


def compute_cost(price: Price, usage: Usage) -> int:
    """Tokens times price in nano-USD, rounded half up once.

    What was read from the cache and what was written to it are some of the input tokens.
    """
    read = min(usage.cached_tokens, usage.input_tokens)
    writes = min(usage.cache_write_tokens, usage.input_tokens - read)
    for_an_hour = min(usage.cache_write_1h_tokens, writes)
    quarters = (
        (usage.input_tokens - read - writes) * _to_quarters(price.input)
        + read * _to_quarters(price.input if price.cached_input is None else price.cached_input)
        + (writes - for_an_hour) * _find_write_price(price, "5m")
        + for_an_hour * _find_write_price(price, "1h")
        + usage.output_tokens * _to_quarters(price.output)
    )
    return (quarters + 2000) // 4000


def compute_most(price: Price, usage: Usage, *, writes_for: CacheTtl | None) -> int:
    """The most that `usage` costs, in nano-USD, whatever of the prompt the backend writes to its cache, for as long as
    `writes_for` at the most; None: it writes nothing that it charges for."""
    prices = [_to_quarters(price.input)]
    if writes_for is not None or price.cache_write is not None:
        prices.append(_find_write_price(price, "5m"))
    if writes_for == "1h":
        prices.append(_find_write_price(price, "1h"))
    return (usage.input_tokens * max(prices) + usage.output_tokens * _to_quarters(price.output) + 2000) // 4000


def to_nano_usd(usd: float) -> int:
    """US dollars as nano-USD."""
    return round(usd * NANO)


def to_usd(nano: int) -> float:
    """Nano-USD as US dollars; `to_nano_usd` gives the same whole number back up to nine million dollars."""
    return nano / NANO


def _find_write_price(price: Price, ttl: CacheTtl) -> int:
    """What a token costs that is written to the cache, in quarters of a pico-USD."""
    own = price.cache_write if ttl == "5m" else price.cache_write_1h
    if own is not None:
        return _to_quarters(own)
    return _to_quarters(price.input) * (5 if ttl == "5m" else 8) // 4


def _to_quarters(usd_per_million: float) -> int:
    """A price as quarters of a pico-USD per token: whole numbers for six decimals of a dollar per million and for 1.25
    times as much."""
    return 4 * round(usd_per_million * 1_000_000)


# The registry keeps each version for good, so that every cost can be told from its tokens.

PRICES_PREFIX = "PRICES#"
"""How the sort keys of a tenant's prices begin."""


def prices_key(version: int) -> str:
    """The sort key of a version; they sort by number."""
    return f"{PRICES_PREFIX}{version:08d}"


def find_current_prices(registry: Registry, tenant_id: str) -> PriceTable:
    """The newest prices; an empty table of version 0 for a tenant that has none."""
    page = registry.list(PriceTable, tenant_id, PRICES_PREFIX, limit=1, newest_first=True)
    return page.items[0].record if page.items else PriceTable()


def read_prices(registry: Registry, tenant_id: str, version: int) -> PriceTable:
    """Version `version`. Raises: NotFound."""
    return registry.get(PriceTable, tenant_id, prices_key(version)).record


def append_prices(registry: Registry, tenant_id: str, table: PriceTable, change: Change) -> None:
    """Store the version that follows the newest one. Raises: Conflict when `table` does not."""
    expected = table.version - 1
    lost = Conflict(f"the prices are no longer at version {expected}", param="expected_version")
    if find_current_prices(registry, tenant_id).version != expected:
        raise lost
    try:
        registry.put(tenant_id, prices_key(table.version), table, change)
    except Conflict:
        raise lost from None


def put_prices(
    registry: Registry, tenant_id: str, prices: dict[ModelName, Price], *, expected_version: int, change: Change
) -> PutResult[PriceTable]:
    """Put `prices` behind version `expected_version`, unless they are the newest already.

    Raises: Conflict when another version is the newest.
    """
    current = find_current_prices(registry, tenant_id)
    if current.prices == prices and current.version > 0:
        return PutResult(current, current.version, replay=True)
    table = PriceTable(version=expected_version + 1, prices=prices)
    append_prices(registry, tenant_id, table, change)
    return PutResult(table, table.version)
