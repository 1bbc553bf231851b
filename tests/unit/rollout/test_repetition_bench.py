"""The simulation of `make bench-repetition` at a few runs: that it runs, and tells counting messages from counting
people."""

from dataclasses import replace

from benchmarks.decisions import Runner
from benchmarks.repetition import OFFICES, datasets, reports, rolled_out


def test_one_of_thirty_takes_an_equal_candidate_back_only_where_every_unit_counts() -> None:
    office = replace(OFFICES["30"], days=2, repeated=200)
    assert sum(Runner().of(lambda run: rolled_out(run, office, ships=False, capped=False)[1], 5)) == 5
    assert sum(Runner().of(lambda run: rolled_out(run, office, ships=False, capped=True)[1], 5)) <= 1


def test_reports_and_datasets_are_moved_no_further_than_a_share() -> None:
    moved = reports()
    assert moved["plain_report_300_k1000_mean"] < 0.45
    assert moved["report_300_k1000_threads_mean"] > 0.59
    assert datasets()["dataset_300_k1000_ratio"] <= 0.1
