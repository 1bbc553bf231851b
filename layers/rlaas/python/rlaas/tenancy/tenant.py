"""A tenant."""

from typing import Annotated

from pydantic import Field

from rlaas.clock import Timestamp
from rlaas.ids import TenantId
from rlaas.wire import Json, WireModel


class Tenant(WireModel):
    """A company or team: the isolation boundary of everything stored."""

    tenant_id: TenantId
    name: Annotated[str, Field(max_length=200)] = ""
    created_at: Timestamp
    metadata: dict[str, Json] = Field(default_factory=dict)
