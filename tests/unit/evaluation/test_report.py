"""What a promotion report concludes from answers."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from rlaas.evaluation.comparison import HeldOutCase, System, compare_systems, score_cases
from rlaas.evaluation.report import Criteria, PromotionReport, build_promotion_report

FINAL = "Hi Maria,\n\nYour refund is on its way.\n\nBest,\nThe Northwind Support Team"
COMPONENTS: dict[System, str] = {"baseline": "local--base", "candidate": "acme--mail--v1", "sft_only": "acme--mail--v1--sft"}
GOOD, FAIR, POOR = FINAL, "Hi Maria,\n\nYour refund comes.\n\nBest,\nThe Team", "Dear customer, I am writing to you today"


def case(number: int, *, baseline: str, candidate: str, sft_only: str = FAIR, thread: str | None = None) -> HeldOutCase:
    return HeldOutCase(
        interaction_id=f"int_{number}",
        thread=thread or f"thread-{number}",
        final_text=FINAL,
        answers={"baseline": baseline, "candidate": candidate, "sft_only": sft_only},
    )


def report_of(cases: list[HeldOutCase], criteria: Criteria | None = None) -> PromotionReport:
    return build_promotion_report(
        cases,
        COMPONENTS,
        criteria=criteria or Criteria(),
        endpoint="rlaas-local",
        dataset_version="v1",
        test_sha256="0" * 64,
        created_at="2026-05-04T09:00:00.000000Z",
    )


def make_cases(n: int, answers: Callable[[int], tuple[str, str]]) -> list[HeldOutCase]:
    return [case(i, baseline=answers(i)[0], candidate=answers(i)[1]) for i in range(n)]


def test_a_candidate_that_wins_clearly_is_promoted_and_the_reason_has_the_numbers() -> None:
    report = report_of(make_cases(28, lambda i: (GOOD, POOR) if i % 7 == 0 else (POOR, GOOD)))
    against = report.candidate_over_baseline
    assert (against.wins, against.losses, against.ties) == (24, 4, 0)
    assert against.win_rate == pytest.approx(24 / 28)
    assert against.win_rate_ci == pytest.approx((0.6850, 0.9430), abs=5e-4)
    assert report.promote
    assert "win rate 0.86 (0.69 to 0.94)" in report.reason


def test_a_candidate_like_the_baseline_is_rejected_with_ties_as_halves() -> None:
    report = report_of(make_cases(30, lambda i: (FAIR, FAIR)))
    assert report.candidate_over_baseline.win_rate == 0.5
    assert report.candidate_over_baseline.ties == 30
    assert report.decision == "reject"
    assert "above 0.5 wanted" in report.reason


def test_too_few_threads_are_not_enough_however_good() -> None:
    report = report_of(make_cases(12, lambda i: (POOR, GOOD)))
    assert report.decision == "reject"
    assert report.reason == "12 held-out threads, at least 20 wanted"


def test_a_candidate_that_often_says_nothing_is_rejected() -> None:
    report = report_of(make_cases(40, lambda i: (POOR, "" if i % 8 == 0 else GOOD)))
    assert [finding.criterion for finding in report.findings if not finding.met] == ["answers"]


def test_interactions_of_one_thread_are_one_trial() -> None:
    cases = [case(i, baseline=POOR, candidate=GOOD, thread=f"thread-{i % 5}") for i in range(20)]
    assert compare_systems(score_cases(cases), "candidate", "baseline").threads == 5


def test_fifteen_of_24_people_are_no_proof_however_many_threads_they_have() -> None:
    cases = make_cases(120, lambda i: (POOR, GOOD) if i % 24 < 15 else (GOOD, POOR))
    assert report_of(cases).promote
    report = report_of([replace(case, person=f"p{place % 24}") for place, case in enumerate(cases)])
    assert not report.promote
    assert (report.candidate_over_baseline.win_rate, report.candidate_over_baseline.people) == (0.625, 24)
    assert report.findings[0].text == "120 held-out threads of 24 people, at least 20 wanted"


def test_a_team_is_judged_by_its_threads() -> None:
    cases = make_cases(120, lambda i: (POOR, GOOD) if i % 24 < 15 else (GOOD, POOR))
    assert report_of([replace(case, person="abc"[place % 3]) for place, case in enumerate(cases)]).promote


def test_the_report_survives_json() -> None:
    report = report_of(make_cases(24, lambda i: (POOR, GOOD)))
    assert PromotionReport.model_validate_json(report.model_dump_json()) == report


def test_without_held_out_interactions_there_is_no_report() -> None:
    with pytest.raises(ValueError, match="no held-out interactions"):
        report_of([])


def test_one_thread_on_which_all_answer_alike_decides_nothing() -> None:
    comparison = compare_systems(score_cases(make_cases(1, lambda _: (GOOD, GOOD))), "candidate", "baseline")
    assert (comparison.wins, comparison.ties, comparison.win_rate) == (0, 1, 0.5)
    assert comparison.win_rate_ci[0] < 0.1 < 0.9 < comparison.win_rate_ci[1]
    assert report_of(make_cases(1, lambda _: (GOOD, GOOD))).promote is False
