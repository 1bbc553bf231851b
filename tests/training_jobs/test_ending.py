"""How jobs end, where SageMaker reads why."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlaas.errors import DependencyUnavailable
from rlaas.preferences.dataset import DatasetManifest
from training_jobs.build_dataset import job as build_dataset
from training_jobs.compact import job as compact
from training_jobs.ending import REASON_BYTES, JobFailed, run_job
from training_jobs.evaluate import job as evaluate
from training_jobs.train import job as train

SAID = "Dear Ms Weber, your sister's diagnosis"


def ends(root: Path, job: Callable[[], None]) -> str:
    """What SageMaker shows of `job`, which fails: the same of a training job and a processing job."""
    assert run_job(job) == 1
    failure = (root / "output" / "failure").read_text()
    assert failure == (root / "output" / "message").read_text()
    return failure


def raises(error: BaseException) -> Callable[[], None]:
    def job() -> None:
        raise error

    return job


LINE_THAT_RAISES = raises.__code__.co_firstlineno + 2


def test_a_job_that_ends_well_says_nothing(ml_root: Path) -> None:
    assert run_job(lambda: None) == 0
    assert not (ml_root / "output").exists()


def test_the_reason_is_the_jobs_own_or_our_errors(ml_root: Path) -> None:
    assert ends(ml_root, raises(JobFailed("3 pairs, 8 are needed"))) == "3 pairs, 8 are needed"
    assert ends(ml_root, raises(DependencyUnavailable("Athena does not answer"))) == "DependencyUnavailable: Athena does not answer"
    assert ends(ml_root, raises(FileNotFoundError(2, "No such file", "/opt/ml/x"))) == (
        "FileNotFoundError: [Errno 2] No such file: '/opt/ml/x'"
    )


def test_data_in_another_librarys_message_is_not_shown(ml_root: Path) -> None:
    assert ends(ml_root, raises(ValueError(f"could not convert {SAID!r}"))) == (
        f"ValueError in test_ending.py, line {LINE_THAT_RAISES}; the job's log has the rest"
    )
    message = ends(ml_root, lambda: DatasetManifest.model_validate({"tenant_id": [SAID]}) and None)
    assert "tenant_id: Input should be a valid string" in message
    assert SAID not in message


def test_a_reason_is_cut_to_what_sagemaker_shows_and_stays_utf_8(ml_root: Path) -> None:
    message = ends(ml_root, raises(JobFailed("é" * REASON_BYTES)))
    assert message == "é" * (REASON_BYTES // 2)
    assert ends(ml_root, raises(JobFailed("x" + "é" * REASON_BYTES))) == "x" + "é" * (REASON_BYTES // 2 - 1)


@pytest.mark.parametrize("main", [build_dataset.main, evaluate.main, compact.main, train.main], ids=lambda main: main.__module__)
def test_every_job_leaves_its_reason(ml_root: Path, run_job: Callable[..., int], main: Callable[[], int]) -> None:
    """Each is called as no state machine calls it: without arguments, or without SageMaker's files."""
    if main is train.main:
        assert run_job(main) == 1
    else:
        with pytest.raises(SystemExit):
            run_job(main)
    assert (ml_root / "output" / "message").read_text() in (
        "the job's arguments are wrong; its log says which",
        f"FileNotFoundError: [Errno 2] No such file or directory: '{ml_root}/input/config/resourceconfig.json'",
    )


def test_an_evaluation_without_held_out_threads_says_so(ml_root: Path, run_job: Callable[..., int]) -> None:
    words = "--tenant acme --skill mail --version v1"
    build_dataset.build(build_dataset.Arguments.parse(words.split()), [], ml_root / "processing" / "input" / "dataset")
    components = [f"--{system}-component=c" for system in ("baseline", "candidate", "sft-only")]
    assert run_job(evaluate.main, "--endpoint", "e", *components) == 1
    assert (ml_root / "output" / "message").read_text().startswith("dataset v1 has no held-out interactions: ")
