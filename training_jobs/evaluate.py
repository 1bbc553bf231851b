"""Held-out prompts asked of the served baseline, candidate and SFT-only control; the promotion report.

A SageMaker processing job: reads /opt/ml/processing/input/dataset (test.parquet, manifest.json), asks the endpoint itself, so that what is
judged is what is served, and writes promotion_report.json and .html to /opt/ml/processing/output/evaluation.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlaas.clock import rfc3339, utc_now
from rlaas.evaluation.comparison import SYSTEMS, HeldOutCase, System
from rlaas.evaluation.report import Criteria, PromotionReport, promotion_report
from rlaas.inference.backend import ChatCall
from rlaas.preferences.dataset import DatasetManifest, read_messages
from rlaas.routing.policy import SageMakerBackend, Sampling
from training_jobs.ending import JobFailed, exit_status
from training_jobs.ml_root import ml_root
from training_jobs.promotion_page import promotion_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import JsonValue

    from rlaas.inference.backend import Backend

logger = logging.getLogger("evaluate")


def parse(words: list[str]) -> argparse.Namespace:
    """The job's command line. Raises: SystemExit naming the argument that is missing or wrong."""
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    parser.add_argument("--endpoint", required=True)
    for system in ("baseline", "candidate", "control"):
        parser.add_argument(f"--{system}-component", required=True, help="inference component that answers")
    parser.add_argument("--max-tokens", type=int, default=256, help="longest answer; the served policies' own limit")
    parser.add_argument("--max-interactions", type=int, default=2000, help="held-out interactions judged at most")
    parser.add_argument("--concurrency", type=int, default=24, help="requests under way; the server answers them in one batch")
    parser.add_argument("--timeout-seconds", type=float, default=120.0, help="for one answer")
    defaults = Criteria()
    parser.add_argument("--min-threads", type=int, default=defaults.min_threads)
    parser.add_argument("--min-win-rate", type=float, default=defaults.min_win_rate)
    return parser.parse_args(words)


def read_test_split(path: Path) -> list[dict[str, object]]:
    """The rows of a dataset's test file, in the format of `rlaas.preferences.dataset.trl_row`."""
    import pyarrow.parquet

    rows: list[dict[str, object]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


def ask(
    rows: Sequence[Mapping[str, object]],
    components: Mapping[System, str],
    backend: Backend,
    *,
    endpoint: str,
    tenant_id: str,
    sampling: Sampling,
    concurrency: int,
    timeout_s: float,
) -> list[HeldOutCase]:
    """Every system's answer to every row's prompt. Raises: DependencyUnavailable when the endpoint does not answer one."""
    cases = [
        HeldOutCase(str(row["interaction_id"]), str(row["thread"]), _text(row["chosen"]), answers={}, person=str(row.get("person") or ""))
        for row in rows
    ]
    answers: list[dict[System, str]] = [{} for _ in rows]
    with ThreadPoolExecutor(concurrency) as pool:
        asked = {
            pool.submit(
                backend.complete,
                SageMakerBackend(endpoint=endpoint, component=components[system]),
                ChatCall(messages=read_messages(row["prompt"]), parameters={**sampling.parameters(), **_tools(row)}, tenant_id=tenant_id),
                timeout_s=timeout_s,
            ): (number, system)
            for system in SYSTEMS
            for number, row in enumerate(rows)
        }
        try:
            for done, answer in enumerate(as_completed(asked), start=1):
                number, system = asked[answer]
                answers[number][system] = answer.result().text
                if done % max(1, len(asked) // 10) == 0:
                    logger.info("%d of %d answers", done, len(asked))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [replace(case, answers=given) for case, given in zip(cases, answers, strict=True)]


def evaluate(arguments: argparse.Namespace, backend: Backend, dataset: Path, output: Path) -> PromotionReport:
    """Ask, compare, decide, and write both forms of the report. Raises: JobFailed without held-out interactions."""
    manifest = DatasetManifest.model_validate_json((dataset / "manifest.json").read_text(), extra="ignore")
    test_file = dataset / "test.parquet"
    rows = read_test_split(test_file)[: arguments.max_interactions]
    if not rows:
        raise JobFailed(f"dataset {manifest.version} has no held-out interactions: collect more threads or raise the run's test_share")
    components: dict[System, str] = {
        "baseline": arguments.baseline_component,
        "candidate": arguments.candidate_component,
        "sft_only": arguments.control_component,
    }
    logger.info("%d held-out interactions of dataset %s, asked of %s", len(rows), manifest.version, components)
    cases = ask(
        rows,
        components,
        backend,
        endpoint=arguments.endpoint,
        tenant_id=manifest.tenant_id,
        sampling=Sampling(temperature=0.0, max_tokens=arguments.max_tokens),
        concurrency=arguments.concurrency,
        timeout_s=arguments.timeout_seconds,
    )
    report = promotion_report(
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
    (output / "promotion_report.html").write_text(promotion_page(report, cases))
    return report


def main() -> int:
    """Run the job; its exit status. A rejected candidate is a result, not a failure."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    return exit_status(work)


def work() -> None:
    """Evaluate what the command line names, with the endpoint itself."""
    arguments = parse(sys.argv[1:])
    from rlaas.aws.backends import Backends
    from rlaas.aws.secrets import VendorKeys

    root = ml_root() / "processing"
    report = evaluate(arguments, Backends(VendorKeys(None)), root / "input" / "dataset", root / "output" / "evaluation")
    logger.info("%s: %s", report.decision, report.reason)


def _tools(row: Mapping[str, object]) -> dict[str, JsonValue]:
    """The tools that the request offered. They are shown and not to be called: what is judged are texts."""
    tools = row["tools"]
    return {"tools": json.loads(tools), "tool_choice": "none"} if isinstance(tools, str) else {}


def _text(value: object) -> str:
    return read_messages(value)[-1].content


if __name__ == "__main__":
    sys.exit(main())
