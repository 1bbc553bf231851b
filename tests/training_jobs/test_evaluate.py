"""The evaluation job: what it reads of the answers, what it writes, and what it does when some are missing."""

from pathlib import Path

import pytest

from rlaas.evaluation.asking import SystemAnswer, ask_remaining
from rlaas.evaluation.comparison import System
from rlaas.evaluation.report import PromotionReport
from rlaas.preferences.dataset import TEST_PROMPTS, HeldOutPrompt
from rlaas.telemetry.store import StoredEvent
from tests.fakes.answers import MemoryAnswers
from training_jobs.build_dataset.job import Arguments, build
from training_jobs.ending import JobFailed
from training_jobs.evaluate import job as evaluate
from training_jobs.train.job import hash_file

WORDS = (
    "--endpoint rlaas-local --baseline-component rlaas-local--base --candidate-component acme--mail--v1 "
    "--sft-only-component acme--mail--v1--sft --min-threads 5"
)


def answer_prompt(system: System, prompt: HeldOutPrompt) -> str:
    """What a candidate answers that writes in the house's style, and a base model that rambles."""
    name = prompt.prompt[-1].content.removeprefix("From: ").split()[0]
    house_style = f"Hi {name},\n\nWe are looking into it.\n\nBest,\nThe Northwind Support Team"
    return "Dear customer, <b>thank you</b> for writing." if system == "baseline" else house_style


def write(answers: list[SystemAnswer], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{answer.model_dump_json()}\n" for answer in answers))


@pytest.fixture
def dataset(tmp_path: Path, week_of_events: list[StoredEvent]) -> Path:
    words = "--tenant acme --skill support-email-draft --version v4 --test-share 0"
    build(Arguments.parse(words.split()), week_of_events, tmp_path / "dataset")
    return tmp_path / "dataset"


@pytest.fixture
def answers(dataset: Path) -> list[SystemAnswer]:
    """What the systems answer to the dataset's prompts, asked as the function asks them."""
    prompts = [HeldOutPrompt.model_validate_json(line) for line in (dataset / TEST_PROMPTS).read_bytes().splitlines()]
    store = MemoryAnswers()
    ask_remaining(prompts, answer_prompt, store, concurrency=4, time_is_left=lambda: True)
    return store.entries


def run_evaluation(tmp_path: Path) -> PromotionReport:
    return evaluate.evaluate(evaluate.parse(WORDS.split()), tmp_path / "dataset", tmp_path / "answers", tmp_path / "out")


def test_the_answers_are_compared_and_both_reports_are_written(dataset: Path, answers: list[SystemAnswer], tmp_path: Path) -> None:
    write(answers[:7], tmp_path / "answers" / "000000.jsonl")
    write(answers[7:], tmp_path / "answers" / "000001.jsonl")
    report = run_evaluation(tmp_path)
    assert report.promote
    assert report.candidate_over_baseline.win_rate == 1.0
    assert report.candidate_over_sft_only.ties == len(report.cases) == 6
    assert (report.dataset_version, report.test_sha256) == ("v4", hash_file(dataset / "test.parquet"))
    assert PromotionReport.model_validate_json((tmp_path / "out" / "promotion_report.json").read_text()) == report


def test_the_page_stands_alone_and_shows_answers_as_text(answers: list[SystemAnswer], tmp_path: Path) -> None:
    write(answers, tmp_path / "answers" / "000000.jsonl")
    run_evaluation(tmp_path)
    page = (tmp_path / "out" / "promotion_report.html").read_text()
    assert page.count("<svg") == 2
    assert "src=" not in page
    assert 'rel="stylesheet"' not in page
    assert "&lt;b&gt;thank you&lt;/b&gt;" in page
    assert "Promote" in page


def test_of_two_answers_to_one_question_the_first_kept_is_judged(answers: list[SystemAnswer], tmp_path: Path) -> None:
    write(answers, tmp_path / "answers" / "000000.jsonl")
    once = run_evaluation(tmp_path)
    write([answer.model_copy(update={"text": "no"}) for answer in answers], tmp_path / "answers" / "000001.jsonl")
    assert run_evaluation(tmp_path).cases == once.cases


@pytest.mark.parametrize("wrong", ["missing", "of another interaction"])
def test_without_every_systems_answer_to_each_prompt_the_job_fails_and_leaves_no_report(
    wrong: str, answers: list[SystemAnswer], tmp_path: Path
) -> None:
    [lost] = [answer for answer in answers if (answer.row, answer.system) == (3, "candidate")]
    others = [answer for answer in answers if answer is not lost]
    theirs = [lost.model_copy(update={"interaction_id": "int_other"})] if wrong != "missing" else []
    write([*others, *theirs], tmp_path / "answers" / "000000.jsonl")
    with pytest.raises(JobFailed, match="held-out interaction 3 has no answer of candidate"):
        run_evaluation(tmp_path)
    assert not (tmp_path / "out").exists()
