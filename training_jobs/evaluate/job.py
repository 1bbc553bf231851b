"""Compare the answers of baseline, candidate and SFT-only control to held-out prompts, and write the promotion report.

A SageMaker processing job without a network. It reads /opt/ml/processing/input/dataset (test.parquet, manifest.json)
and .../input/answers, which the function ask_held_out got from the endpoint, and writes promotion_report.json and .html
to /opt/ml/processing/output/evaluation.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rlaas.clock import rfc3339, utc_now
from rlaas.evaluation.asking import MAX_INTERACTIONS, SystemAnswer, SystemQuestion, explain_no_prompts
from rlaas.evaluation.comparison import SYSTEMS, HeldOutCase, System
from rlaas.evaluation.report import Criteria, PromotionReport, build_promotion_report
from rlaas.preferences.dataset import DatasetManifest, read_messages
from training_jobs.ending import JobFailed, run_job
from training_jobs.evaluate.promotion_page import render_promotion_page
from training_jobs.ml_root import ml_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

logger = logging.getLogger("evaluate")


def parse(words: list[str]) -> argparse.Namespace:
    """The job's command line. Raises: SystemExit naming the argument that is missing or wrong."""
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    parser.add_argument("--endpoint", required=True)
    for system in ("baseline", "candidate", "sft-only"):
        parser.add_argument(f"--{system}-component", required=True, help="inference component that answered")
    defaults = Criteria()
    parser.add_argument("--min-threads", type=int, default=defaults.min_threads)
    parser.add_argument("--min-win-rate", type=float, default=defaults.min_win_rate)
    return parser.parse_args(words)


def read_test_split(path: Path) -> list[dict[str, object]]:
    """The rows of a dataset's test file, in the format of `rlaas.preferences.dataset.build_trl_row`."""
    import pyarrow.parquet

    rows: list[dict[str, object]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def read_answers(directory: Path) -> dict[SystemQuestion, SystemAnswer]:
    """The answers by row and system; of several to one question, the one that was stored first."""
    answers: dict[SystemQuestion, SystemAnswer] = {}
    for path in sorted(directory.glob("*.jsonl")):
        with path.open("rb") as lines:
            for answer in map(SystemAnswer.model_validate_json, lines):
                answers.setdefault((answer.row, answer.system), answer)
    return answers


def build_cases(rows: Iterable[Mapping[str, object]], answers: Mapping[SystemQuestion, SystemAnswer]) -> list[HeldOutCase]:
    """Each row with the systems' answers. Raises: JobFailed when a system did not answer a row, or the answer belongs
    to another dataset."""
    cases = []
    for number, row in enumerate(rows):
        interaction_id, texts = str(row["interaction_id"]), dict[System, str]()
        for system in SYSTEMS:
            answer = answers.get((number, system))
            if answer is None or answer.interaction_id != interaction_id:
                raise JobFailed(f"held-out interaction {number} has no answer of {system}")
            texts[system] = answer.text
        person = str(row.get("person") or "")
        cases.append(HeldOutCase(interaction_id, str(row["thread"]), read_messages(row["chosen"])[-1].content, texts, person=person))
    return cases


def evaluate(arguments: argparse.Namespace, dataset: Path, answers: Path, output: Path) -> PromotionReport:
    """Compare the systems, decide, and write the report as JSON and HTML. Raises: JobFailed without held-out
    interactions, or when one has not been answered by every system."""
    manifest = DatasetManifest.model_validate_json((dataset / "manifest.json").read_text(), extra="ignore")
    test_file = dataset / "test.parquet"
    rows = read_test_split(test_file)[:MAX_INTERACTIONS]
    if not rows:
        raise JobFailed(explain_no_prompts(manifest.version))
    components: dict[System, str] = {
        "baseline": arguments.baseline_component,
        "candidate": arguments.candidate_component,
        "sft_only": arguments.sft_only_component,
    }
    logger.info("%d held-out interactions of dataset %s, answered by %s", len(rows), manifest.version, components)
    cases = build_cases(rows, read_answers(answers))
    report = build_promotion_report(
        cases,
        components,
        criteria=Criteria(min_threads=arguments.min_threads, min_win_rate=arguments.min_win_rate),
        endpoint=arguments.endpoint,
        dataset_version=manifest.version,
        test_sha256=hashlib.sha256(test_file.read_bytes()).hexdigest(),
        created_at=rfc3339(utc_now()),
    )
    output.mkdir(parents=True, exist_ok=True)
    (output / "promotion_report.json").write_text(report.model_dump_json(indent=2) + "\n")
    (output / "promotion_report.html").write_text(render_promotion_page(report, cases))
    return report


def main() -> int:
    """Run the job and return its exit status. A rejected candidate is a result, not a failure."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    return run_job(work)


def work() -> None:
    """Evaluate the systems that the command line names. Raises: JobFailed, as `evaluate` does."""
    arguments = parse(sys.argv[1:])
    root = ml_root() / "processing"
    report = evaluate(arguments, root / "input" / "dataset", root / "input" / "answers", root / "output" / "evaluation")
    logger.info("%s: %s", report.decision, report.reason)
