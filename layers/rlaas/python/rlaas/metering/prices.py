"""What models cost a tenant: prices per million tokens, in numbered versions that never change, and the exact cost of
one answer."""

from typing import Annotated

from pydantic import Field, StringConstraints, field_validator

from rlaas.errors import Conflict
from rlaas.tenancy.registry import Change, PutResult, Registry
from rlaas.wire import WireModel

NANO = 1_000_000_000
"""Money is counted in billionths of a US dollar (nano-USD), as whole numbers, so that sums are exact."""

UsdPerMillion = Annotated[float, Field(ge=0, le=1_000_000)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""What a vendor, or the stage's endpoint, calls a model."""


class Price(WireModel):
    """US dollars per million tokens read, read from the backend's cache (left out: as much as any other), and
    written."""

    input: UsdPerMillion
    output: UsdPerMillion
    cached_input: UsdPerMillion | None = None

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

    def compute_cost(self, model: str, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
        """What an answer of `model` costs, in nano-USD; 0 for a model without a price. `cached_tokens` are some of
        `input_tokens`."""
        price = self.prices.get(model)
        if price is None:
            return 0
        return compute_cost(price, input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached_tokens)


def compute_cost(price: Price, *, input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> int:
    """Tokens times price in nano-USD, rounded half up once. `cached_tokens` are some of `input_tokens`."""
    fresh = input_tokens - min(cached_tokens, input_tokens)
    cached_price = price.input if price.cached_input is None else price.cached_input
    pico = fresh * _to_pico(price.input) + (input_tokens - fresh) * _to_pico(cached_price) + output_tokens * _to_pico(price.output)
    return (pico + 500) // 1000


def to_nano_usd(usd: float) -> int:
    """US dollars as nano-USD."""
    return round(usd * NANO)


def to_usd(nano: int) -> float:
    """Nano-USD as US dollars; `to_nano_usd` gives the same whole number back up to nine million dollars."""
    return nano / NANO


def _to_pico(usd_per_million: float) -> int:
    """A price as whole pico-USD per token: six decimals of a dollar per million."""
    return round(usd_per_million * 1_000_000)


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
