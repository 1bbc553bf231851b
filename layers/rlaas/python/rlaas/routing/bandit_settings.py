"""How a route's bandit allots its traffic, and what makes it drop an arm."""

from typing import Literal

from pydantic import Field

from rlaas.wire import WireModel


class RateGuard(WireModel):
    """Drops an arm on the evidence that more than the share `above` of its units are harmed."""

    above: float = Field(ge=0, lt=1)


class LatencyGuard(WireModel):
    """Drops an arm on the evidence that the 95th percentile of its backend's latency is over `p95_ms` milliseconds."""

    p95_ms: float = Field(gt=0)


class CostGuard(WireModel):
    """Drops an arm on the evidence that its requests cost more than `usd` US dollars on average."""

    usd: float = Field(gt=0)


class BanditSettings(WireModel):
    """How a route's bandit allots traffic to its control and its arms of mode `bandit`; other live arms keep their
    weights.

    Every arm that is not dropped gets at least `min_probability` of this traffic, and an equal share until
    `min_samples_per_arm` of its units, each counted once a day, are settled. A decision is settled when `window_hours`
    have passed since it, with the reward it has by then and the skill's declared values for what never came. Old
    rewards lose half their weight every `half_life_days`.

    Guards look `lag_seconds` after the request, without waiting for the window. `alpha` bounds the probability that an
    arm within its bounds is ever dropped, however often it is looked at and however little traffic there is; so a bound
    needs no safety margin.
    """

    reward: Literal["binary", "continuous"] = "continuous"
    success_at: float = Field(default=0.5, gt=0, le=1)
    min_probability: float = Field(default=0.02, ge=0, le=0.5)
    min_samples_per_arm: int = Field(default=50, ge=0)
    half_life_days: float | None = Field(default=None, gt=0)
    window_hours: float = Field(default=24.0, ge=0, le=24 * 30)
    lag_seconds: int = Field(default=120, ge=0, le=3600)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    error_rate: RateGuard | None = None
    safety_rate: RateGuard | None = None
    latency: LatencyGuard | None = None
    cost: CostGuard | None = None
