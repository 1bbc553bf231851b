"""The promotion report: the evidence for a candidate, the criteria it was held to, and what follows."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from rlaas.evaluation.comparison import (
    SYSTEMS,
    Comparison,
    HeldOutCase,
    ScoredCase,
    System,
    SystemFigures,
    compare_systems,
    compute_figures,
    score_cases,
)
from rlaas.evaluation.intervals import Interval, is_above
from rlaas.ids import Sha256
from rlaas.wire import WireModel


class Criteria(WireModel):
    """What a candidate must reach on the held-out threads to be promoted."""

    min_threads: int = Field(default=20, ge=2)
    min_win_rate: float = Field(default=0.55, ge=0.5, le=1)
    max_empty_share: float = Field(default=0.02, ge=0, le=1)


class Finding(WireModel):
    """One criterion, and whether the candidate met it. `text` has the numbers."""

    criterion: str
    met: bool
    text: str


class PromotionReport(WireModel):
    """Everything that the decision rests on. `candidate_over_sft_only` shows what preference learning added to
    imitation; the decision does not depend on it."""

    schema_version: Literal["1"] = "1"
    created_at: str
    endpoint: str
    dataset_version: str
    test_sha256: Sha256
    decision: Literal["promote", "reject"]
    findings: tuple[Finding, ...]
    criteria: Criteria
    systems: dict[System, SystemFigures]
    candidate_over_baseline: Comparison
    candidate_over_sft_only: Comparison
    sft_only_over_baseline: Comparison
    cases: tuple[ScoredCase, ...]

    @property
    def promote(self) -> bool:
        """Whether the candidate met every criterion."""
        return self.decision == "promote"

    @property
    def reason(self) -> str:
        """Why, in a sentence: the unmet criteria, or all of them."""
        unmet = [finding.text for finding in self.findings if not finding.met]
        return "; ".join(unmet or [finding.text for finding in self.findings])


def judge(comparison: Comparison, candidate: SystemFigures, criteria: Criteria) -> tuple[Finding, ...]:
    """The findings on the candidate, given its comparison with the baseline."""
    low, high = comparison.win_rate_ci
    difference = comparison.difference
    return (
        Finding(
            criterion="enough held-out threads",
            met=comparison.threads >= criteria.min_threads,
            text=f"{comparison.threads} held-out threads{_format_people(comparison)}, at least {criteria.min_threads} wanted",
        ),
        Finding(
            criterion="wins more often than the baseline",
            met=comparison.win_rate >= criteria.min_win_rate and is_above(Interval(low, high), 0.5),
            text=f"win rate {comparison.win_rate:.2f} ({low:.2f} to {high:.2f}), at least {criteria.min_win_rate:.2f} and above 0.5 wanted",
        ),
        Finding(
            criterion="needs less editing than the baseline",
            met=is_above(Interval(*difference.ci), 0.0),
            text=f"edit similarity {difference.mean:+.3f} ({difference.ci[0]:+.3f} to {difference.ci[1]:+.3f}), above 0 wanted",
        ),
        Finding(
            criterion="answers",
            met=candidate.empty_share <= criteria.max_empty_share,
            text=f"{candidate.empty_share:.1%} empty answers, at most {criteria.max_empty_share:.1%} wanted",
        ),
    )


def _format_people(comparison: Comparison) -> str:
    return f" of {comparison.people} people" if comparison.people > 1 else ""


def build_promotion_report(
    cases: Sequence[HeldOutCase],
    components: Mapping[System, str],
    *,
    criteria: Criteria,
    endpoint: str,
    dataset_version: str,
    test_sha256: str,
    created_at: str,
) -> PromotionReport:
    """Compare the systems on `cases` and decide. Raises: ValueError without cases."""
    if not cases:
        raise ValueError(f"dataset {dataset_version} has no held-out interactions to judge on")
    scored_cases = score_cases(cases)
    systems = {system: compute_figures(cases, scored_cases, system, components[system]) for system in SYSTEMS}
    comparison = compare_systems(scored_cases, "candidate", "baseline")
    findings = judge(comparison, systems["candidate"], criteria)
    return PromotionReport(
        created_at=created_at,
        endpoint=endpoint,
        dataset_version=dataset_version,
        test_sha256=test_sha256,
        decision="promote" if all(finding.met for finding in findings) else "reject",
        findings=findings,
        criteria=criteria,
        systems=systems,
        candidate_over_baseline=comparison,
        candidate_over_sft_only=compare_systems(scored_cases, "candidate", "sft_only"),
        sft_only_over_baseline=compare_systems(scored_cases, "sft_only", "baseline"),
        cases=tuple(scored_cases),
    )
