"""A skill: a task that policies compete to do well, with its metrics and its reward."""

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from rlaas.clock import Timestamp
from rlaas.ids import MetricName, SkillName, TenantId
from rlaas.wire import Json, WireModel

ATTRIBUTION_WINDOW_HOURS = 7 * 24.0
"""How long feedback waits for its interaction, in hours, unless its metric says otherwise."""


_Missing = Annotated[float, Field(ge=0, le=1)]


class MissingValues(WireModel):
    """The value in [0, 1] of a component that is still missing when its attribution window closes.

    Without a declared value the component counts as 0, and a trial stops when it is missing more often for one arm than
    for the other.
    """

    edit_similarity: _Missing | None = None
    sent: _Missing | None = None


class RewardSpec(WireModel):
    """The weight of each component in a skill's reward, which is their weighted mean. A component with weight 0 is left
    out."""

    edit_similarity: float = Field(default=0.5, ge=0)
    sent: float = Field(default=0.5, ge=0)
    missing: MissingValues = MissingValues.model_construct()  # validating it would build its schema with every import

    @property
    def weights(self) -> dict[str, float]:
        """The weights of the components that count, by name."""
        weights = {"edit_similarity": self.edit_similarity, "sent": self.sent}
        return {name: weight for name, weight in weights.items() if weight > 0}


class Metric(WireModel):
    """A metric that feedback may report: its type, what it is about, which direction is better, and how long after the
    interaction feedback may come.

    Feedback whose interaction has not arrived after `attribution_window_hours` is reported as orphaned.
    """

    type: Literal["boolean", "float", "comment", "demonstration"]
    level: Literal["interaction", "thread"] = "interaction"
    direction: Literal["maximize", "minimize"] | None = None
    attribution_window_hours: float = Field(default=ATTRIBUTION_WINDOW_HOURS, gt=0, le=24 * 365)

    @model_validator(mode="after")
    def _direction_of_numbers(self) -> Self:
        if (self.direction is None) == (self.type in ("boolean", "float")):
            raise ValueError("a boolean or float metric has a direction ('maximize' or 'minimize'), a comment or demonstration has none")
        return self

    def takes(self, value: JsonValue) -> bool:
        """Whether `value` is of the metric's type."""
        match self.type:
            case "boolean":
                return isinstance(value, bool)
            case "float":
                return isinstance(value, int | float) and not isinstance(value, bool)
            case _:
                return isinstance(value, str)


class Skill(WireModel):
    """A task that policies compete to do well."""

    tenant_id: TenantId
    skill: SkillName
    description: Annotated[str, Field(max_length=2000)] = ""
    reward: RewardSpec = Field(default_factory=RewardSpec)
    metrics: dict[MetricName, Metric] = Field(default_factory=dict, max_length=100)
    created_at: Timestamp
    metadata: dict[str, Json] = Field(default_factory=dict)
