"""The evaluation job: what it asks, what it writes, and what it does when the endpoint fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlaas.errors import DependencyUnavailable
from rlaas.evaluation.report import PromotionReport
from rlaas.inference.backend import BackendFailed, ChatCall, Choice, Completion, Delta
from rlaas.routing.policy import BackendSpec
from rlaas.telemetry.events import Usage
from rlaas.telemetry.store import StoredEvent
from training_jobs import evaluate
from training_jobs.build_dataset import Arguments, build
from training_jobs.train import sha256

WORDS = (
    "--endpoint rlaas-local --baseline-component rlaas-local--base --candidate-component acme--mail--v1 "
    "--control-component acme--mail--v1--sft --max-tokens 48 --min-threads 5"
)


class Models:
    """A backend whose candidate writes in the house's style and whose base model rambles."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ChatCall]] = []

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        self.asked.append((backend.model, call))
        name = call.messages[-1].content.removeprefix("From: ").split()[0]
        styled = f"Hi {name},\n\nWe are looking into it.\n\nBest,\nThe Northwind Support Team"
        text = "Dear customer, <b>thank you</b> for writing." if backend.model == "rlaas-local--base" else styled
        return Completion((Choice(text, "stop"),), Usage(input_tokens=9, output_tokens=9))

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        raise AssertionError("an evaluation reads whole answers")


class Down:
    """A backend that does not answer."""

    def complete(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Completion:
        raise BackendFailed("the model endpoint does not answer")

    def stream(self, backend: BackendSpec, call: ChatCall, *, timeout_s: float) -> Iterator[Delta]:
        raise BackendFailed("the model endpoint does not answer")


@pytest.fixture
def dataset(tmp_path: Path, week_of_events: list[StoredEvent]) -> Path:
    words = "--tenant acme --skill support-email-draft --version v4 --test-share 0"
    build(Arguments.parse(words.split()), week_of_events, tmp_path / "dataset")
    return tmp_path / "dataset"


def test_every_system_is_asked_each_held_out_prompt_greedily_and_both_reports_are_written(dataset: Path, tmp_path: Path) -> None:
    models = Models()
    report = evaluate.evaluate(evaluate.parse(WORDS.split()), models, dataset, tmp_path / "out")
    assert sorted(component for component, _ in models.asked) == [
        *["acme--mail--v1"] * 6,
        *["acme--mail--v1--sft"] * 6,
        *["rlaas-local--base"] * 6,
    ]
    assert all(call.parameters == {"temperature": 0.0, "max_tokens": 48} for _, call in models.asked)
    assert {call.tenant_id for _, call in models.asked} == {"acme"}
    assert report.promote
    assert report.candidate_over_baseline.win_rate == 1.0
    assert report.candidate_over_sft_only.ties == 6
    assert (report.dataset_version, report.test_sha256) == ("v4", sha256(dataset / "test.parquet"))
    assert PromotionReport.model_validate_json((tmp_path / "out" / "promotion_report.json").read_text()) == report


def test_the_page_stands_alone_and_shows_answers_as_text(dataset: Path, tmp_path: Path) -> None:
    evaluate.evaluate(evaluate.parse(WORDS.split()), Models(), dataset, tmp_path / "out")
    page = (tmp_path / "out" / "promotion_report.html").read_text()
    assert page.count("<svg") == 2
    assert "src=" not in page
    assert 'rel="stylesheet"' not in page
    assert "&lt;b&gt;thank you&lt;/b&gt;" in page
    assert "Promote" in page


def test_an_endpoint_that_is_down_fails_the_job_and_leaves_no_report(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DependencyUnavailable):
        evaluate.evaluate(evaluate.parse(WORDS.split()), Down(), dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()
